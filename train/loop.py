"""Training, top to bottom."""

import resource
import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from rich.console import Console

from configs.errors import Problems, require
from configs.schema import RunConfig
from data.batches import Cursor
from data.dataset import Corpora, corpus_warnings, training_rows
from data.ledger import Ledger
from model.build import Params
from train.checkpoint import Checkpoints, Restored
from train.corruption import SilentCorruption, StateChecks
from train.evaluate import Evaluation, describe, evaluate
from train.feed import Fed, feed
from train.goodput import Goodput
from train.ledger import total_ledger
from train.mesh import make_mesh
from train.metrics import TensorBoard
from train.preemption import Preempted, StopRequest
from train.profile import PROFILE_FOLDER, ProfiledSteps, Profiler
from train.programs import compile_steps
from train.progress import TrainingProgress
from train.recorder import Clock, Recorder
from train.refusals import CULPRITS_FOLDER, Refusals, Rewind, TooManyRefusals, save_culprit
from train.run_directory import RunDirectory
from train.state import TrainState, abstract_state, init_state
from train.step import StepMetrics, batch_sharding
from train.watchdog import Watchdog


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a finished run measured. Times in seconds, memory in bytes.

    train_seconds: steps, evaluations and saves, over all restarts. step_seconds: median, None if
    this process ran no two steps. compile_seconds, peak_bytes: of this process' train step;
    peak_bytes is the compiler's count, arguments and temporaries.
    """

    params: Params
    evaluation: Evaluation
    ledger: Ledger
    train_seconds: float
    compile_seconds: float
    step_seconds: float | None
    peak_bytes: int
    peak_rss_bytes: int


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


@dataclass(frozen=True, kw_only=True)
class Watch:
    """When a run that makes no progress is given up (train/watchdog.py).

    A step or evaluation batch that takes `multiple` times as long as usual, and at least
    `floor_seconds`, ends the process with 42; multiple 0: never.
    """

    multiple: float = 20.0
    floor_seconds: float = 300.0


DEFAULT_WATCH = Watch()


def train(
    config: RunConfig,
    run: RunDirectory,
    corpora: Corpora,
    *,
    peak_flops: float,
    console: Console,
    profile: str = "",
    began: float | None = None,
    watch: Watch = DEFAULT_WATCH,
) -> TrainingResult:
    """Trains to the last step of the config, from the newest checkpoint if there is one.

    Args:
      run: an open run directory (its lock held by process 0).
      corpora: those that the config names, in its order.
      peak_flops: peak FLOP/s of all devices together, for MFU.
      profile: steps to trace into RUN/profile: "10:13", or "3" from this process' fifth on; ""
        for none.
      began: when this start began, seconds since 1970, for goodput; now if None.

    Raises:
      InputError: the config does not fit the corpora or the devices, or `profile` the run; before
        any compile.
      Preempted: a signal asked to stop; the state has been saved.
      TooManyRefusals: one update too many was not finite, or a spike; the batch is in culprits/.
      SilentCorruption: equal work gave unequal bits; nothing was saved since.
    """
    check_corpora(config, corpora)
    ProfiledSteps.of(profile, first_step=0, num_steps=config.training.num_steps)
    mesh = make_mesh(config.mesh)
    checks = StateChecks(config, mesh)
    source = training_rows(config, corpora)
    goodput = Goodput(run, time.time() if began is None else began)
    t = config.training
    checkpoints = Checkpoints(
        run.checkpoints,
        keep=t.keep_checkpoints,
        keep_every=t.keep_every,
        keep_best=t.keep_best,
        on_event=run.event,
    )

    def leave_early() -> None:
        run.event("preempted", "nothing to save yet")
        goodput.write(stopped=True)

    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        watchdog = stack.enter_context(
            Watchdog(
                run.stacks_file(),
                multiple=watch.multiple,
                floor_seconds=watch.floor_seconds,
                on_hang=lambda detail: run.event("hang", detail, from_any_process=True),
            )
        )
        stack.enter_context(closing(checkpoints))
        board = stack.enter_context(closing(TensorBoard(run.path / "tensorboard", run.is_writer)))
        with stop.nothing_to_save(leave_early):
            with goodput.phase("compile"):
                compiled = compile_steps(config, mesh)
            console.print(f"  {compiled.describe()}", highlight=False)
            with goodput.phase("restore"):
                restored = checkpoints.restore_latest(abstract_state(config, mesh))
        clock = Clock(already=restored.progress["train_seconds"] if restored else 0.0)
        training = _Training(
            config=config,
            run=run,
            corpora=corpora,
            mesh=mesh,
            source=source,
            compiled=compiled,
            checkpoints=checkpoints,
            board=board,
            recorder=Recorder(config, run, board, clock, goodput, peak_flops),
            clock=clock,
            goodput=goodput,
            stop=stop,
            watchdog=watchdog,
            console=console,
            checks=checks,
            profile=profile,
        )
        start = training.begin(restored)
        is_over = False
        try:
            while not is_over:
                try:
                    state, evaluation, ledger = training.follow(start)
                    is_over = True
                except Rewind as rewind:
                    start = training.go_back(rewind)
        except Preempted:
            is_over = True
            raise
        finally:
            goodput.write(stopped=is_over)
    return TrainingResult(
        params=state.params,
        evaluation=evaluation,
        ledger=ledger,
        train_seconds=clock.seconds(),
        compile_seconds=compiled.seconds,
        step_seconds=training.recorder.median_step_seconds(),
        peak_bytes=compiled.peak_bytes,
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


class _Start(NamedTuple):
    """What steps are taken from."""

    state: TrainState
    progress: Progress


class _Unread(NamedTuple):
    """A step whose metrics are still on the devices."""

    step: int
    metrics: StepMetrics
    fed: Fed
    ledger: Ledger


class _StopNow(Exception):
    """A signal came while something ran that can be done again."""


@dataclass(kw_only=True)
class _Training:
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

    def begin(self, restored: Restored | None) -> _Start:
        """From the newest checkpoint, or from step 0."""
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

    def go_back(self, rewind: Rewind) -> _Start:
        """From the newest checkpoint before a spike, its rows and those since passed over."""
        self.recorder.pause()
        self.checkpoints.wait()
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

    def follow(self, start: _Start) -> tuple[TrainState, Evaluation, Ledger]:
        """Takes every step that is left, then scores all held-out text."""
        config, run, t = self.config, self.run, self.config.training
        state, progress = start
        first_step = int(state.step)
        sharding = batch_sharding(config, self.mesh)
        is_awaited = awaits_each_step(self.mesh)
        refusals = progress.refusals
        own_ledger = Ledger(facts=self.source.facts)  # what this process has read
        evaluation: Evaluation | None = None
        with (
            TrainingProgress(self.console, t.num_steps, first_step, run.is_writer) as bar,
            Profiler(
                ProfiledSteps.of(self.profile, first_step=first_step, num_steps=t.num_steps),
                run.path / PROFILE_FOLDER,
                pause=self.recorder.pause,
                note=bar.note,
            ) as profiler,
            closing(
                feed(
                    self.source,
                    progress.cursor,
                    t,
                    first_step=first_step,
                    sharding=sharding,
                    num_threads=config.data.read_threads,
                )
            ) as batches,
        ):

            def total() -> Ledger:
                return total_ledger(progress.ledger, own_ledger)

            def read(unread: _Unread) -> Refusals:
                with self.goodput.phase("step"):
                    return self._read(unread, progress.ledger, refusals, bar)

            def score(max_tokens: int) -> Evaluation:
                return self._score(state, max_tokens, bar)

            def save(cursor: Cursor, *, evaluation_due: bool) -> None:
                self._save(
                    state,
                    Progress(cursor, total(), self.clock.seconds(), refusals, evaluation_due),
                    None if evaluation is None else evaluation.nats_per_token,
                )

            unread: _Unread | None = None
            if progress.evaluation_due and first_step < t.num_steps:
                try:
                    score(t.eval_tokens)
                except _StopNow:
                    raise self._preempted(f"step {first_step} was saved before") from None
            for step, fed in enumerate(self._timed(batches), start=first_step + 1):
                with profiler.step(step, state), self.goodput.phase("step"):
                    if self.checks.is_due(step):
                        state, metrics = self._checked_step(step, state, fed)
                    else:
                        state, metrics = self.compiled.train_step(state, fed.batch)
                    if is_awaited:
                        jax.block_until_ready(state)
                own_ledger = own_ledger.add(fed.entries)
                if unread:  # step n runs already while step n - 1 is read: that holds up nothing
                    refusals = read(unread)
                profiler.finish(step, state)
                unread = _Unread(step, metrics, fed, own_ledger)
                is_last = step == t.num_steps
                is_stopped = self.stop.poll()
                evaluate_now = is_last or _is_due(step, t.eval_every)
                save_now = is_last or _is_due(step, t.checkpoint_every) or is_stopped
                if evaluate_now or save_now:
                    refusals = read(unread)
                    self.recorder.pause()
                    unread = None
                evaluation = None
                if evaluate_now and not is_stopped:
                    try:
                        evaluation = score(0 if is_last else t.eval_tokens)
                    except _StopNow:
                        is_stopped = save_now = True
                if save_now:
                    run.write("ledger.json", _ledger_record(total(), refusals))
                    save(fed.cursor, evaluation_due=evaluate_now and evaluation is None)
                if is_stopped and not (is_last and evaluation):
                    raise self._preempted(f"saved step {step} of {t.num_steps}")
            if evaluation is None:  # started again after the last save: only this was left to do
                run.cut_back(t.num_steps - 1, names=("evaluations.jsonl",))
                try:
                    evaluation = score(0)
                except _StopNow:
                    raise self._preempted(f"all {t.num_steps} steps were saved before") from None
            with self.goodput.phase("save"):
                self.checkpoints.wait()
            return state, evaluation, total()

    def _preempted(self, detail: str) -> Preempted:
        """What to raise once everything is on disk."""
        with self.goodput.phase("save"):
            self.checkpoints.wait()
        self.run.event("preempted", detail)
        return Preempted(detail)

    def _start(self, restored: Restored | None) -> _Start:
        if restored is None:
            progress = Progress(Cursor(), Ledger(facts=self.source.facts), 0.0)
            with self.goodput.phase("compile"), self.watchdog.paused():
                return _Start(init_state(self.config, self.mesh), progress)
        return _Start(restored.state, Progress.from_json(restored.progress))

    def _timed(self, batches: Generator[Fed, None, None]) -> Generator[Fed, None, None]:
        """The same batches; waiting for them is counted."""
        while True:
            with self.goodput.phase("data"):
                fed = next(batches, None)
            if fed is None:
                return
            yield fed

    def _read(
        self, unread: _Unread, ledger: Ledger, refusals: Refusals, bar: TrainingProgress
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

    def _checked_step(
        self, step: int, state: TrainState, fed: Fed
    ) -> tuple[TrainState, StepMetrics]:
        with self.goodput.phase("check"), self.watchdog.paused():
            try:
                return self.checks.step(self.compiled.train_step, state, fed.batch)
            except SilentCorruption as error:
                self.run.event("corruption", f"step {step}: {error}", from_any_process=True)
                raise

    def _score(self, state: TrainState, max_tokens: int, bar: TrainingProgress) -> Evaluation:
        """Scores held-out text and records it. Raises _StopNow where a signal comes first."""

        def after_batch() -> None:
            self.watchdog.alive()
            if self.stop.poll():
                raise _StopNow

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

    def _save(self, state: TrainState, progress: Progress, score: float | None) -> None:
        """Begins a save; the steps after it run while it is written."""
        with self.goodput.phase("save"), self.watchdog.paused():
            self.checkpoints.save(state, progress.to_json(), score=score)
        self.goodput.saved(int(state.step))
        self.goodput.write()


def awaits_each_step(mesh: Mesh) -> bool:
    """Whether a step must be over before the next one is begun: on CPUs of several processes,
    where the collectives of two steps in flight may wait for each other for ever (gloo)."""
    return jax.process_count() > 1 and mesh.devices.flat[0].platform == "cpu"


def check_corpora(config: RunConfig, corpora: Corpora) -> None:
    """Raises InputError with every way in which config and corpora do not belong together."""
    problems = Problems()
    for corpus in corpora.values():
        with problems.gathered():
            require(
                config.model.vocab_size >= corpus.tokenizer.vocab_size,
                "model.vocab_size",
                config.model.vocab_size,
                f"the tokenizer's {corpus.tokenizer.vocab_size} or more",
            )
    with problems.gathered():
        corpus_warnings(config, training_rows(config, corpora))
    problems.raise_any()


def places_trained_on(config: RunConfig, ledger: Ledger) -> int:
    """Places of all batches that training computed, those without a token included.

    The ledger counts places of rows as they were read; an example has more or fewer of them.
    """
    lengths = config.lengths
    own = ledger.places - ledger.rows * lengths.overlap
    return round(own * lengths.places / (lengths.tokens - lengths.overlap))


def _ledger_record(ledger: Ledger, refusals: Refusals) -> dict[str, Any]:
    return ledger.to_json() | {"refused": [refused.to_json() for refused in refusals.refused]}


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
