"""A run while it trains: what its steps need, what each of them leaves behind, where it goes on."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from jax.sharding import Mesh
from rich.console import Console

from configs.errors import InputError
from configs.schema import RunConfig
from data.batches import Cursor
from data.dataset import Corpora, corpus_warnings
from data.ledger import Ledger
from train.checkpoint import Checkpoints, Restored
from train.corruption import SilentCorruption, StateChecks
from train.evaluate import Evaluation, describe, evaluate
from train.feed import Fed
from train.goodput import Goodput
from train.ledger import total_ledger
from train.metrics import TensorBoard
from train.preemption import Preempted, StopRequest
from train.progress import TrainingProgress
from train.recorder import Clock, Recorder
from train.refusals import CULPRITS_FOLDER, Refusals, Rewind, TooManyRefusals, save_culprit
from train.run_directory import RunDirectory
from train.state import TrainState, abstract_state, init_state
from train.step import StepMetrics, batch_sharding
from train.watchdog import Watchdog


class Progress(NamedTuple):
    """What a checkpoint says besides the arrays: where in the data, how long so far, what was
    refused, and whether the step's evaluation was put off by a signal."""

    cursor: Cursor
    ledger: Ledger
    train_seconds: float
    refusals: Refusals = Refusals()
    evaluation_due: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "cursor": self.cursor.to_json(),
            "ledger": self.ledger.to_json(),
            "train_seconds": self.train_seconds,
            "refusals": self.refusals.to_json(),
            "evaluation_due": self.evaluation_due,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Progress":
        refusals = record.get("refusals")  # not there before version 0.2
        return cls(
            Cursor.from_json(record["cursor"]),
            Ledger.from_json(record["ledger"]),
            record["train_seconds"],
            Refusals.from_json(refusals) if refusals else Refusals(),
            record.get("evaluation_due", False),
        )


class Start(NamedTuple):
    """What steps are taken from."""

    state: TrainState
    progress: Progress


class Unread(NamedTuple):
    """A step whose metrics are still on the devices."""

    step: int
    metrics: StepMetrics
    fed: Fed
    ledger: Ledger


class StopNow(Exception):
    """A signal came while something ran that can be done again."""


