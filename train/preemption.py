"""Being told to stop: finish the step, save, leave with 143. A second signal leaves at once."""

import os
import signal
from types import FrameType
from typing import Any

EXIT_PREEMPTED = 143


class Preempted(Exception):
    """Raised after the save that a SIGTERM or SIGINT asked for."""


class StopRequest:
    """Context manager that notes the first SIGTERM or SIGINT instead of dying of it."""

    def __init__(self):
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(EXIT_PREEMPTED)
        self.requested = True
