"""How much of a run's wall-clock goes into steps that count: by its own record, and from outside.

    .venv/bin/python -m benchmarks.reliability.goodput --least 0.95 --out goodput.json
    .venv/bin/python -m benchmarks.reliability.goodput --kill-minutes 5 --save-seconds 20 \
        --least 0.85

A short run first says how long a step takes; steps, and the intervals of saves and evaluations,
follow from it. Evaluation is in neither side of the share, compiling and starting are in the whole.

From outside, nothing of the run's own clocks is used: a step is worth what a poller saw it take in
metrics.jsonl, as the median of stretches in which nothing else went on; the run is worth its steps,
and that over the wall-clock, without the time in which an evaluation was under way.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.reliability.processes import Life, clean_up_when_told_to_stop
from benchmarks.reliability.promises import Promise, conclude
from benchmarks.reliability.run_files import Watch, records, step_of
from benchmarks.reliability.small_run import Job, make_corpus, make_job, small_config
from configs.schema import RunConfig

CALIBRATION_STEPS = 150
EVALUATIONS = 4
AGREEMENT = 0.03  # between the two counts
_POLL_SECONDS = 0.02
_STRETCH = 16  # steps timed together: polling is coarse
_NEW_START_SECONDS = 1.0  # from a kill to the same command again


class Seen(NamedTuple):
    """What a poller saw. seconds: wall-clock from the first start to the end. evaluation: of it.
    steps: in the end. step_seconds: median of one. kills: delivered."""

    seconds: float
    evaluation: float
    steps: int
    step_seconds: float
    kills: int

    @property
    def goodput(self) -> float:
        return self.steps * self.step_seconds / (self.seconds - self.evaluation)


class Poller:
    """Times steps and evaluations of a run by its files alone."""

    def __init__(self, job: Job):
        self._run = job.run
        self.step_seconds: list[float] = []
        self.evaluation = 0.0
        self.restart()

    def restart(self) -> None:
        """A process was started."""
        self._watch, self._first = Watch(self._run), (0, 0.0)
        self._now = time.monotonic()

    def poll(self) -> None:
        """To be called all the time."""
        before, self._now = self._now, time.monotonic()
        step, phase = self._watch.steps(), self._watch.phase()
        if phase == "evaluation":
            self.evaluation += self._now - before
        first_step, first_seen = self._first
        if phase != "steps" or not first_step:  # a stretch begins when nothing else goes on
            self._first = step, self._now
        elif step - first_step >= _STRETCH:
            self.step_seconds.append((self._now - first_seen) / (step - first_step))
            self._first = step, self._now


def calibrated_step_seconds(folder: Path, corpus: Path, batch_size: int) -> float:
    """Median seconds of a step in a short run."""
    config = small_config(corpus, num_steps=CALIBRATION_STEPS, batch_size=batch_size)
    seen = watched(make_job(folder, "calibration", config), kill_seconds=0)
    return seen.step_seconds


def goodput_config(
    corpus: Path, step_seconds: float, *, minutes: float, save_seconds: float, batch_size: int
) -> RunConfig:
    """A run of about so many minutes, with saves about so far apart and a few evaluations."""
    num_steps = max(EVALUATIONS, round(minutes * 60 / step_seconds))
    return small_config(
        corpus,
        num_steps=num_steps,
        batch_size=batch_size,
        checkpoint_every=max(1, round(save_seconds / step_seconds)),
        eval_every=num_steps // EVALUATIONS,
    )


def watched(job: Job, *, kill_seconds: float) -> Seen:
    """Runs a job to its end, killed and started again every so many seconds (0: never).

    Raises:
      RuntimeError: it failed.
    """
    start, kills, poller = time.monotonic(), 0, Poller(job)
    while True:
        next_kill = time.monotonic() + kill_seconds if kill_seconds else float("inf")
        poller.restart()
        with Life(job) as life:
            while not life.is_over() and time.monotonic() < next_kill:
                poller.poll()
                time.sleep(_POLL_SECONDS)
            if not life.is_over():
                life.kill_group()
                kills += 1
                time.sleep(_NEW_START_SECONDS)
                continue
            end = time.monotonic()
            if (status := life.wait(1)) != 0:
                raise RuntimeError(f"{job.run.name} exited {status}: {life.last_lines()}")
        steps = len(records(job.run / "metrics.jsonl"))
        median = statistics.median(poller.step_seconds)
        return Seen(end - start, poller.evaluation, steps, median, kills)


def measure(folder: Path, options: argparse.Namespace) -> tuple[list[Promise], dict[str, Any]]:
    """The run, its own record beside what was seen from outside."""
    corpus = make_corpus(folder)
    step_seconds = calibrated_step_seconds(folder, corpus, options.batch_size)
    config = goodput_config(
        corpus,
        step_seconds,
        minutes=options.minutes,
        save_seconds=options.save_seconds,
        batch_size=options.batch_size,
    )
    t = config.training
    print(
        f"a step takes {step_seconds:.3f} s: {t.num_steps} steps, saved every "
        f"{t.checkpoint_every}, evaluated every {t.eval_every}",
        flush=True,
    )
    job = make_job(folder, "run", config)
    seen = watched(job, kill_seconds=60 * options.kill_minutes)
    own = json.loads((job.run / "goodput.json").read_text(encoding="utf-8"))
    saves = {step_of(e) for e in records(job.run / "events.jsonl") if e["event"] == "saved"}
    phases = {name: round(seconds, 1) for name, seconds in own["seconds"].items() if seconds}
    counted = sum(own["seconds"].values())
    promises = [
        Promise(
            "goodput by the run's own record",
            f"{options.least:.0%} or more",
            f"{own['goodput']:.1%}: {phases}",
            own["goodput"] >= options.least,
        ),
        Promise(
            "goodput from outside",
            f"within {AGREEMENT:.0%} of it",
            f"{seen.goodput:.1%}: {seen.steps} steps of {seen.step_seconds:.4f} s in "
            f"{seen.seconds:.0f} s, {seen.evaluation:.0f} s of evaluation apart",
            abs(seen.goodput - own["goodput"]) <= AGREEMENT,
        ),
        Promise(
            "the record leaves out no time",
            f"{seen.seconds:.0f} s, to 2%",
            f"{counted:.0f} s",
            abs(counted - seen.seconds) <= 0.02 * seen.seconds,
        ),
        Promise(
            "saved as often as asked", "2 or more", f"{len(saves)} saves", len(saves) > 1
        ),
    ]  # fmt: skip
    if options.kill_minutes:
        promises.append(Promise("killed", "1 or more", str(seen.kills), seen.kills > 0))
    settings = {
        name: getattr(options, name) for name in ("minutes", "save_seconds", "kill_minutes")
    }
    return promises, settings | {"own": own, "seen": seen._asdict(), "num_steps": t.num_steps}


def main() -> int:
    """Measures one run and prints both counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--save-seconds", type=float, default=120)
    parser.add_argument("--kill-minutes", type=float, default=0, help="between kills; 0: none")
    parser.add_argument("--least", type=float, default=0.95, help="goodput that is promised")
    parser.add_argument("--batch-size", type=int, default=64, help="rows of 64 tokens a step")
    parser.add_argument("--folder", type=Path, help="for the run, kept; a temporary one if absent")
    parser.add_argument("--out", type=Path, help="JSON record")
    options = parser.parse_args()
    clean_up_when_told_to_stop()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        promises, record = measure(folder, options)
    return conclude(promises, record, options.out)


if __name__ == "__main__":
    sys.exit(main())
