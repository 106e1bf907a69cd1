"""Several processes of which one dies, never comes, or stands still; nobody starts them again but
the same commands."""

import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.reliability.processes import (
    Life,
    kill,
    launched_processes,
    marked_processes,
    wait_until,
)
from benchmarks.reliability.promises import Promise
from benchmarks.reliability.run_files import Watch, last_checkpoint, records
from benchmarks.reliability.scene import (
    LONGEST_SECONDS,
    Scene,
    exit_promise,
    intact_promise,
    like_undisturbed,
)
from benchmarks.reliability.small_run import MARK, Job

START_TIMEOUT, HEARTBEAT_TIMEOUT = 20, 20
HANG_SECONDS = 6
_MARGIN_SECONDS = 60.0  # starting Python, noticing, leaving, on a machine that has other work

_RETRY, _ABORTED = 42, 134  # the second: JAX's own runtime ends the process

_HEARTBEAT = f"--heartbeat-timeout={HEARTBEAT_TIMEOUT}"


def coordinator_killed(scene: Scene) -> list[Promise]:
    """Process 0, which the others find each other by, is killed: process 1 leaves."""
    return _one_killed(scene, victim=0, what="coordinator killed")


def worker_killed(scene: Scene) -> list[Promise]:
    """Process 1 is killed: process 0 leaves."""
    return _one_killed(scene, victim=1, what="worker killed")


def peer_never_arrives(scene: Scene) -> list[Promise]:
    """Of two processes only process 0 is started: it gives up after the limit for starting up."""
    what = "a peer that never arrives"
    job = scene.job_of_two("absent_peer", options=(f"--start-timeout={START_TIMEOUT}",))
    with Life(job, environment=place(0, free_port())) as life:
        limit = START_TIMEOUT + _MARGIN_SECONDS
        ended = exit_promise(what, life, (_RETRY,), seconds=limit)
        is_one_line = "Traceback" not in life.output()
    ended = ended._replace(
        expected=f"{ended.expected}, no traceback",
        seen=f"{ended.seen}: {life.last_lines(1)}",
        kept=ended.kept and is_one_line,
    )
    is_new = not job.run.exists()
    return [ended, Promise(f"{what}: the run", "not begun", "not begun" if is_new else "begun",
                           is_new)]  # fmt: skip


def hang(scene: Scene) -> list[Promise]:
    """Process 1 stands still (SIGSTOP): process 0's watchdog shows where it waits, and leaves."""
    what = "a peer that stands still"
    watchdog = ("--hang-multiple=5", f"--hang-seconds={HANG_SECONDS}")
    job = scene.job_of_two("hang", options=(_HEARTBEAT, *watchdog))
    with ExitStack() as stack:
        lives = [stack.enter_context(life) for life in pair(job)]
        _wait_for_save(job, lives[0])
        newest = last_checkpoint(job.run)
        lives[1].signal(signal.SIGSTOP)
        limit = HANG_SECONDS + _MARGIN_SECONDS
        ended = exit_promise(what, lives[0], (_RETRY,), seconds=limit)
        stacks = [path for path in job.run.glob("stacks*") if "train/loop.py" in path.read_text()]
        hangs = [e for e in records(job.run / "events.jsonl") if e["event"] == "hang"]
        lives[1].kill_group()
    shown = Promise(
        f"{what}: what is left",
        "a file of stacks that names the loop, an event `hang`",
        f"{len(stacks)} such files, {len(hangs)} events",
        bool(stacks) and bool(hangs),
    )
    intact = intact_promise(what, job.run, at_least=newest)
    return [ended, shown, intact, *_again(scene, job, what)]


