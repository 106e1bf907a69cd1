"""What a person sees while it trains: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 15.0


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
