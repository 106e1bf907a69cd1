"""Training, top to bottom."""

import resource
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from configs.errors import require
from configs.schema import RunConfig
from data.batches import Batch, Cursor
from data.dataset import Corpora, corpus_warnings, training_rows
from data.ledger import Ledger
from model.build import Params
from train.checkpoint import Checkpoints
from train.compilation_cache import counted_hits
from train.evaluate import Evaluation, describe, evaluate
from train.feed import feed
from train.ledger import total_ledger
from train.mesh import make_mesh
from train.metrics import TensorBoard
from train.preemption import Preempted, StopRequest
from train.profile import PROFILE_FOLDER, ProfiledSteps, Profiler
from train.progress import TrainingProgress
from train.recorder import Clock, Recorder
from train.run_directory import RunDirectory
from train.state import TrainState, abstract_state, init_state
from train.step import StepMetrics, batch_sharding, make_eval_step, make_train_step


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
    """What a checkpoint says besides the arrays: where in the data, and how long so far."""

    cursor: Cursor
    ledger: Ledger
    train_seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "cursor": self.cursor.to_json(),
            "ledger": self.ledger.to_json(),
            "train_seconds": self.train_seconds,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Progress":
        return cls(
            Cursor.from_json(record["cursor"]),
            Ledger.from_json(record["ledger"]),
            record["train_seconds"],
        )


