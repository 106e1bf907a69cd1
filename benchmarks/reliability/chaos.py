"""A run killed again and again with SIGKILL ends like one that nobody touched.

    .venv/bin/python -m benchmarks.reliability.chaos --out chaos.json     # 50 kills, then 10, 10
    .venv/bin/python -m benchmarks.reliability.chaos --kills 4 --least-in-saves 1 --launch-kills 2

First the whole process group of one process is killed, and the same command given again, nothing
cleaned up; then either of two processes under `isoflop launch`, which starts both again by itself;
then `isoflop prepare` with its workers, which the same command has to end with the corpus of one
that nobody touched. Moments are random, by a seed: each kill of a run picks what it wants to hit
(start-up, steps, evaluation, a save) and strikes after a random share of the time that this took in
the undisturbed run. What it really hit is read from the run's files afterwards, and that counts.
"""

import argparse
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.reliability.chaos_preparation import preparations
from benchmarks.reliability.processes import (
    MOST_SECONDS,
    POLL_SECONDS,
    Life,
    clean_up_when_told_to_stop,
    ends_well,
    kill,
    launched_processes,
    wait_until,
)
from benchmarks.reliability.promises import Promise, conclude
from benchmarks.reliability.run_files import (
    PHASES,
    Phase,
    Watch,
    last_checkpoint,
    records,
    same_run,
)
from benchmarks.reliability.small_run import (
    MARK,
    Job,
    make_corpus,
    make_job,
    small_config,
)
from configs.schema import MeshConfig, RunConfig

SAVE_EVERY, EVAL_EVERY = 20, 40
STEPS_PER_KILL = 60  # more than a life lasts on average: the run must not end before the kills do
COLD_TO_WARM = 0.6  # of the undisturbed run's start-up, which compiles, a later start takes this


class Aim(NamedTuple):
    """What a kill wants to hit: a phase, after so many saves of this life, a share of its time."""

    phase: Phase
    saves: int
    share: float


class Death(NamedTuple):
    """A kill. phase: what it hit. part: of a start-up, how far it had come. checkpoint: the newest
    one then. process: which of several, or "all". seconds: since the start."""

    aimed: Phase
    phase: Phase
    part: str
    step: int
    checkpoint: int
    process: str
    seconds: float


Times = dict[Phase, float]


def next_aim(rng: np.random.Generator, *, least_saves: int, kills_left: int, saves_hit: int) -> Aim:
    """A random aim; a save where all the kills that are left are needed for the least of them."""
    phase = PHASES[rng.choice(len(PHASES), p=(0.2, 0.25, 0.2, 0.35))]
    if kills_left <= least_saves - saves_hit:
        phase = "save"
    return Aim(phase, int(rng.choice((0, 1, 1, 2))), float(rng.random()))


def timed_reference(job: Job) -> Times:
    """Trains the undisturbed run; the median seconds of a stay in each phase.

    Raises:
      RuntimeError: it failed.
    """
    watch, phase = Watch(job.run), PHASES[0]
    stays: dict[Phase, list[float]] = {phase: [] for phase in PHASES}
    with Life(job) as life:
        entered = time.monotonic()
        while not life.is_over():
            now = watch.phase()
            if now != phase:
                stays[phase].append(time.monotonic() - entered)
                phase, entered = now, time.monotonic()
            time.sleep(POLL_SECONDS)
        status = life.wait(1)
        if status != 0:
            raise RuntimeError(f"the undisturbed run exited {status}: {life.last_lines()}")
    times: Times = {phase: statistics.median(seconds or [0]) for phase, seconds in stays.items()}
    times["start-up"] *= COLD_TO_WARM
    return times


def wait_for_aim(aim: Aim, watch: Watch, life: Life, times: Times) -> bool:
    """Waits until the moment has come; False if the run ended before."""

    def is_there() -> bool:
        if aim.phase == "start-up":
            return True
        return watch.saves() >= aim.saves and watch.phase() == aim.phase

    def is_left() -> bool:
        return aim.phase == "start-up" and watch.phase() != "start-up"

    if not wait_until(is_there, life, MOST_SECONDS):
        return False
    # A start that finds its programs takes less than the undisturbed run's: struck as it ends.
    wait_until(is_left, life, aim.share * times[aim.phase])
    return not life.is_over()


