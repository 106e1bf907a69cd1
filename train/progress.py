"""What a person sees while it trains: a bar on a terminal, a line now and then elsewhere."""

import errno
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 15.0


def outlive_reader(console: Console) -> Console:
    """Has a console drop what cannot be written: a run does not end for want of a spectator.

    A pipe may lose its reader (`2>&1 | tee log`, and Ctrl-C), a terminal may be closed, the disk of
    a log may be full.
    """
    console.file = cast(IO[str], _Dropping(console.file))
    return console


class _Dropping:
    """A text stream that drops what cannot be written.

    Where the reader has gone for good, /dev/null takes its place: others write there too.
    """

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._note(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._note(error)

    def _note(self, error: OSError) -> None:
        if error.errno in (errno.EPIPE, errno.EIO):
            with suppress(OSError):  # it is no file of the system's
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


class TrainingProgress:
    """Context manager; `update` after each logged step."""

    def __init__(self, console: Console, num_steps: int, start_step: int, is_shown: bool = True):
        self._is_shown = is_shown
        self._console, self._num_steps, self._start = console, num_steps, start_step
        self._began = self._last_line = time.monotonic()
        self._bar = None
        if console.is_terminal and is_shown:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} {task.fields[status]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task("", total=num_steps, completed=start_step, status="")

    def __enter__(self) -> "TrainingProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, record: Mapping[str, Any]) -> None:
        """Shows a record of metrics.jsonl."""
        if not self._is_shown:
            return
        steps_done = int(record["step"])
        status = "loss not finite" if record["loss"] is None else f"loss {record['loss']:.3f}"
        if record["tokens_per_second"] is not None:  # the first step has nothing to be timed from
            status += f" · {record['tokens_per_second']:,.0f} tokens/s · MFU {record['mfu']:.1%}"
        if self._bar:
            self._bar.update(self._task, completed=steps_done, status=status)
            return
        now = time.monotonic()
        if now - self._last_line < _SECONDS_BETWEEN_LINES and steps_done < self._num_steps:
            return
        self._last_line = now
        pace = (now - self._began) / max(1, steps_done - self._start)
        left = pace * (self._num_steps - steps_done)
        self._console.print(
            f"  step {steps_done}/{self._num_steps} · {status} · {left:,.0f} s left",
            highlight=False,
        )

    def note(self, text: str) -> None:
        """A line above the bar."""
        if self._is_shown:
            self._console.print(f"  {text}", highlight=False)