def supervisor_killed(scene: Scene) -> list[Promise]:
    """`isoflop launch` itself is killed with SIGKILL: its processes do not outlive it."""
    what = "supervisor killed"
    job = scene.launched_job("supervisor")
    mark = job.environment[MARK]
    with Life(job) as life:
        _wait_for_save(job, life)
        newest = last_checkpoint(job.run)
        kill(life.process.pid, signal.SIGKILL)
        life.process.wait()
        start = time.monotonic()
        while (left := marked_processes(mark)) and time.monotonic() - start < _MARGIN_SECONDS:
            time.sleep(0.1)
        gone = Promise(
            what,
            f"no process of its left after {_MARGIN_SECONDS:.0f} s",
            f"{len(left)} left after {time.monotonic() - start:.1f} s",
            not left,
        )
    intact = intact_promise(what, job.run, at_least=newest)
    with Life(job) as life:
        again = exit_promise(f"{what}: launched again", life, (0,), seconds=LONGEST_SECONDS)
    return [gone, intact, again, like_undisturbed(what, scene.whole_of_two, job.run)]


def launch_terminated(scene: Scene) -> list[Promise]:
    """SIGTERM to `isoflop launch`: both processes save, and it leaves with 143."""
    what = "SIGTERM to the supervisor"
    job = scene.launched_job("terminated")
    with Life(job) as life:
        _wait_for_save(job, life)
        step = Watch(job.run).steps()
        number = len(launched_processes(job.environment[MARK]))
        life.signal(signal.SIGTERM)
        ended = exit_promise(what, life, (143,), seconds=60)
    intact = intact_promise(what, job.run, at_least=step)
    with Life(job) as life:
        again = exit_promise(f"{what}: launched again", life, (0,), seconds=LONGEST_SECONDS)
    ended = ended._replace(seen=f"{ended.seen} ({number} processes)")
    return [ended, intact, again, like_undisturbed(what, scene.whole_of_two, job.run)]


def pair(job: Job) -> list[Life]:
    """Both processes of a job, joined without `isoflop launch`."""
    port = free_port()
    return [Life(job, environment=place(number, port)) for number in range(2)]


def place(number: int, port: int) -> dict[str, str]:
    """What `isoflop launch` would tell process `number` of two."""
    return {
        "ISOFLOP_COORDINATOR": f"127.0.0.1:{port}",
        "ISOFLOP_PROCESSES": "2",
        "ISOFLOP_PROCESS": str(number),
    }


def whole_pair(scene: Scene) -> Path:
    """The undisturbed run of two processes joined like these, made when first asked for.

    That under `isoflop launch` will not do: there each process has its own cores, and so other
    threads, whose sums are of another order.
    """
    job = scene.job_of_two("whole_pair")
    if not (job.run / "summary.json").is_file():
        with ExitStack() as stack:
            lives = [stack.enter_context(life) for life in pair(job)]
            statuses = [life.wait(LONGEST_SECONDS) for life in lives]
            if statuses != [0, 0]:
                raise RuntimeError(f"the undisturbed pair exited {statuses}")
    return job.run


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _one_killed(scene: Scene, *, victim: int, what: str) -> list[Promise]:
    job = scene.job_of_two(what.replace(" ", "_"), options=(_HEARTBEAT,))
    with ExitStack() as stack:
        lives = [stack.enter_context(life) for life in pair(job)]
        _wait_for_save(job, lives[0])
        newest = last_checkpoint(job.run)
        lives[victim].kill_group()
        ended = exit_promise(
            f"{what}: the other one",
            lives[1 - victim],
            (_RETRY, _ABORTED),
            seconds=HEARTBEAT_TIMEOUT + _MARGIN_SECONDS,
        )
    intact = intact_promise(what, job.run, at_least=newest)
    return [ended, intact, *_again(scene, job, what)]


def _again(scene: Scene, job: Job, what: str) -> list[Promise]:
    """Both processes anew, to the end."""
    with ExitStack() as stack:
        lives = [stack.enter_context(life) for life in pair(job)]
        ended = [
            exit_promise(f"{what}: process {n} again", life, (0,), seconds=LONGEST_SECONDS)
            for n, life in enumerate(lives)
        ]
    return [*ended, like_undisturbed(what, whole_pair(scene), job.run)]


def _wait_for_save(job: Job, life: Life) -> None:
    """Until a step has been saved and a few more are done."""
    watch = Watch(job.run)
    wait_until(
        lambda: watch.saves() > 0 and watch.steps() > last_checkpoint(job.run) + 3,
        life,
        LONGEST_SECONDS,
    )
