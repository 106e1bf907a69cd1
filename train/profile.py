"""A trace of a few training steps, for XProf and Perfetto (docs/performance.md)."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import jax

from configs.errors import InputError, require

PROFILE_FOLDER = "profile"
_STEPS_BEFORE = 4  # of a process: caches, pages and clocks have settled by then
_FORM = re.compile(r"(\d+)(?::(\d+))?")


def profile_numbers(text: str) -> tuple[int, int | None]:
    """(10, 13) of "10:13", (3, None) of "3". Raises InputError for another form."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise InputError(f"profile: got {text!r}, expected a number of steps, or FIRST:LAST")
    return int(form[1]), int(form[2]) if form[2] else None


class ProfiledSteps(NamedTuple):
    """Steps to trace, counted from 1, both ends included."""

    first: int
    last: int

    @classmethod
    def of(cls, text: str, *, first_step: int, num_steps: int) -> "ProfiledSteps | None":
        """What `--profile` asks for: "10:13" steps 10 to 13; "3" three, from this process' fifth.

        Args:
          text: "" for none.
          first_step: steps done before this process began.
          num_steps: of the whole run.

        Returns:
          None where nothing is asked for, or only what this process will not come by.

        Raises:
          InputError: another form, or steps beyond the run's last.
        """
        if not text:
            return None
        first, last = profile_numbers(text)
        expected = f"a number of steps, or FIRST:LAST from 1 to {num_steps}"
        left = num_steps - first_step
        if last is None:
            require(1 <= first <= num_steps, "profile", text, expected)
            before = first_step + max(0, min(_STEPS_BEFORE, left - first))
            steps = cls(before + 1, min(before + first, num_steps))
        else:
            steps = cls(first, last)
            require(1 <= steps.first <= steps.last <= num_steps, "profile", text, expected)
        return steps if steps.last > first_step and left else None


class Profiler:
    """Context manager of a training loop that traces some of its steps into RUN/profile.

    The first process traces. Both ends wait for the devices, so that whole steps are in the trace
    and no others.

    Args:
      steps: None to trace nothing.
      folder: where the trace is written.
      pause: called when tracing begins and ends, which takes time that is no step's.
      note: tells the user.
    """

    def __init__(
        self,
        steps: ProfiledSteps | None,
        folder: Path,
        *,
        pause: Callable[[], None],
        note: Callable[[str], None],
    ):
        self._steps = steps if jax.process_index() == 0 else None
        self._folder, self._pause, self._note = folder, pause, note
        self._is_tracing = False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_tracing:  # the loop was left between the first step and the last
            self._stop()

    def step(self, step: int, state: Any) -> AbstractContextManager[Any]:
        """What to run a step under: names it in the trace, which begins with the first.

        Args:
          step: its number, from 1.
          state: arrays that the step before it gave.
        """
        wanted = self._steps and self._steps.first <= step <= self._steps.last
        if wanted and not self._is_tracing:
            jax.block_until_ready(state)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # every Python call: slows the loop it should show
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
            self._is_tracing = True
            self._pause()
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def finish(self, step: int, outputs: Any) -> None:
        """To be called after each step: writes the trace once the last one of it has run.

        Args:
          outputs: arrays that the step gave.
        """
        if self._is_tracing and self._steps and step >= self._steps.last:
            jax.block_until_ready(outputs)
            self._stop()

    def _stop(self) -> None:
        self._is_tracing = False
        jax.profiler.stop_trace()
        self._pause()
        self._note(f"profile: {self._folder}")