@dataclass(kw_only=True)
class Training:
    """A run while it trains: what its steps need, and what they leave behind.

    rewinds: times it went back, those that no checkpoint knows of yet included.
    """

    config: RunConfig
    run: RunDirectory
    corpora: Corpora
    mesh: Mesh
    source: Any
    compiled: Any
    checkpoints: Checkpoints
    board: TensorBoard
    recorder: Recorder
    clock: Clock
    goodput: Goodput
    stop: StopRequest
    watchdog: Watchdog
    console: Console
    checks: StateChecks
    profile: str
    rewinds: int = 0

    def begin(self, restored: Restored | None) -> Start:
        """From the newest checkpoint, or from step 0."""
        if restored is None and (saved := self.run.last_saved()):
            raise InputError(
                f"checkpoints: got none in {self.run.checkpoints}, where step {saved} was saved "
                "(events.jsonl), expected one (is a disk missing?); to train from step 0, start a "
                "run of its own"
            )
        start = self._start(restored)
        step = int(start.state.step)
        if step:
            self.run.event("resumed", f"after step {step}")
            self.console.print(f"  resuming after step {step}", highlight=False)
        else:
            for warning in corpus_warnings(self.config, self.source):
                self.run.event("data_warning", warning)
                self.console.print(f"  warning: {warning}", highlight=False)
        self.goodput.resumed(step)
        self.run.cut_back(step)
        self.run.set_status("training")
        return start

    def go_back(self, rewind: Rewind) -> Start:
        """From the newest checkpoint before a spike, its rows and those since passed over."""
        self.recorder.pause()
        self.await_save()
        with self.goodput.phase("restore"), self.watchdog.paused():
            abstract = abstract_state(self.config, self.mesh)
            start = self._start(self.checkpoints.restore_before(abstract, rewind.step - 1))
        step, progress = int(start.state.step), start.progress
        first_row = progress.cursor.next_row
        self.rewinds = rewinds = 1 + max(progress.refusals.rewinds, self.rewinds)
        progress = progress._replace(
            cursor=progress.cursor.skip(first_row, rewind.stop_row),
            refusals=progress.refusals.rewound(rewind, first_row, rewinds),
        )
        self.run.event(
            "rewound", f"{rewind}; back to step {step}, rows {first_row} to {rewind.stop_row - 1} "
            "passed over",
        )  # fmt: skip
        self.goodput.resumed(step)
        self.run.cut_back(step)
        return start._replace(progress=progress)

    def preempted(self, detail: str) -> Preempted:
        """What to raise once everything is on disk."""
        self.await_save()
        self.run.event("preempted", detail)
        return Preempted(detail)

    def await_save(self) -> None:
        """Waits until the save under way, if there is one, is committed: as long as that takes."""
        with self.goodput.phase("save"), self.watchdog.paused():
            self.checkpoints.wait()

    def _start(self, restored: Restored | None) -> Start:
        if restored is None:
            progress = Progress(Cursor(), Ledger(facts=self.source.facts), 0.0)
            with self.goodput.phase("compile"), self.watchdog.paused():
                return Start(init_state(self.config, self.mesh), progress)
        return Start(restored.state, Progress.from_json(restored.progress))

    def timed(self, batches: Generator[Fed, None, None]) -> Generator[Fed, None, None]:
        """The same batches; waiting for them is counted."""
        while True:
            with self.goodput.phase("data"):
                fed = next(batches, None)
            if fed is None:
                return
            yield fed

    def read(
        self, unread: Unread, ledger: Ledger, refusals: Refusals, bar: TrainingProgress
    ) -> Refusals:
        """Waits for a step, records it, and decides how to go on where its update was refused."""
        step, fed = unread.step, unread.fed
        values = self.recorder.read(
            step,
            unread.metrics,
            (len(fed.batch.inputs), fed.batch.seq_len),
            lambda: total_ledger(ledger, unread.ledger),
            bar,
        )
        self.watchdog.beat()
        try:
            after = refusals.after(self.config.guard, step, fed.rows, values)
        except TooManyRefusals as error:
            if self.run.is_writer:
                folder = self.run.path / CULPRITS_FOLDER
                save_culprit(folder, step, fed.host_rows, fed.host, str(error))
            self.run.event("gave_up", f"{error}; the batch is kept in {CULPRITS_FOLDER}/{step}.npz")
            raise
        if len(after.refused) > len(refusals.refused):
            refused = after.refused[-1]
            detail = f"step {step}, rows {refused.first_row} to {refused.stop_row - 1}: "
            self.run.event("update_refused", detail + refused.reason)
            bar.note(f"step {step}: update refused, {refused.reason}")
        return after

    def checked_step(
        self, step: int, state: TrainState, fed: Fed
    ) -> tuple[TrainState, StepMetrics]:
        with self._checking(step):
            return self.checks.step(self.compiled.train_step, state, fed.batch)

    @contextmanager
    def _checking(self, step: int) -> Generator[None, None, None]:
        """What it finds becomes an event."""
        with self.goodput.phase("check"), self.watchdog.paused():
            try:
                yield
            except SilentCorruption as error:
                self.run.event("corruption", f"step {step}: {error}")
                raise

    def score(self, state: TrainState, max_tokens: int, bar: TrainingProgress) -> Evaluation:
        """Scores held-out text and records it. Raises StopNow where a signal comes first."""

        def after_batch() -> None:
            self.watchdog.alive()
            if self.stop.poll():
                raise StopNow

        step = int(state.step)
        with self.goodput.phase("evaluate"):
            evaluation = evaluate(
                self.compiled.eval_step,
                state.params,
                self.config,
                self.corpora,
                sharding=batch_sharding(self.config, self.mesh),
                max_tokens=max_tokens,
                after_batch=after_batch,
            )
        record = {"step": step} | evaluation._asdict()
        self.run.append("evaluations.jsonl", record)
        self.board.write(record | evaluation.metrics, "held_out")
        bar.note(f"step {step}: held-out {describe(evaluation)}")
        return evaluation

    def save(self, state: TrainState, progress: Progress, score: float | None) -> None:
        """Begins a save; the steps after it run while it is written."""
        with self._checking(int(state.step)):
            self.checks.require_equal_replicas(state)
        refused = [one.to_json() for one in progress.refusals.refused]
        self.run.write("ledger.json", progress.ledger.to_json() | {"refused": refused})
        with self.goodput.phase("save"), self.watchdog.paused():
            self.checkpoints.save(state, progress.to_json(), score=score)
        self.goodput.saved(int(state.step))
        self.goodput.write()
