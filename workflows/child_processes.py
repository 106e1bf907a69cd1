"""Processes that a supervisor starts, hears, signals and outlives."""

import ctypes
import math
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, NamedTuple

from train.supervision import REPEAT_SECONDS

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_MAX_LINE_BYTES = 65_536
_WAKE_SECONDS = 1.0
_GONE_SECONDS = 5.0  # by then what was killed has ended, and its locks are free


class End(NamedTuple):
    """How a process ended. returncode: its exit status, or minus the signal that killed it."""

    process: int
    returncode: int

    def describe(self) -> str:
        """For example: process 1 was killed by SIGKILL; process 0 exited with 42."""
        if self.returncode >= 0:
            return f"process {self.process} exited with {self.returncode}"
        names = {number.value: number.name for number in signal.Signals}
        name = names.get(-self.returncode, f"signal {-self.returncode}")  # real-time ones have none
        return f"process {self.process} was killed by {name}"


class Signals:
    """Context manager that collects the signals sent to this process, and ends waits by them.

    Those that are ignored stay so: nohup and shells' background jobs mean it. Those that come
    within REPEAT_SECONDS of the first belong to it.
    """

    def __init__(self, numbers: Sequence[int]):
        self.received: list[int] = []
        self._first = -math.inf  # when it came
        self._numbers = [n for n in numbers if signal.getsignal(n) != signal.SIG_IGN]

    def __enter__(self) -> "Signals":
        self.reading, self._writing = os.pipe()
        for end in (self.reading, self._writing):
            os.set_blocking(end, False)
        self._previous_fd = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        # A child's end is a signal too: handled, it ends a wait.
        self._previous = {
            number: signal.signal(number, self._note) for number in (*self._numbers, signal.SIGCHLD)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self.reading)
        os.close(self._writing)

    def wait(self, seconds: float) -> bool:
        """Waits so long, or until a signal is here; whether one is."""
        end = time.monotonic() + seconds
        while not self.received and (left := end - time.monotonic()) > 0:
            if select.select([self.reading], [], [], left)[0]:
                self.clear()
        return bool(self.received)

    def clear(self) -> None:
        """Empties the pipe that ends waits."""
        with suppress(BlockingIOError):
            os.read(self.reading, 4096)

    def _note(self, number: int, frame: object) -> None:
        if number == signal.SIGCHLD:
            return
        now = time.monotonic()
        if not self.received:
            self._first = now
        elif now - self._first <= REPEAT_SECONDS:
            return
        self.received.append(number)


class Children:
    """Runs a command once per environment, each in a session of its own.

    Of several, lines on stderr get "[0] " in front, and so do those that all but process 0 write
    to stdout: they go to stderr too, and stdout is what process 0 writes. A single one inherits
    both.

    On Linux they are killed when this process dies, however it does (not so what they start
    themselves), and what outlives the one that started it becomes a child of this process. To be
    made in the main thread.

    Args:
      environments: one per process.
      cores: the cores that each process may use; None for all.
      signals: those that end a wait.
    """

    def __init__(
        self,
        command: Sequence[str],
        environments: Sequence[Mapping[str, str]],
        cores: Sequence[set[int] | None],
        signals: Signals,
    ):
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._groups: dict[int, int] = {}  # that have members, of processes that have ended
        self._signals = signals
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals.reading, selectors.EVENT_READ, None)
        is_alone = len(environments) == 1
        _adopt_orphans()
        try:
            for process, environment in enumerate(environments):
                child = subprocess.Popen(  # noqa: S603 - the user's own command, no shell
                    list(command),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=None if is_alone or process == 0 else subprocess.PIPE,
                    stderr=None if is_alone else subprocess.PIPE,
                    start_new_session=True,
                    preexec_fn=_settle_child(cores[process]),
                )
                self._running[process] = child
                for pipe in filter(None, (child.stdout, child.stderr)):
                    os.set_blocking(pipe.fileno(), False)
                    self._selector.register(pipe, selectors.EVENT_READ, _Relay(process, pipe))
        except BaseException:
            self.close()
            raise

    @property
    def running(self) -> set[int]:
        """The processes that have not ended."""
        return set(self._running)

    @property
    def alive(self) -> set[int]:
        """The processes of which something lives: they themselves, or what they started."""
        self._forget_empty_groups()
        return {*self._running, *self._groups}

    def wait(self, seconds: float) -> None:
        """Passes on what the processes write, until something happens or `seconds` have gone."""
        for key, _ in self._selector.select(min(seconds, _WAKE_SECONDS)):
            if key.data is None:
                self._signals.clear()
            elif not key.data.pass_on():
                self._selector.unregister(key.fileobj)
                key.data.pipe.close()

    def ended(self) -> list[End]:
        """The processes that ended since the last call."""
        ends = []
        for process, child in list(self._running.items()):
            returncode = child.poll()
            if returncode is not None:
                self._leader_ended(process)
                ends.append(End(process, returncode))
        self._forget_empty_groups()
        return ends

    def send(self, number: int) -> None:
        """Signals every process, and what it has started, also where that has outlived it."""
        self._forget_empty_groups()
        leaders = [child.pid for child in self._running.values()]
        for group in (*leaders, *self._groups.values()):
            _signal_group(group, number)

    def close(self) -> None:
        """Kills what is left, also of what the processes started, and passes on the last words."""
        self.send(signal.SIGKILL)
        for process, child in list(self._running.items()):
            child.wait()
            self._leader_ended(process)
        end = time.monotonic() + _GONE_SECONDS
        while self.alive and time.monotonic() < end:
            time.sleep(0.01)
        relays = [key.data for key in list(self._selector.get_map().values()) if key.data]
        for relay in relays:
            while relay.pass_on():
                continue
            relay.pipe.close()
        self._selector.close()

    def _leader_ended(self, process: int) -> None:
        self._groups[process] = self._running.pop(process).pid

    def _forget_empty_groups(self) -> None:
        """An empty group's number may become that of somebody else's process."""
        self._groups = {
            process: group for process, group in self._groups.items() if _has_members(group)
        }


class _Relay:
    """Whole lines from a process' pipe to stderr, "[1] " in front."""

    def __init__(self, process: int, pipe: IO[bytes]):
        self.pipe = pipe
        self._prefix = b"[%d] " % process
        self._rest = b""

    def pass_on(self) -> bool:
        """Passes on what is there; False once there will be no more, or for now is none."""
        try:
            read = os.read(self.pipe.fileno(), _MAX_LINE_BYTES)
        except BlockingIOError:
            read = b""
        *lines, self._rest = (self._rest + read).split(b"\n")
        if self._rest and (not read or len(self._rest) > _MAX_LINE_BYTES):
            lines, self._rest = [*lines, self._rest], b""
        if lines:
            self._write(b"".join(b"%s%s\n" % (self._prefix, line) for line in lines))
        return bool(read)

    def _write(self, text: bytes) -> None:
        with suppress(OSError):  # whoever read our stderr has gone: the run goes on
            while text:
                text = text[os.write(sys.stderr.fileno(), text) :]


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
        os.killpg(group, number)


def _has_members(group: int) -> bool:
    """Whether something lives in the group of a process that has ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:  # adopted, and ended
            continue
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _adopt_orphans() -> None:
    """The end of an orphan is seen by whoever adopts it: this process, not the machine's first,
    which in a container may never look."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _settle_child(cores: set[int] | None) -> Callable[[], None]:
    """What a child does before it becomes the command: dies with its parent, keeps to its cores."""
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def settle() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)
        if cores is not None:
            os.sched_setaffinity(0, cores)

    return settle
