"""Training, top to bottom."""

import resource
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from configs.errors import require
from configs.schema import RunConfig
from data.batches import Batch, Cursor, RowSource
from data.corpus import Corpus
from data.ledger import Ledger
from model.build import Params
from train.checkpoint import Checkpoints
from train.evaluate import Evaluation, evaluate
from train.feed import feed
from train.mesh import make_mesh
from train.metrics import TensorBoard
from train.preemption import Preempted, StopRequest
from train.progress import TrainingProgress
from train.recorder import Clock, Recorder
from train.run_directory import RunDirectory
from train.state import abstract_state, init_state
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
    corpus: Corpus,
    *,
    peak_flops: float,
    console: Console,
) -> TrainingResult:
    """Trains to the last step of the config, from the newest checkpoint if there is one.

    Args:
      run: an open run directory (its lock held).
      peak_flops: peak FLOP/s of all devices together, for MFU.

    Raises:
      InputError: the config does not fit the corpus or the devices; before any compile.
      Preempted: a signal asked to stop; the state has been saved.
      FloatingPointError: the loss is not finite.
    """
    check_corpus(config, corpus)
    t = config.training
    mesh = make_mesh(config.mesh)
    source = RowSource(
        corpus.stream("train"),
        seq_len=config.data.seq_len,
        seed=config.data.seed,
        objective=config.objective,
    )
    sharding = batch_sharding(config, mesh)
    compiled = compile_steps(config, mesh)

    checkpoints = Checkpoints(
        run.checkpoints, keep=t.keep_checkpoints, keep_every=t.keep_every, on_event=run.event
    )
    restored = checkpoints.restore_latest(abstract_state(config, mesh))
    if restored is None:
        state, progress = init_state(config, mesh), _progress_at_start(source)
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
        batch_size=t.batch_size,
        num_batches=t.num_steps - first_step,
        sharding=sharding,
    )

    def score(step: int, max_tokens: int) -> Evaluation:
        evaluation = evaluate(
            compiled.eval_step,
            state.params,
            corpus,
            seq_len=config.data.seq_len,
            batch_size=t.batch_size,
            sharding=sharding,
            max_tokens=max_tokens,
        )
        record = {"step": step} | evaluation._asdict()
        run.append("evaluations.jsonl", record)
        board.write(record, "held_out")
        bar.note(
            f"step {step}: held-out {evaluation.nats_per_token:.4f} nats per token, "
            f"{evaluation.bits_per_byte:.4f} bits per byte"
        )
        return evaluation

    evaluation, ledger = None, progress.ledger
    with StopRequest() as stop, TrainingProgress(console, t.num_steps, first_step) as bar:
        unread: tuple[int, StepMetrics, int] | None = None
        for step, fed in enumerate(batches, start=first_step + 1):
            state, metrics = compiled.train_step(state, fed.batch)
            ledger = ledger.add(fed.host)
            if unread:  # step n runs already while step n - 1 is read: reading holds up nothing
                recorder.read(*unread, bar)
            unread = step, metrics, ledger.tokens_trained_on
            is_last = step == t.num_steps
            evaluate_now = is_last or _is_due(step, t.eval_every)
            save_now = is_last or _is_due(step, t.checkpoint_every) or stop.requested
            if evaluate_now or save_now:
                recorder.read(*unread, bar)
                recorder.pause()
                unread = None
            if evaluate_now:
                evaluation = score(step, 0 if is_last else t.eval_tokens)
            if save_now:
                run.write("ledger.json", ledger.to_json())
                checkpoints.save(state, Progress(fed.cursor, ledger, clock.seconds()).to_json())
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
        ledger=ledger,
        train_seconds=clock.seconds(),
        compile_seconds=compiled.seconds,
        step_seconds=recorder.median_step_seconds(),
        peak_bytes=compiled.peak_bytes,
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def check_corpus(config: RunConfig, corpus: Corpus) -> None:
    """Raises InputError where config and corpus do not belong together."""
    require(
        config.model.vocab_size == corpus.tokenizer.vocab_size,
        "model.vocab_size",
        config.model.vocab_size,
        f"the tokenizer's {corpus.tokenizer.vocab_size}",
    )


class CompiledSteps(NamedTuple):
    """Train and evaluation step, compiled; how long that took, and the train step's memory."""

    train_step: Any
    eval_step: Any
    seconds: float
    peak_bytes: int


def compile_steps(config: RunConfig, mesh: Mesh) -> CompiledSteps:
    """Compiles both steps for a mesh ahead of the first batch."""
    start = time.perf_counter()
    state, batch = abstract_state(config, mesh), abstract_batch(config, mesh)
    train_step = make_train_step(config, mesh).lower(state, batch).compile()
    eval_step = make_eval_step(config, mesh).lower(state.params, batch).compile()
    memory = train_step.memory_analysis()
    peak_bytes = memory.argument_size_in_bytes + memory.temp_size_in_bytes if memory else 0
    return CompiledSteps(train_step, eval_step, time.perf_counter() - start, peak_bytes)


def abstract_batch(config: RunConfig, mesh: Mesh) -> Batch:
    """Shape, dtype and sharding of a batch's arrays."""
    shape, sharding = (
        (config.training.batch_size, config.data.seq_len),
        batch_sharding(config, mesh),
    )
    dtypes = {name: np.int32 for name in Batch._fields} | {"loss_weights": np.float32}
    fields: dict[str, Any] = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, dtype in dtypes.items()
    }
    return Batch(**fields)


def _progress_at_start(source: RowSource) -> Progress:
    ledger = Ledger(
        rows_per_epoch=source.rows_per_epoch, dropped_per_epoch=source.dropped_per_epoch
    )
    return Progress(Cursor(), ledger, 0.0)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
