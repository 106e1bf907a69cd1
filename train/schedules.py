"""Learning rate as a function of the step."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from configs.optimizer_config import (
    CosineConfig,
    InverseSquareRootConfig,
    LinearConfig,
    ScheduleConfig,
    WarmupStableDecayConfig,
)


def make_schedule(config: ScheduleConfig, peak: float, num_steps: int) -> optax.Schedule:
    """The schedule for a sub-config: step (from 0) -> learning rate, fp32.

    Warm-up goes linearly from peak/(warmup_steps+1) to the peak, so that no step is wasted on a
    learning rate of 0; the last of `num_steps` steps runs at `final_fraction` of the peak. An
    inverse square root ends with its cool-down's zero, or without one wherever it has come to.
    """
    return _SHAPES[type(config)](config, peak, num_steps)


def _cosine(config: CosineConfig, peak: float, num_steps: int) -> optax.Schedule:
    warmup, final = config.warmup_steps, config.final_fraction

    def schedule(step: ArrayLike) -> jax.Array:
        progress = _progress(step, warmup, num_steps)
        decayed = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return peak * jnp.minimum(_warm_up(step, warmup), decayed)

    return schedule


def _linear(config: LinearConfig, peak: float, num_steps: int) -> optax.Schedule:
    warmup, final = config.warmup_steps, config.final_fraction

    def schedule(step: ArrayLike) -> jax.Array:
        decayed = final + (1 - final) * (1 - _progress(step, warmup, num_steps))
        return peak * jnp.minimum(_warm_up(step, warmup), decayed)

    return schedule


def _warmup_stable_decay(
    config: WarmupStableDecayConfig, peak: float, num_steps: int
) -> optax.Schedule:

    def schedule(step: ArrayLike) -> jax.Array:
        remaining = _remaining(step, config.decay_fraction, num_steps)
        decayed = config.final_fraction + (1 - config.final_fraction) * remaining
        return peak * jnp.minimum(_warm_up(step, config.warmup_steps), decayed)

    return schedule


def _inverse_square_root(
    config: InverseSquareRootConfig, peak: float, num_steps: int
) -> optax.Schedule:
    held, cooldown = config.constant_steps, config.cooldown_fraction

    def schedule(step: ArrayLike) -> jax.Array:
        decayed = jnp.sqrt(held / jnp.maximum(held, jnp.asarray(step) + 1))
        if cooldown:
            decayed = decayed * _remaining(step, cooldown, num_steps)
        return peak * jnp.minimum(_warm_up(step, config.warmup_steps), decayed)

    return schedule


def _warm_up(step: ArrayLike, warmup_steps: int) -> jax.Array:
    """From just above 0 at step 0 to 1 at step `warmup_steps`."""
    return jnp.minimum(1.0, (jnp.asarray(step) + 1) / (warmup_steps + 1))


def _progress(step: ArrayLike, warmup_steps: int, num_steps: int) -> jax.Array:
    """From 0 at the end of the warm-up to 1 at the last step."""
    steps = max(1, num_steps - 1 - warmup_steps)
    return jnp.clip((jnp.asarray(step) - warmup_steps) / steps, 0.0, 1.0)


def _remaining(step: ArrayLike, fraction: float, num_steps: int) -> jax.Array:
    """1 until the last `fraction` of all steps, then down to 0 at the last one."""
    steps = max(1.0, fraction * num_steps)
    return jnp.clip((num_steps - 1 - jnp.asarray(step)) / steps, 0.0, 1.0)


_SHAPES = {
    CosineConfig: _cosine,
    LinearConfig: _linear,
    WarmupStableDecayConfig: _warmup_stable_decay,
    InverseSquareRootConfig: _inverse_square_root,
}