def part_of_start_up(output: str) -> str:
    """How far a start had come, by what it had printed."""
    for sign, part in (("  compiled ", "restore"), ("compilation cache:", "compile")):
        if sign in output:
            return part
    return "imports"


def death_of(aim: Aim, watch: Watch, job: Job, life: Life, process: str, since: int) -> Death:
    phase = watch.phase()
    return Death(
        aimed=aim.phase,
        phase=phase,
        part=part_of_start_up(life.output()[since:]) if phase == "start-up" else "",
        step=watch.steps(),
        checkpoint=last_checkpoint(job.run),
        process=process,
        seconds=round(time.time() - life.started, 3),
    )


def killed_run(
    job: Job, times: Times, *, kills: int, least_saves: int, rng: np.random.Generator
) -> tuple[list[Death], Promise]:
    """Kills one process' run so many times, then lets it end."""
    deaths: list[Death] = []
    while True:
        watch = Watch(job.run)
        with Life(job) as life:
            if len(deaths) < kills:
                aim = next_aim(
                    rng,
                    least_saves=least_saves,
                    kills_left=kills - len(deaths),
                    saves_hit=sum(death.phase == "save" for death in deaths),
                )
                if wait_for_aim(aim, watch, life, times):
                    life.kill_group()
                    deaths.append(death_of(aim, watch, job, life, "all", 0))
                    print(_line(len(deaths), deaths[-1]), flush=True)
                    continue
            status = life.wait(MOST_SECONDS)
            return deaths, ends_well(status, life)


def killed_launch(
    job: Job, times: Times, *, kills: int, processes: int, rng: np.random.Generator
) -> tuple[list[Death], Promise]:
    """Kills either of the processes so many times; `isoflop launch` brings both back."""
    deaths: list[Death] = []
    mark = job.environment[MARK]
    with Life(job) as life:
        last: set[int] = set()
        while len(deaths) < kills:

            def are_all_new(last: set[int] = last) -> bool:
                found = launched_processes(mark)
                return len(found) == processes and not last & set(found.values())

            if not wait_until(are_all_new, life, MOST_SECONDS, poll=0.05):
                break
            last, watch, since = set(launched_processes(mark).values()), Watch(job.run), 0
            since = len(life.output())
            aim = next_aim(rng, least_saves=0, kills_left=kills - len(deaths), saves_hit=0)
            if not wait_for_aim(aim, watch, life, times):
                break
            number = int(rng.integers(processes))
            pid = launched_processes(mark).get(number)
            if pid is None or pid not in last:  # it has ended by itself: the end will tell
                continue
            kill(pid, signal.SIGKILL)
            deaths.append(death_of(aim, watch, job, life, str(number), since))
            print(_line(len(deaths), deaths[-1]), flush=True)
        status = life.wait(MOST_SECONDS)
        return deaths, ends_well(status, life)


def _line(number: int, death: Death) -> str:
    where = f"{death.phase} ({death.part})" if death.part else f"{death.phase}, step {death.step}"
    return (
        f"kill {number}: process {death.process} in {where}, newest checkpoint "
        f"{death.checkpoint}, {death.seconds:.1f} s after the start"
    )


def promised(
    reference: Job, job: Job, ended: Promise, deaths: Sequence[Death], *, kills: int, in_saves: int
) -> list[Promise]:
    """What has to hold of a run after its kills."""
    hit = Counter(death.phase for death in deaths)
    counted = ", ".join(f"{hit[phase]} in {phase}" for phase in PHASES)
    promises = [
        Promise("kills delivered", str(kills), f"{len(deaths)}: {counted}", len(deaths) == kills),
        Promise(
            "kills in a save", f"{in_saves} or more", str(hit["save"]), hit["save"] >= in_saves
        ),
        ended,
    ]
    return [*promises, *(same_run(reference.run, job.run) if ended.kept else [])]


