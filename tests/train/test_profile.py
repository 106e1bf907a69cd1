"""Which steps are traced, and that the trace names them."""

import jax
import jax.numpy as jnp
import pytest

from configs.errors import InputError
from tests.train.traces import traced_steps
from train.profile import ProfiledSteps, Profiler


def steps_of(text: str, first_step: int = 0, num_steps: int = 20) -> tuple[int, int] | None:
    return ProfiledSteps.of(text, first_step=first_step, num_steps=num_steps)


@pytest.mark.parametrize(
    ("text", "first_step", "steps"),
    [
        ("10:13", 0, (10, 13)),
        ("20:20", 0, (20, 20)),
        ("3", 0, (5, 7)),
        ("3", 8, (13, 15)),
        ("3", 16, (18, 20)),  # four are left: the three last
        ("3", 18, (19, 20)),  # two are left
        ("20", 0, (1, 20)),
        ("10:13", 11, (10, 13)),  # what is left of it is traced
        ("10:13", 13, None),
        ("3", 20, None),
        ("", 0, None),
    ],
)
def test_steps_are_counted_from_1_with_both_ends(text, first_step, steps):
    assert steps_of(text, first_step) == steps


@pytest.mark.parametrize("text", ["0", "21", "13:10", "0:3", "15:21", "a", "1:2:3", "-3", "3:"])
def test_other_steps_are_refused(text):
    with pytest.raises(InputError, match="profile: got '.*', expected a number of steps, or FIRST"):
        steps_of(text)


def run_steps(profiler: Profiler, count: int) -> None:
    double = jax.jit(lambda x: 2 * x)
    state = jnp.ones(4)
    for step in range(1, count + 1):
        with profiler.step(step, state):
            state = double(state)
        profiler.finish(step, state)


def test_the_trace_holds_the_steps_asked_for_and_no_others(tmp_path):
    pauses, notes = [], []
    profiler = Profiler(
        ProfiledSteps(3, 5), tmp_path, pause=lambda: pauses.append(1), note=notes.append
    )
    with profiler:
        run_steps(profiler, 8)
    assert traced_steps(tmp_path) == [3, 4, 5]
    assert len(pauses) == 2, "tracing begins and ends outside the time of steps"
    assert notes == [f"profile: {tmp_path}"]


def test_a_loop_that_is_left_early_still_leaves_its_trace(tmp_path):
    profiler = Profiler(ProfiledSteps(2, 9), tmp_path, pause=lambda: None, note=lambda _: None)
    with pytest.raises(KeyboardInterrupt), profiler:
        run_steps(profiler, 3)
        raise KeyboardInterrupt
    assert traced_steps(tmp_path) == [2, 3]


def test_nothing_is_written_where_nothing_is_asked_for(tmp_path):
    with Profiler(None, tmp_path, pause=lambda: None, note=lambda _: None) as profiler:
        run_steps(profiler, 3)
    assert list(tmp_path.iterdir()) == []
