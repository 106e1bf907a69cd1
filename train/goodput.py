"""Where the wall-clock of a run goes, over all its restarts.

Goodput is the share spent in steps that the run kept. Everything else counts against it: starting,
compiling, restoring, waiting for data, the part of a save that is in the way, checks, steps done
over again after a failure, and the time from a death to the next start. Evaluation is work of its
own kind and counts apart: it is in neither side of the share.
"""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.errors import InputError
from train.run_directory import RunDirectory

GOODPUT_FILE = "goodput.json"
# step: steps that the run kept. lost: those it did over again. down: from a death to the next
# start; what lies between a stop that was asked for and the next start is not the run's time.
PHASES: tuple[str, ...] = (
    "step", "start", "compile", "restore", "data", "save", "check", "other", "lost", "down",
    "evaluate",
)  # fmt: skip
_SECONDS_BETWEEN_WRITES = 5.0
_MARKS_KEPT = 100


class Goodput:
    """Seconds by phase, kept in RUN/goodput.json; one phase at a time, inner ones pause outer ones.

    Args:
      run: where the file is; what earlier starts wrote there is added to.
      began: when this start began, seconds since 1970.
    """

    def __init__(self, run: RunDirectory, began: float):
        self._run = run
        self._seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._marks = {0: 0.0}  # "step" seconds when a step was saved
        self._starts, last_seen, was_stopped = 0, None, True
        if earlier := _read(run):
            self._seconds |= earlier["seconds"]
            self._marks |= {int(step): seconds for step, seconds in earlier["marks"].items()}
            self._starts, last_seen = earlier["starts"], earlier["last_seen"]
            was_stopped = earlier["stopped"]
        now = time.time()
        if last_seen is not None:
            began = min(max(began, last_seen), now)
            if not was_stopped:
                self._seconds["down"] += max(0.0, began - last_seen)  # clocks of hosts differ
        self._starts += 1
        self._seconds["start"] += max(0.0, now - began)
        self._phases = ["other"]
        self._since = time.perf_counter()
        self._written = 0.0

    @contextmanager
    def phase(self, name: str) -> Generator[None, None, None]:
        """Counts what happens within to a phase."""
        assert name in PHASES
        self._charge()
        self._phases.append(name)
        try:
            yield
        finally:
            self._charge()
            self._phases.pop()

    def resumed(self, step: int) -> None:
        """The run goes on after `step`: steps done beyond it were for nothing."""
        kept = self._marks.get(step)
        if kept is None:  # a checkpoint of another run's, or from before there was such a file
            kept = self._seconds["step"]
        self._seconds["lost"] += self._seconds["step"] - kept
        self._seconds["step"] = kept
        self._marks = {s: seconds for s, seconds in self._marks.items() if s <= step}

    def saved(self, step: int) -> None:
        """A step's state goes to disk: what was done up to it will not be lost."""
        self._charge()
        self._marks[step] = self._seconds["step"]
        for old in sorted(self._marks)[1:-_MARKS_KEPT]:
            del self._marks[old]

    def share(self) -> float:
        """Goodput up to now, 0 to 1."""
        self._charge()
        total = sum(self._seconds.values()) - self._seconds["evaluate"]
        return self._seconds["step"] / total if total else 0.0

    def write(self, *, is_due: bool = True, stopped: bool = False) -> None:
        """Writes the file.

        Args:
          is_due: False where a write of the last few seconds will do.
          stopped: this process is about to end as it should.
        """
        if not is_due and time.monotonic() - self._written < _SECONDS_BETWEEN_WRITES:
            return
        self._written = time.monotonic()
        share = self.share()
        self._run.write(
            GOODPUT_FILE,
            {
                "goodput": share,
                "starts": self._starts,
                "seconds": self._seconds,
                "marks": {str(step): seconds for step, seconds in self._marks.items()},
                "last_seen": time.time(),
                "stopped": stopped,
            },
        )

    def _charge(self) -> None:
        now = time.perf_counter()
        self._seconds[self._phases[-1]] += now - self._since
        self._since = now


def process_began() -> float:
    """When this process was started, seconds since 1970; now where the kernel does not tell."""
    try:
        # Fields after the command's name, which may hold anything: the 20th is the start, in ticks.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - (uptime - ticks / os.sysconf("SC_CLK_TCK"))


def _read(run: RunDirectory) -> dict[str, Any] | None:
    """What earlier starts wrote; None if there is nothing, or nothing that can be used: no reason
    not to train."""
    if not run.has(GOODPUT_FILE):
        return None
    try:
        record = run.read(GOODPUT_FILE)
    except InputError:
        return None
    numbers = [record.get("starts"), record.get("last_seen")]
    for name in ("seconds", "marks"):
        if not isinstance(record.get(name), dict):
            return None
        numbers += record[name].values()
    fits = all(type(number) in (int, float) for number in numbers)
    fits = fits and set(record["seconds"]) <= set(PHASES) and type(record.get("stopped")) is bool
    fits = fits and all(step.isdigit() for step in record["marks"])
    return record if fits else None
