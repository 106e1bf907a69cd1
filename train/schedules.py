"""Learning rate as a function of the step."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from configs.optimizer_config import CosineConfig, ScheduleConfig, WarmupStableDecayConfig


def make_schedule(config: ScheduleConfig, peak: float, num_steps: int) -> optax.Schedule:
    """The schedule for a sub-config: step (from 0) -> learning rate, fp32.

    Warm-up goes linearly from peak/(warmup_steps+1) to the peak, so that no step is wasted on a
    learning rate of 0; the last of `num_steps` steps runs at `final_fraction` of the peak.
    """
    return _SHAPES[type(config)](config, peak, num_steps)


def _cosine(config: CosineConfig, peak: float, num_steps: int) -> optax.Schedule:
    warmup, final = config.warmup_steps, config.final_fraction

    def schedule(step: ArrayLike) -> jax.Array:
        progress = jnp.clip((jnp.asarray(step) - warmup) / max(1, num_steps - 1 - warmup), 0.0, 1.0)
        decayed = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return peak * jnp.minimum(_warm_up(step, warmup), decayed)

    return schedule


def _warmup_stable_decay(
    config: WarmupStableDecayConfig, peak: float, num_steps: int
) -> optax.Schedule:
    decay_steps = max(1.0, config.decay_fraction * num_steps)

    def schedule(step: ArrayLike) -> jax.Array:
        remaining = jnp.clip((num_steps - 1 - jnp.asarray(step)) / decay_steps, 0.0, 1.0)
        decayed = config.final_fraction + (1 - config.final_fraction) * remaining
        return peak * jnp.minimum(_warm_up(step, config.warmup_steps), decayed)

    return schedule


def _warm_up(step: ArrayLike, warmup_steps: int) -> jax.Array:
    return jnp.minimum(1.0, (jnp.asarray(step) + 1) / (warmup_steps + 1))


_SHAPES = {CosineConfig: _cosine, WarmupStableDecayConfig: _warmup_stable_decay}