def one_process(folder: Path, options: argparse.Namespace) -> tuple[list[Promise], dict[str, Any]]:
    """Kills of the one process of a run."""
    config = chaos_config(folder, options.kills)
    reference, job = make_job(folder, "whole", config), make_job(folder, "killed", config)
    times = timed_reference(reference)
    print(f"the undisturbed run is done; seconds of a stay in each phase: {_rounded(times)}")
    rng = np.random.default_rng(options.seed)
    deaths, ended = killed_run(
        job, times, kills=options.kills, least_saves=options.least_in_saves, rng=rng
    )
    promises = promised(
        reference, job, ended, deaths, kills=options.kills, in_saves=options.least_in_saves
    )
    return promises, _record(config, times, deaths)


def two_processes(
    folder: Path, options: argparse.Namespace
) -> tuple[list[Promise], dict[str, Any]]:
    """Kills of either process under `isoflop launch`."""
    kills = options.launch_kills
    config = chaos_config(folder, kills, mesh=MeshConfig(data=2))
    launch = ("--restarts", str(2 * kills), "--backoff", "0.1")
    reference, job = (
        make_job(folder, name, config, processes=2, launch_options=launch)
        for name in ("whole_of_two", "killed_of_two")
    )
    times = timed_reference(reference)
    print(f"the undisturbed run of two is done; {_rounded(times)}", flush=True)
    rng = np.random.default_rng(options.seed)
    deaths, ended = killed_launch(job, times, kills=kills, processes=2, rng=rng)
    promises = promised(reference, job, ended, deaths, kills=kills, in_saves=0)
    restarts = [e for e in records(job.run / "events.jsonl") if e["event"] == "restarted"]
    promises.append(
        Promise(
            "every restart has its reason in events.jsonl",
            f"{kills} `restarted`",
            f"{len(restarts)}, last: {restarts[-1]['detail'] if restarts else 'none'}",
            len(restarts) >= kills,
        )
    )
    return promises, _record(config, times, deaths)


def chaos_config(folder: Path, kills: int, mesh: MeshConfig | None = None) -> RunConfig:
    """Long enough for so many kills, saved and evaluated often enough to be hit in it."""
    return small_config(
        make_corpus(folder),
        mesh=mesh,
        num_steps=STEPS_PER_KILL * kills + 100,
        checkpoint_every=SAVE_EVERY,
        eval_every=EVAL_EVERY,
    )


def _rounded(times: Times) -> Times:
    return {phase: round(seconds, 3) for phase, seconds in times.items()}


def _record(config: RunConfig, times: Times, deaths: Sequence[Death]) -> dict[str, Any]:
    return {
        "num_steps": config.training.num_steps,
        "seconds_of_a_stay": _rounded(times),
        "kills": [death._asdict() for death in deaths],
    }


def main() -> int:
    """Breaks runs and preparations and says what held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="of the one process; 0: leave out")
    parser.add_argument("--least-in-saves", type=int, default=10, help="of these kills")
    parser.add_argument("--launch-kills", type=int, default=10, help="of two; 0: leave out")
    parser.add_argument("--prepare-kills", type=int, default=10, help="of preparing; 0: leave out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the runs, kept; a temporary one if absent")
    parser.add_argument("--out", type=Path, help="JSON record")
    options = parser.parse_args()
    clean_up_when_told_to_stop()
    promises, record = [], {"seed": options.seed}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        for name, kills, part in (
            ("one_process", options.kills, one_process),
            ("two_processes", options.launch_kills, two_processes),
            ("preparation", options.prepare_kills, preparations),
        ):
            if kills:
                (folder / name).mkdir(parents=True, exist_ok=True)
                found, record[name] = part(folder / name, options)
                promises += [promise._replace(what=f"{name}: {promise.what}") for promise in found]
    return conclude(promises, record, options.out)


if __name__ == "__main__":
    sys.exit(main())
