"""Training, top to bottom."""

import resource
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass

import jax
from rich.console import Console

from configs.schema import RunConfig
from data.batches import Cursor
from data.dataset import Corpora, check_corpora, training_rows
from data.ledger import Ledger
from model.build import Params
from train.agreement import runs_one_program_at_a_time
from train.checkpoint import Checkpoints
from train.corruption import StateChecks
from train.evaluate import Evaluation
from train.feed import feed
from train.goodput import Goodput
from train.ledger import total_ledger
from train.mesh import make_mesh
from train.metrics import TensorBoard
from train.preemption import Preempted, StopRequest
from train.profile import PROFILE_FOLDER, ProfiledSteps, Profiler
from train.programs import compile_steps
from train.progress import TrainingProgress
from train.recorder import Clock, Recorder
from train.refusals import Refusals, Rewind
from train.run_directory import RunDirectory
from train.state import TrainState, abstract_state
from train.step import batch_sharding
from train.training import Progress, Start, StopNow, Training, Unread
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


@dataclass(frozen=True, kw_only=True)
class Watch:
    """When a run that makes no progress is given up (train/watchdog.py).

    A step that takes `multiple` times as long as usual, and at least `floor_seconds`, ends the
    process with 42; multiple 0: never.
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
        stack.enter_context(closing(checkpoints))
        watchdog = stack.enter_context(
            Watchdog(
                run.stacks_file(),
                multiple=watch.multiple,
                floor_seconds=watch.floor_seconds,
                on_hang=lambda detail: run.event("hang", detail, from_any_process=True),
            )
        )
        board = stack.enter_context(closing(TensorBoard(run.path / "tensorboard", run.is_writer)))
        with stop.nothing_to_save(leave_early):
            with goodput.phase("compile"):
                compiled = compile_steps(config, mesh)
            console.print(f"  {compiled.describe()}", highlight=False)
            with goodput.phase("restore"):
                restored = checkpoints.restore_latest(abstract_state(config, mesh))
        clock = Clock(already=restored.progress["train_seconds"] if restored else 0.0)
        training = Training(
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
            state, evaluation, ledger = _to_the_end(training, start)
            is_over = True
        except Preempted:
            is_over = True
            raise
        finally:
            with suppress(OSError):  # on a full disk, how the run ended is what to tell
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


def _to_the_end(training: Training, start: Start) -> tuple[TrainState, Evaluation, Ledger]:
    while True:
        try:
            return _follow(training, start)
        except Rewind as spike:
            # Without the frames it came through: they hold the state that is given up.
            rewind = spike.with_traceback(None)
            rewind.__context__ = None
        start = training.go_back(rewind)


def _follow(training: Training, start: Start) -> tuple[TrainState, Evaluation, Ledger]:
    """Takes every step that is left, then scores all held-out text."""
    config, run, t = training.config, training.run, training.config.training
    state, progress = start
    first_step = int(state.step)
    sharding = batch_sharding(config, training.mesh)
    is_awaited = runs_one_program_at_a_time(training.mesh.devices)
    refusals = progress.refusals
    own_ledger = Ledger(facts=training.source.facts)  # what this process has read
    evaluation: Evaluation | None = None
    with (
        TrainingProgress(training.console, t.num_steps, first_step, run.is_writer) as bar,
        Profiler(
            ProfiledSteps.of(training.profile, first_step=first_step, num_steps=t.num_steps),
            run.path / PROFILE_FOLDER,
            pause=training.recorder.pause,
            note=bar.note,
        ) as profiler,
        closing(
            feed(
                training.source,
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

        def read(unread: Unread) -> Refusals:
            with training.goodput.phase("step"):
                return training.read(unread, progress.ledger, refusals, bar)

        def score(max_tokens: int) -> Evaluation:
            return training.score(state, max_tokens, bar)

        def save(cursor: Cursor, *, evaluation_due: bool) -> None:
            training.save(
                state,
                Progress(cursor, total(), training.clock.seconds(), refusals, evaluation_due),
                None if evaluation is None else evaluation.nats_per_token,
            )

        unread: Unread | None = None
        if progress.evaluation_due and first_step < t.num_steps:
            try:
                put_off = score(t.eval_tokens)
            except StopNow:
                raise training.preempted(f"step {first_step} was saved before") from None
            training.checkpoints.rescore(first_step, put_off.nats_per_token)
        for step, fed in enumerate(training.timed(batches), start=first_step + 1):
            with profiler.step(step, state), training.goodput.phase("step"):
                if training.checks.is_due(step):
                    state, metrics = training.checked_step(step, state, fed)
                else:
                    state, metrics = training.compiled.train_step(state, fed.batch)
                if is_awaited:
                    jax.block_until_ready(state)
            own_ledger = own_ledger.add(fed.entries)
            if unread:  # step n runs already while step n - 1 is read: that holds up nothing
                refusals = read(unread)
            profiler.finish(step, state)
            unread = Unread(step, metrics, fed, own_ledger)
            is_last = step == t.num_steps
            is_stopped = training.stop.poll()
            evaluate_now = is_last or _is_due(step, t.eval_every)
            save_now = is_last or _is_due(step, t.checkpoint_every) or is_stopped
            save_now |= training.checkpoints.has_failed()
            if evaluate_now or save_now:
                refusals = read(unread)
                training.recorder.pause()
                unread = None
            evaluation = None
            if evaluate_now and not is_stopped:
                try:
                    evaluation = score(0 if is_last else t.eval_tokens)
                except StopNow:
                    is_stopped = save_now = True
            if save_now:
                save(fed.cursor, evaluation_due=evaluate_now and evaluation is None)
            if is_stopped and not (is_last and evaluation):
                raise training.preempted(f"saved step {step} of {t.num_steps}")
        if evaluation is None:  # started again after the last save: only this was left to do
            run.cut_back(t.num_steps - 1, names=("evaluations.jsonl",))
            try:
                evaluation = score(0)
            except StopNow:
                raise training.preempted(f"all {t.num_steps} steps were saved before") from None
            training.checkpoints.rescore(t.num_steps, evaluation.nats_per_token)
        training.await_save()
        return state, evaluation, total()


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