def train(
    config: RunConfig,
    run: RunDirectory,
    corpora: Corpora,
    *,
    peak_flops: float,
    console: Console,
    profile: str = "",
) -> TrainingResult:
    """Trains to the last step of the config, from the newest checkpoint if there is one.

    Args:
      run: an open run directory (its lock held).
      corpora: those that the config names, in its order.
      peak_flops: peak FLOP/s of all devices together, for MFU.
      profile: steps to trace into RUN/profile: "10:13", or "3" from this process' fifth on; ""
        for none.

    Raises:
      InputError: the config does not fit the corpora or the devices, or `profile` the run; before
        any compile.
      Preempted: a signal asked to stop; the state has been saved.
      FloatingPointError: the loss is not finite.
    """
    check_corpora(config, corpora)
    t = config.training
    ProfiledSteps.of(profile, first_step=0, num_steps=t.num_steps)
    mesh = make_mesh(config.mesh)
    source = training_rows(config, corpora)
    warnings = corpus_warnings(config, source)
    sharding = batch_sharding(config, mesh)
    compiled = compile_steps(config, mesh)
    console.print(f"  {compiled.describe()}", highlight=False)

    checkpoints = Checkpoints(
        run.checkpoints, keep=t.keep_checkpoints, keep_every=t.keep_every, on_event=run.event
    )
    restored = checkpoints.restore_latest(abstract_state(config, mesh))
    if restored is None:
        state, progress = (
            init_state(config, mesh),
            Progress(Cursor(), Ledger(facts=source.facts), 0.0),
        )
        for warning in warnings:
            run.event("data_warning", warning)
            console.print(f"  warning: {warning}", highlight=False)
    else:
        state, progress = restored.state, Progress.from_json(restored.progress)
    first_step = int(state.step)
    if first_step:
        run.event("resumed", f"after step {first_step}")
        console.print(f"  resuming after step {first_step}", highlight=False)
    run.cut_back(first_step)
    run.set_status("training")
    board = TensorBoard(run.path / "tensorboard")
    clock = Clock(already=progress.train_seconds)
    recorder = Recorder(config, run, board, clock, peak_flops)
    batches = feed(
        source,
        progress.cursor,
        t,
        first_step=first_step,
        sharding=sharding,
        num_threads=config.data.read_threads,
    )
    profiled = ProfiledSteps.of(profile, first_step=first_step, num_steps=t.num_steps)
    is_awaited = awaits_each_step(mesh)

    def score(step: int, max_tokens: int) -> Evaluation:
        evaluation = evaluate(
            compiled.eval_step,
            state.params,
            config,
            corpora,
            sharding=sharding,
            max_tokens=max_tokens,
        )
        record = {"step": step} | evaluation._asdict()
        run.append("evaluations.jsonl", record)
        board.write(record | evaluation.metrics, "held_out")
        bar.note(f"step {step}: held-out {describe(evaluation)}")
        return evaluation

    def read(unread: _Unread) -> None:
        recorder.read(
            unread.step,
            unread.metrics,
            unread.shape,
            lambda: total_ledger(progress.ledger, unread.ledger),
            bar,
        )

    evaluation, ledger = None, Ledger(facts=source.facts)  # what this process has read
    with (
        StopRequest() as stop,
        TrainingProgress(console, t.num_steps, first_step) as bar,
        Profiler(
            profiled, run.path / PROFILE_FOLDER, pause=recorder.pause, note=bar.note
        ) as profiler,
        closing(batches),
    ):
        unread: _Unread | None = None
        for step, fed in enumerate(batches, start=first_step + 1):
            with profiler.step(step, state):
                state, metrics = compiled.train_step(state, fed.batch)
                if is_awaited:
                    jax.block_until_ready(state)
                ledger = ledger.add(fed.entries)
                if unread:  # step n runs already while step n - 1 is read: that holds up nothing
                    read(unread)
            profiler.finish(step, state)
            shape = len(fed.batch.inputs), fed.batch.seq_len
            unread = _Unread(step, metrics, shape, ledger)
            is_last = step == t.num_steps
            evaluate_now = is_last or _is_due(step, t.eval_every)
            save_now = is_last or _is_due(step, t.checkpoint_every) or stop.requested
            if evaluate_now or save_now:
                read(unread)
                recorder.pause()
                unread = None
            if evaluate_now:
                evaluation = score(step, 0 if is_last else t.eval_tokens)
            if save_now:
                total = total_ledger(progress.ledger, ledger)
                run.write("ledger.json", total.to_json())
                checkpoints.save(state, Progress(fed.cursor, total, clock.seconds()).to_json())
            if stop.requested and not is_last:
                run.event("preempted", f"saved step {step}")
                raise Preempted(f"saved step {step} of {t.num_steps}")
        if evaluation is None:  # started again after the last save: only this was left to do
            evaluation = score(t.num_steps, 0)
    checkpoints.close()
    board.close()
    return TrainingResult(
        params=state.params,
        evaluation=evaluation,
        ledger=total_ledger(progress.ledger, ledger),
        train_seconds=clock.seconds(),
        compile_seconds=compiled.seconds,
        step_seconds=recorder.median_step_seconds(),
        peak_bytes=compiled.peak_bytes,
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


class _Unread(NamedTuple):
    """A step whose metrics are still on the devices."""

    step: int
    metrics: StepMetrics
    shape: tuple[int, int]
    ledger: Ledger


def awaits_each_step(mesh: Mesh) -> bool:
    """Whether a step must be over before the next one is begun: on CPUs of several processes,
    where the collectives of two steps in flight may wait for each other for ever (gloo)."""
    return jax.process_count() > 1 and mesh.devices.flat[0].platform == "cpu"


def check_corpora(config: RunConfig, corpora: Corpora) -> None:
    """Raises InputError where config and corpora do not belong together."""
    for corpus in corpora.values():
        require(
            config.model.vocab_size >= corpus.tokenizer.vocab_size,
            "model.vocab_size",
            config.model.vocab_size,
            f"the tokenizer's {corpus.tokenizer.vocab_size} or more",
        )
    corpus_warnings(config, training_rows(config, corpora))


def places_trained_on(config: RunConfig, ledger: Ledger) -> int:
    """Places of all batches that training computed, those without a token included.

    The ledger counts places of rows as they were read; an example has more or fewer of them.
    """
    lengths = config.lengths
    own = ledger.places - ledger.rows * lengths.overlap
    return round(own * lengths.places / (lengths.tokens - lengths.overlap))


BatchShapes = tuple[tuple[int, ...], ...]


class CompiledSteps(NamedTuple):
    """Train steps by the shape of their batch, the evaluation step; how long compiling took, the
    memory of the largest train step, and how many of them the compilation cache held."""

    train_steps: dict[BatchShapes, Any]
    eval_step: Any
    seconds: float
    peak_bytes: int
    num_cached: int = 0

    def describe(self) -> str:
        """One line: "compiled 2 programs in 3.2 s (1 of them from the cache)"."""
        programs = len(self.train_steps) + 1
        return (
            f"compiled {programs} programs in {self.seconds:.1f} s "
            f"({self.num_cached} of them from the cache)"
        )

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        """The step compiled for a batch of this shape."""
        return self.train_steps[_shapes(batch)](state, batch)


def compile_steps(config: RunConfig, mesh: Mesh) -> CompiledSteps:
    """Compiles the steps for a mesh, for every batch shape of the run, ahead of the first batch."""
    start = time.perf_counter()
    state = abstract_state(config, mesh)
    train_step, train_steps, peak_bytes = make_train_step(config, mesh), {}, 0
    with counted_hits() as hits:
        for shape in batch_shapes(config):
            batch = abstract_batch(config, mesh, shape)
            compiled = train_step.lower(state, batch).compile()
            train_steps[_shapes(batch)] = compiled
            if memory := compiled.memory_analysis():
                bytes_needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
                peak_bytes = max(peak_bytes, bytes_needed)
        batch = abstract_batch(config, mesh)
        eval_step = make_eval_step(config, mesh).lower(state.params, batch).compile()
    seconds = time.perf_counter() - start
    return CompiledSteps(train_steps, eval_step, seconds, peak_bytes, len(hits))


def batch_shapes(config: RunConfig) -> list[tuple[int, int]]:
    """Rows and row length (a `seq_len`) of every batch that the run may meet."""
    return [
        (size, length) for size in config.training.batch_sizes for length in config.data.row_lengths
    ]


def abstract_batch(config: RunConfig, mesh: Mesh, shape: tuple[int, int] | None = None) -> Batch:
    """Shape, dtype and sharding of a batch's arrays.

    Args:
      shape: rows and row length (a `seq_len`); None for those of a full batch.
    """
    rows, seq_len = shape or (config.training.batch_size, config.data.seq_len)
    lengths, sharding = config.objective.lengths(seq_len), batch_sharding(config, mesh)

    def field(name: str) -> jax.ShapeDtypeStruct | None:
        length = lengths.encoder_length if name.startswith("encoder_") else lengths.length
        if length == 0 or (name == "prefix" and not lengths.has_prefix):
            return None
        dtype = np.float32 if name == "loss_weights" else np.int32
        return jax.ShapeDtypeStruct((rows, length), dtype, sharding=sharding)

    fields: dict[str, Any] = {name: field(name) for name in Batch._fields}
    return Batch(**fields)


def _shapes(batch: Batch) -> BatchShapes:
    return tuple(array.shape for array in jax.tree.leaves(batch))


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
