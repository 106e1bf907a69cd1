"""Optimizers, as optax transformations, from their sub-configs."""

import jax
import optax

from configs.schema import AdamWConfig
from train.schedules import make_schedule


def make_optimizer(config: AdamWConfig, num_steps: int) -> optax.GradientTransformation:
    """Clip to the global norm, Adam's update, decoupled weight decay, learning rate."""
    return _OPTIMIZERS[type(config)](config, num_steps)


def _adamw(config: AdamWConfig, num_steps: int) -> optax.GradientTransformation:
    schedule = make_schedule(config.schedule, config.learning_rate, num_steps)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(
        clip,
        optax.adamw(
            schedule,
            b1=config.b1,
            b2=config.b2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=decay_mask,
        ),
    )


def decay_mask(params: object) -> object:
    """True for the leaves that weight decay applies to: all but the norms' scales."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) != "scale", params
    )


_OPTIMIZERS = {AdamWConfig: _adamw}
