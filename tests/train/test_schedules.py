"""Warm-up, peak and end points of the learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.optimizer_config import (
    CosineConfig,
    InverseSquareRootConfig,
    LinearConfig,
    WarmupStableDecayConfig,
)
from train.schedules import make_schedule

PEAK, NUM_STEPS = 0.02, 101


def rates(config, num_steps: int = NUM_STEPS) -> np.ndarray:
    """The learning rate of every step, fp32."""
    schedule = make_schedule(config, PEAK, num_steps)
    return np.asarray(jax.vmap(schedule)(jnp.arange(num_steps)), np.float64)


SCHEDULES = {
    "cosine": CosineConfig(warmup_steps=10, final_fraction=0.1),
    "warmup_stable_decay": WarmupStableDecayConfig(
        warmup_steps=10, decay_fraction=0.2, final_fraction=0.1
    ),
    "linear": LinearConfig(warmup_steps=10, final_fraction=0.1),
}
ALL = SCHEDULES | {
    "inverse_square_root": InverseSquareRootConfig(warmup_steps=10, constant_steps=25),
    "T5's": InverseSquareRootConfig(constant_steps=25, cooldown_fraction=0.0),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_warm_up_is_linear_and_wastes_no_step_on_a_rate_of_zero(kind):
    expected = PEAK * np.arange(1, 12) / 11
    # Cosine decay has not begun: step 10 is its first and its rate the peak.
    np.testing.assert_allclose(rates(SCHEDULES[kind])[:11], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_last_step_runs_at_exactly_the_final_fraction(kind):
    assert rates(SCHEDULES[kind])[-1] == pytest.approx(0.1 * PEAK, rel=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_rates_rise_to_the_peak_and_never_rise_again(kind):
    values = rates(ALL[kind])
    top = int(values.argmax())
    assert values.max() == pytest.approx(PEAK, rel=1e-6)
    assert (np.diff(values[: top + 1]) > 0).all()
    assert (np.diff(values[top:]) <= 1e-9).all()


@pytest.mark.parametrize("kind", SCHEDULES)
def test_steps_after_the_last_stay_at_the_final_rate(kind):
    schedule = make_schedule(SCHEDULES[kind], PEAK, NUM_STEPS)
    np.testing.assert_allclose(schedule(10 * NUM_STEPS), 0.1 * PEAK, rtol=1e-6)


def test_cosine_follows_half_a_cosine():
    values = rates(SCHEDULES["cosine"])
    progress = (np.arange(NUM_STEPS) - 10) / 90
    expected = PEAK * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * progress)))
    np.testing.assert_allclose(values[10:], expected[10:], rtol=1e-5)
    assert values[55] == pytest.approx(0.55 * PEAK, rel=1e-5)  # half way down


def test_stable_holds_the_peak_until_the_last_fifth_and_then_falls_linearly():
    values = rates(SCHEDULES["warmup_stable_decay"], 100)
    np.testing.assert_allclose(values[10:80], PEAK, rtol=1e-6)
    expected = PEAK * (0.1 + 0.9 * np.arange(19, -1, -1) / 20)
    np.testing.assert_allclose(values[80:], expected, rtol=1e-5)


def test_linear_falls_in_a_straight_line():
    values = rates(SCHEDULES["linear"])
    np.testing.assert_allclose(values[10:], np.linspace(PEAK, 0.1 * PEAK, 91), rtol=1e-5)


def test_t5s_rate_is_one_over_the_root_of_the_step_after_ten_thousand():
    schedule = make_schedule(InverseSquareRootConfig(cooldown_fraction=0.0), 0.01, 2**19)
    steps = np.array([1, 5000, 10_000, 40_000, 250_000, 2**19])
    expected = 1 / np.sqrt(np.maximum(steps, 10_000))
    np.testing.assert_allclose(jax.vmap(schedule)(steps - 1), expected, rtol=1e-6)


def test_the_transformers_rate_rises_for_as_long_as_it_is_held():
    values = rates(InverseSquareRootConfig(warmup_steps=25, constant_steps=25, cooldown_fraction=0))
    np.testing.assert_allclose(values[:26], PEAK * np.arange(1, 27) / 26, rtol=0.02)
    np.testing.assert_allclose(values[26:], PEAK * np.sqrt(25 / np.arange(27, 102)), rtol=1e-6)


def test_the_cool_down_of_an_inverse_square_root_takes_its_share_and_ends_at_zero():
    values = rates(ALL["inverse_square_root"])
    without = PEAK * np.sqrt(25 / np.arange(1, 102))
    np.testing.assert_allclose(values[25:90], without[25:90], rtol=1e-6)
    np.testing.assert_allclose(
        values[90:], without[90:] * np.minimum(1, np.arange(10, -1, -1) / 10.1), rtol=1e-5
    )
    assert values[-1] == 0.0


@pytest.mark.parametrize(
    "config",
    [
        CosineConfig(warmup_steps=0, final_fraction=0.0),
        LinearConfig(warmup_steps=0),
        WarmupStableDecayConfig(warmup_steps=0, final_fraction=0.0),
        InverseSquareRootConfig(),
    ],
    ids=["cosine", "linear", "warmup_stable_decay", "inverse_square_root"],
)
def test_without_warm_up_the_first_step_runs_at_the_peak_and_the_last_at_zero(config):
    values = rates(config)
    assert values[0] == pytest.approx(PEAK, rel=1e-6)
    assert values[-1] == 0.0


def test_a_run_of_two_steps_has_a_peak_and_an_end():
    values = rates(CosineConfig(warmup_steps=0, final_fraction=0.5), 2)
    np.testing.assert_allclose(values, [PEAK, 0.5 * PEAK], rtol=1e-6)
