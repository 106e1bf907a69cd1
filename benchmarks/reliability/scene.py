"""The run that every failure happens to, one that nothing happened to, and how the two compare."""

import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from benchmarks.reliability.processes import Life
from benchmarks.reliability.promises import Promise
from benchmarks.reliability.run_files import last_checkpoint, same_run
from benchmarks.reliability.small_run import Job, make_corpus, make_job, small_config
from configs.schema import MeshConfig, RunConfig
from train.manifest import check_step

NUM_STEPS, SAVE_EVERY, EVAL_EVERY = 160, 20, 40
GRACE_SECONDS = 30.0  # what Kubernetes gives a pod by default
LONGEST_SECONDS = 600.0  # that a run may take from its start to its end


class Scene:
    """Where the failures happen; undisturbed runs are made when first asked for.

    Args:
      folder: for everything.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._warm = self.folder / "programs"

    @cached_property
    def corpus(self) -> Path:
        """What all of them read."""
        return make_corpus(self.folder)

    def config(self, *, processes: int = 1) -> RunConfig:
        """Of the run, on so many processes of one device each."""
        return small_config(
            self.corpus,
            mesh=MeshConfig(data=processes),
            num_steps=NUM_STEPS,
            checkpoint_every=SAVE_EVERY,
            eval_every=EVAL_EVERY,
        )

    def job(self, name: str, *, run: Path | None = None, cache: Path | None = None) -> Job:
        """The run of one process; it finds its programs compiled unless `cache` says otherwise."""
        return make_job(self.folder, name, self.config(), run=run, cache=cache or self._warm)

    def job_of_two(self, name: str, *, options: tuple[str, ...] = ()) -> Job:
        """Either process of the run of two, without `isoflop launch`."""
        config = self.config(processes=2)
        return make_job(self.folder, name, config, options=options, cache=self._warm)

    def launched_job(self, name: str) -> Job:
        """The run of two under `isoflop launch`; the same command again goes on with it."""
        return make_job(
            self.folder,
            name,
            self.config(processes=2),
            processes=2,
            options=("--resume",),
            cache=self._warm,
        )

    @cached_property
    def whole(self) -> Path:
        """The undisturbed run of one process."""
        return run_to_its_end(self.job("whole"))

    @cached_property
    def whole_of_two(self) -> Path:
        """The undisturbed run of two processes."""
        return run_to_its_end(self.launched_job("whole_of_two"))


def run_to_its_end(job: Job) -> Path:
    """Starts a job, waits for its end; its run directory.

    Raises:
      RuntimeError: it failed.
    """
    with Life(job) as life:
        status = life.wait(LONGEST_SECONDS)
        if status != 0:
            raise RuntimeError(f"{job.run.name} exited {status}: {life.last_lines()}")
    return job.run


def exit_promise(
    what: str,
    life: Life,
    allowed: Iterable[int],
    *,
    seconds: float,
    words: str = "",
) -> Promise:
    """That a process ends with one of these statuses within so many seconds from now.

    Args:
      words: what its output has to name, small or capital letters alike.
    """
    start = time.monotonic()
    status = life.wait(seconds)
    took = time.monotonic() - start
    statuses = " or ".join(map(str, allowed))
    expected = f"exit {statuses} within {seconds:.0f} s" + (f', naming "{words}"' if words else "")
    seen = "still running" if status is None else f"exit {status} after {took:.1f} s"
    kept = status in set(allowed) and words.lower() in life.output().lower()
    return Promise(what, expected, seen if kept else f"{seen}: {life.last_lines()}", kept)


def intact_promise(what: str, run: Path, *, at_least: int = 0) -> Promise:
    """That every checkpoint of a run is as it was written, and the newest of this step or later."""
    folder = run / "checkpoints"
    steps = sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())
    problems = [
        f"{step}: {problem}" for step in steps for problem in check_step(folder / str(step))
    ]
    seen = f"steps {', '.join(map(str, steps)) or 'none'}; " + ("; ".join(problems[:2]) or "intact")
    return Promise(
        f"{what}: checkpoints intact",
        f"newest of step {at_least} or later, no damage",
        seen,
        not problems and last_checkpoint(run) >= at_least,
    )


def end_promise(what: str, reference: Path, job: Job) -> Promise:
    """That the same command again goes on to the end that an undisturbed run has."""
    expected = "exit 0, all as in the undisturbed run"
    with Life(job) as life:
        status = life.wait(LONGEST_SECONDS)
        if status != 0:
            seen = f"exit {status}: {life.last_lines()}"
            return Promise(f"{what}: the same command again", expected, seen, False)
    return like_undisturbed(what, reference, job.run)


def like_undisturbed(what: str, reference: Path, run: Path) -> Promise:
    """That a finished run has the steps, numbers, ledger and arrays of the undisturbed one."""
    broken = [promise for promise in same_run(reference, run) if not promise.kept]
    return Promise(
        f"{what}: the same command again",
        "exit 0, all as in the undisturbed run",
        "; ".join(f"{promise.what}: {promise.seen}" for promise in broken) or "so it is",
        not broken,
    )
