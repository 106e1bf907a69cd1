"""Being told to stop: finish the step, save, leave with 143. A second signal leaves at once."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from train.agreement import Agreement
from train.supervision import EXIT_PREEMPTED, REPEAT_SECONDS

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_ON_EXIT_SECONDS = 5.0
_END = b"\0"  # no signal has this number


class Preempted(Exception):
    """Raised after the save that a SIGTERM or SIGINT asked for."""


class StopRequest:
    """Context manager that notes the first SIGTERM or SIGINT instead of dying of it.

    A second one, over REPEAT_SECONDS later, ends the process at once with 143. That holds also
    while the main thread is inside C++ (a compile, a collective that waits for another process),
    where Python's own handlers have to wait: a thread reads the signals from a pipe. To be entered
    in the main thread.

    Attributes:
      requested: whether this process was told to stop; `poll` says it for all of them.
    """

    def __init__(self):
        self.requested = False
        self._on_exit: Callable[[], None] | None = None  # set where there is nothing to save
        self._lock = threading.Lock()
        self._agreement: Agreement | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._previous_fd = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._reader = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._reader.start()
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        os.write(self._writing, _END)
        self._reader.join()
        os.close(self._writing)

    def poll(self) -> bool:
        """Whether to stop, the same answer on every process: whether any of them was told to.

        One process: `requested`. Several: a collective that does not wait for a step in flight,
        with an answer that may be one poll late (train/agreement.py). The caller sees to it that
        all processes poll equally often, at the same places among their programs.
        """
        if self._agreement is None:
            self._agreement = Agreement()
        return self._agreement.any(self.requested)

    @contextmanager
    def nothing_to_save(self, on_exit: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Within it the first signal ends the process with 143: at once, or once C++ lets a thread
        of Python run, as it does while it compiles or reads.

        Args:
          on_exit: called before that, from another thread; given up after 5 s.
        """
        with self._lock:
            self._on_exit = on_exit
            if self.requested:
                _leave(on_exit)
        try:
            yield
        finally:
            with self._lock:
                self._on_exit = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def _read(self, reading: int) -> None:
        first: float | None = None
        with open(reading, "rb", buffering=0) as signals:
            while (number := signals.read(1)) != _END:
                if number[0] not in SIGNALS:  # all that Python handles arrive here
                    continue
                now = time.monotonic()
                first = now if first is None else first
                self._note(number[0], None)
                if now - first > REPEAT_SECONDS:
                    os._exit(EXIT_PREEMPTED)
                with self._lock:  # not while the main thread leaves `nothing_to_save`
                    if self._on_exit:
                        _leave(self._on_exit)


def _leave(on_exit: Callable[[], None]) -> None:
    """Ends the process with 143, after `on_exit` if that returns in time."""
    last_words = threading.Thread(target=on_exit, daemon=True)
    last_words.start()
    last_words.join(_ON_EXIT_SECONDS)
    os._exit(EXIT_PREEMPTED)
