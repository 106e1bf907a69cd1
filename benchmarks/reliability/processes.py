"""Starting a job, ending it in every way there is, and finding its processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.reliability.promises import Promise
from benchmarks.reliability.small_run import MARK, Job

POLL_SECONDS = 0.003
MOST_SECONDS = 3600.0  # that anything is waited for


def clean_up_when_told_to_stop() -> None:
    """Has SIGTERM end this script as Ctrl-C does: by an exception, so that every Life is ended.

    What it starts obeys SIGINT, though a shell's background job, which this may be, ignores it.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Life:
    """One start of a job, in a process group of its own; a context manager that leaves nothing.

    Attributes:
      log: what it wrote to standard output and error.
      started: wall-clock seconds since 1970.
    """

    def __init__(
        self,
        job: Job,
        *,
        command: tuple[str, ...] | None = None,
        environment: dict[str, str] | None = None,
    ):
        job.log.mkdir(parents=True, exist_ok=True)
        self.log = job.log / f"{len(list(job.log.iterdir())):03}.txt"
        self._mark = job.environment[MARK]
        self.started = time.time()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command or job.command,
                env=dict(job.environment) | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Life":
        return self

    def __exit__(self, *_: object) -> None:
        """Kills what is left of the job, so that a script that fails leaves nothing running."""
        for pid in marked_processes(self._mark):
            kill(pid, signal.SIGKILL)
        self.process.wait()

    def is_over(self) -> bool:
        return self.process.poll() is not None

    def kill_group(self) -> None:
        """SIGKILL to the process and all it started in its group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """To the first process alone, as a scheduler sends it."""
        kill(self.process.pid, number)

    def wait(self, seconds: float) -> int | None:
        """Exit status as a shell counts it (128 + number for a signal); None: still running."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return shell_status(status)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def last_lines(self, count: int = 3) -> str:
        return " / ".join(self.output().strip().splitlines()[-count:])


def ends_well(status: int | None, life: Life) -> Promise:
    """Whether a job ended by itself and with 0; status: what `Life.wait` gave."""
    seen = "still running after an hour" if status is None else f"exit {status}"
    return Promise(
        "the run ends by itself",
        "exit 0",
        seen if status == 0 else f"{seen}: {life.last_lines()}",
        status == 0,
    )


def shell_status(status: int) -> int:
    """What a shell calls the exit status: 128 + the signal's number where one ended it."""
    return status if status >= 0 else 128 - status


def kill(pid: int, number: signal.Signals) -> None:
    """A signal to a process that may have ended in the meantime."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def marked_processes(mark: str) -> dict[int, dict[str, str]]:
    """Living processes with this mark, and their environments."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            pairs = (folder / "environ").read_text(errors="replace").split("\0")
            is_dead = ") Z" in (folder / "stat").read_text()
        except OSError:  # it ended, or is another user's
            continue
        environ = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if environ.get(MARK) == mark and not is_dead:
            found[int(folder.name)] = environ
    return found


def launched_processes(mark: str) -> dict[int, int]:
    """Of a job under `isoflop launch`: number of the process -> its pid."""
    found = marked_processes(mark)
    return {
        int(environ["ISOFLOP_PROCESS"]): pid
        for pid, environ in sorted(found.items(), reverse=True)
        if "ISOFLOP_PROCESS" in environ
    }


def wait_until(
    condition: Callable[[], bool], life: Life, seconds: float, *, poll: float = POLL_SECONDS
) -> bool:
    """Whether the condition came true before the life was over or the time had passed."""
    end = time.monotonic() + seconds
    while not condition():
        if life.is_over() or time.monotonic() > end:
            return condition()
        time.sleep(poll)
    return True
