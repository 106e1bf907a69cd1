"""isoflop launch: starts the processes of a run on this machine, and again when one fails."""

import math
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from configs.errors import require, require_at_least_zero
from configs.overrides import parse_command, reject_overrides
from train.platform import expected_platform
from train.supervision import (
    COORDINATOR,
    EXIT_PREEMPTED,
    EXIT_RETRY,
    PROCESS,
    PROCESSES,
    REPEAT_SECONDS,
    RESTARTED,
)
from workflows.child_processes import Children, End, Signals

PROG = "isoflop launch"
MAX_BACKOFF = 60.0
_MAX_DOUBLINGS = 60  # far beyond any backoff that is not 0; 2**1024 is no float
EXIT_BAD_INPUT = 2

_KILL_SECONDS = 5.0  # between SIGTERM and SIGKILL where nothing can be saved any more
_GAP_SECONDS = 2 * REPEAT_SECONDS  # between two signals that are to be taken for two
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_DIED_OF_IT = (-signal.SIGTERM, -signal.SIGINT)
_TOLD_TO_STOP = (EXIT_PREEMPTED, *_DIED_OF_IT)


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Starts a command as N processes that compute together, and again when one of them fails.

    isoflop launch --processes 2 -- isoflop train CONFIG --run RUN --resume --mesh.data 2
    """

    processes: int
    """How many; on a CPU each has one device and its share of the cores. One: just watched."""
    restarts: int = 10
    """How often to start again after failures; then exit 1."""
    backoff: float = 1.0
    """Seconds before the first restart; each one that follows waits twice as long, up to 60."""
    grace: float = 60.0
    """Seconds that the processes have to save and leave once they are told to stop."""
    reset_after: float = 600.0
    """A start that lasted so many seconds was a healthy one: restarts are counted anew."""


class Outcome(NamedTuple):
    """How a start ended: 0, 2, 42 (to be tried again) or 143; and why, if not 0."""

    status: int
    reason: str = ""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop launch`."""
    cut = list(args).index("--") if "--" in args else len(args)
    options, overrides = parse_command(
        LaunchOptions, args[:cut], prog=PROG, description=LaunchOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    command = _command(args[cut + 1 :])
    require(options.processes > 0, "processes", options.processes, "1 or more")
    require_at_least_zero(
        "launch",
        restarts=options.restarts,
        backoff=options.backoff,
        grace=options.grace,
        reset_after=options.reset_after,
    )
    with Signals(_STOP_SIGNALS) as signals:
        return supervise(command, options, signals)


def supervise(command: Sequence[str], options: LaunchOptions, signals: Signals) -> int:
    """Starts the command until it is done, told to stop, given bad input, or out of restarts."""
    num_restarts, reason = 0, ""
    while True:
        start = time.monotonic()
        outcome = run_once(command, options, signals, reason)
        if outcome.reason:
            _say(outcome.reason)
        if outcome.status != EXIT_RETRY or signals.received:
            return outcome.status
        reason = outcome.reason
        if time.monotonic() - start >= options.reset_after:
            num_restarts = 0
        if num_restarts == options.restarts:
            _say(f"error: giving up after {num_restarts} restarts: {reason}")
            return 1
        seconds = min(MAX_BACKOFF, options.backoff * 2.0 ** min(num_restarts, _MAX_DOUBLINGS))
        num_restarts += 1
        _say(f"restart {num_restarts} of {options.restarts} in {seconds:g} s")
        if signals.wait(seconds):
            return EXIT_PREEMPTED


def run_once(
    command: Sequence[str], options: LaunchOptions, signals: Signals, reason: str
) -> Outcome:
    """Starts all processes and waits until all are gone.

    Args:
      reason: why the last start ended; "" at the first one.
    """
    number = options.processes
    environments, cores = _environments(number, reason), _shares_of_cores(number)
    with closing(Children(command, environments, cores, signals)) as started:
        return _Attendance(started, options.grace, signals).outcome()


class _Attendance:
    """Waits for the end of all processes; stops the others when one of them ends badly.

    A stop is a schedule of signals, of which the next is sent when its time has come. A process
    that dies of the signal itself, as a shell does, may have started one that saves: that one is
    waited for too.
    """

    def __init__(self, started: Children, grace: float, signals: Signals):
        self._children, self._grace, self._signals = started, grace, signals
        self._schedule: list[tuple[float, int]] = []
        self._num_signals = 0  # that told us to stop, as far as they were passed on
        self._cause: End | None = None  # what ended badly, before anybody was told to stop
        self._bad: list[End] = []
        self._told_at = -math.inf  # when SIGTERM was sent last
        self._was_killed = False
        self._cut_short: set[int] = set()  # processes of which what outlived them was killed

    def outcome(self) -> Outcome:
        while self._children.running or (self._schedule and self._outlived()):
            self._children.wait(self._seconds_to_next())
            self._pass_on_signals()
            self._note(self._children.ended())
            self._keep_schedule()
        return self._judged()

    def _pass_on_signals(self) -> None:
        """Passes on a signal that told us to stop; at the second they are to leave at once."""
        if len(self._signals.received) > self._num_signals:
            self._num_signals = len(self._signals.received)
            if self._num_signals > 1:
                gap = self._told_at + _GAP_SECONDS - time.monotonic()
                self._stop_within(_KILL_SECONDS, after=max(0.0, gap))
            elif self._cause is None:  # else they are being stopped already
                self._stop_within(self._grace)

    def _note(self, ends: list[End]) -> None:
        bad = sorted((end for end in ends if end.returncode != 0), key=_severity)
        self._bad += bad
        if not bad or self._num_signals or self._cause:
            return
        self._cause = bad[0]
        if self._cause.returncode in _TOLD_TO_STOP:
            # The others stop by agreement, and a signal might be the second that one of them gets.
            self._stop_within(_KILL_SECONDS, after=self._grace)
        else:
            self._stop_within(_KILL_SECONDS)

    def _stop_within(self, seconds: float, *, after: float = 0.0) -> None:
        start = time.monotonic() + after
        self._schedule = [(start, signal.SIGTERM), (start + seconds, signal.SIGKILL)]

    def _seconds_to_next(self) -> float:
        return max(0.0, self._schedule[0][0] - time.monotonic()) if self._schedule else math.inf

    def _keep_schedule(self) -> None:
        while self._schedule and self._schedule[0][0] <= time.monotonic():
            _, number = self._schedule.pop(0)
            if number == signal.SIGKILL:
                self._cut_short = self._outlived()
                self._was_killed |= bool(self._children.running or self._cut_short)
            else:
                self._told_at = time.monotonic()
            self._children.send(number)

    def _outlived(self) -> set[int]:
        """The processes that died of a signal while what they had started lives on."""
        died = {end.process for end in self._bad if end.returncode in _DIED_OF_IT}
        return died & self._children.alive

    def _judged(self) -> Outcome:
        if not self._bad:
            return Outcome(0)
        if any(end.returncode == EXIT_BAD_INPUT for end in self._bad):
            return Outcome(EXIT_BAD_INPUT)
        if self._num_signals:
            return self._judged_after_signals()
        assert self._cause is not None  # nothing ends badly without one
        # Where one was told to stop, the others may have failed for the want of it.
        is_told = self._cause.returncode in _TOLD_TO_STOP and 0 not in self._cut_short
        return Outcome(EXIT_PREEMPTED if is_told else EXIT_RETRY, self._cause.describe())

    def _judged_after_signals(self) -> Outcome:
        """Process 0 writes the checkpoints: once it has left as it should, the others may have
        failed for the want of it."""
        failed = [end for end in self._bad if end.returncode not in _TOLD_TO_STOP]
        unsaved = self._cut_short | {end.process for end in failed}
        if self._num_signals > 1 or 0 not in unsaved:
            return Outcome(EXIT_PREEMPTED, "told to stop, and stopped")
        if self._was_killed:
            return Outcome(EXIT_RETRY, f"killed what did not stop in {self._grace:g} s")
        return Outcome(EXIT_RETRY, f"told to stop, but {failed[0].describe()}")


def _severity(end: End) -> int:
    """Of ends seen at once, what is a cause comes before what is a consequence."""
    consequences = (*_TOLD_TO_STOP, EXIT_RETRY, -signal.SIGABRT)  # a lost peer: 42 or an abort
    return 1 + consequences.index(end.returncode) if end.returncode in consequences else 0


def _command(words: Sequence[str]) -> list[str]:
    """The command to start: `isoflop` is this very installation.

    Raises:
      InputError: no command, or a program that is not there.
    """
    require(bool(words), "command", "", "-- COMMAND, such as -- isoflop train decoder_only/tiny")
    if words[0] == "isoflop":
        front_door = Path(__file__).resolve().parents[1] / "isoflop.py"
        return [sys.executable, str(front_door), *words[1:]]
    require(shutil.which(words[0]) is not None, "command", words[0], "a program on the PATH")
    return list(words)


def _environments(number: int, reason: str) -> list[dict[str, str]]:
    """Ours, with what each process needs to know to find the others."""
    ours = (COORDINATOR, PROCESSES, PROCESS, RESTARTED)
    common = {name: value for name, value in os.environ.items() if name not in ours}
    if reason:
        common[RESTARTED] = reason
    if number == 1:
        return [common]
    common |= {COORDINATOR: f"127.0.0.1:{_free_port()}", PROCESSES: str(number)}
    if expected_platform() == "cpu":
        common["JAX_NUM_CPU_DEVICES"] = "1"
        return [common | {PROCESS: str(i)} for i in range(number)]
    return [{"JAX_LOCAL_DEVICE_IDS": str(i)} | common | {PROCESS: str(i)} for i in range(number)]


def _shares_of_cores(number: int) -> list[set[int] | None]:
    """Equal shares of the cores, apart from each other where they suffice; None for all of them.

    Without it each process would start as many threads as there are cores.
    """
    if number == 1 or sys.platform != "linux" or expected_platform() != "cpu":
        return [None] * number
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // number)
    return [{cores[(i * share + j) % len(cores)] for j in range(share)} for i in range(number)]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _say(line: str) -> None:
    with suppress(OSError):  # whoever read our stderr has gone: the run goes on
        print(f"{PROG}: {line}", file=sys.stderr, flush=True)
