"""Warm-up, peak and end points of the learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.optimizer_config import CosineConfig, WarmupStableDecayConfig
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
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_warm_up_is_linear_and_wastes_no_step_on_a_rate_of_zero(kind):
    expected = PEAK * np.arange(1, 12) / 11
    # Cosine decay has not begun: step 10 is its first and its rate the peak.
    np.testing.assert_allclose(rates(SCHEDULES[kind])[:11], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_last_step_runs_at_exactly_the_final_fraction(kind):
    assert rates(SCHEDULES[kind])[-1] == pytest.approx(0.1 * PEAK, rel=1e-6)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_rates_rise_to_the_peak_and_never_rise_again(kind):
    values = rates(SCHEDULES[kind])
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


@pytest.mark.parametrize(
    "config",
    [
        CosineConfig(warmup_steps=0, final_fraction=0.0),
        WarmupStableDecayConfig(warmup_steps=0, final_fraction=0.0),
    ],
    ids=["cosine", "warmup_stable_decay"],
)
def test_without_warm_up_the_first_step_runs_at_the_peak_and_the_last_at_zero(config):
    values = rates(config)
    assert values[0] == pytest.approx(PEAK, rel=1e-6)
    assert values[-1] == 0.0


def test_a_run_of_two_steps_has_a_peak_and_an_end():
    values = rates(CosineConfig(warmup_steps=0, final_fraction=0.5), 2)
    np.testing.assert_allclose(values, [PEAK, 0.5 * PEAK], rtol=1e-6)
