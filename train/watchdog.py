"""A run that hangs: nothing completes for many times as long as usual. It leaves, to be retried."""

import faulthandler
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from train.supervision import EXIT_RETRY

MIN_BEATS = 3
_RECENT_BEATS = 64
_ON_HANG_SECONDS = 5.0
_MIN_TICK, _MAX_TICK = 0.05, 1.0


class Watchdog:
    """Context manager that ends the process with 42 when the beats stop, from a thread of its own.

    It begins to watch after MIN_BEATS beats. Without another one within `floor_seconds` or
    `multiple` times the median of the recent intervals, whichever is longer, it appends the stacks
    of all threads to `stacks` and stderr, calls `on_hang`, and leaves by os._exit. Time in which
    the whole process was stopped (SIGSTOP, a frozen machine) does not count.

    Python has to get a word in: a hang in C++ that holds the interpreter's lock is not seen.

    Args:
      stacks: file for the stacks of all threads.
      multiple: 0 switches the watchdog off.
      floor_seconds: the shortest silence that counts as a hang.
      on_hang: called with a line that says what happened, from the watchdog's thread, before the
        process ends; given up after 5 s.
    """

    def __init__(
        self,
        stacks: Path,
        *,
        multiple: float = 20.0,
        floor_seconds: float = 300.0,
        on_hang: Callable[[str], None] = lambda detail: None,
    ):
        self._stacks, self._multiple, self._floor = stacks, multiple, floor_seconds
        self._on_hang = on_hang
        self._changed = threading.Condition()
        self._intervals: deque[float] = deque(maxlen=_RECENT_BEATS)
        self._last: float | None = None  # of the beat, or of the end of the pause, counted from
        self._num_pauses = 0
        self._is_over = False
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def __enter__(self) -> "Watchdog":
        if self._multiple > 0:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def beat(self) -> None:
        """What is watched has completed once more: a step."""
        now = time.monotonic()
        with self._changed:
            if self._last is not None:
                self._intervals.append(now - self._last)
            self._last = now

    def alive(self) -> None:
        """Something else has completed, which tells nothing of how long a step may take."""
        with self._changed:
            if self._last is not None:
                self._last = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it silence is no hang: for what takes its own time, such as a compile."""
        with self._changed:
            self._num_pauses += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_pauses -= 1
                if self._last is not None:
                    self._last = time.monotonic()

    def limit_seconds(self) -> float | None:
        """The silence that counts as a hang; None as long as there were too few beats."""
        if len(self._intervals) < MIN_BEATS - 1:
            return None
        return max(self._floor, self._multiple * statistics.median(self._intervals))

    def _watch(self) -> None:
        with self._changed:
            while not self._is_over:
                tick = (self.limit_seconds() or self._floor) / 10
                tick = min(max(tick, _MIN_TICK), _MAX_TICK)
                asleep_from = time.monotonic()
                self._changed.wait(tick)
                now = time.monotonic()
                limit = self.limit_seconds()
                if limit is None or self._last is None or self._num_pauses:
                    continue
                if (overslept := now - asleep_from - tick) > limit / 2:
                    self._last = min(now, self._last + overslept)  # a beat may have come since
                elif now - self._last > limit and not self._is_over:
                    self._end(now - self._last)

    def _end(self, silence: float) -> None:
        usual = statistics.median(self._intervals)
        detail = (
            f"nothing completed for {silence:.1f} s, where {usual:.3g} s is usual; "
            f"stacks in {self._stacks}"
        )
        last_words = threading.Thread(target=self._report, args=(detail,), daemon=True)
        last_words.start()
        last_words.join(_ON_HANG_SECONDS)
        os._exit(EXIT_RETRY)

    def _report(self, detail: str) -> None:
        with suppress(OSError):  # whoever read our stderr has gone
            print(f"isoflop: hang: {detail}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        try:
            with self._stacks.open("a") as file:
                file.write(f"{detail}\n")
                file.flush()
                faulthandler.dump_traceback(file=file, all_threads=True)
        finally:  # a disk that hangs or is full must not keep the event back
            self._on_hang(detail)
