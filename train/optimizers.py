"""Optimizers, as optax transformations, from their sub-configs."""

from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from configs.optimizer_config import AdamWConfig, MuonConfig, OptimizerConfig
from train.schedules import make_schedule


def make_optimizer(config: OptimizerConfig, num_steps: int) -> optax.GradientTransformation:
    """Clip to the global norm, the optimizer's own step, decoupled weight decay, learning rate."""
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, _OPTIMIZERS[type(config)](config, num_steps))


def decay_mask(params: Any) -> Any:
    """True for the leaves that weight decay applies to: all but the norms' scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key != "scale", params)


def muon_dimensions(params: Any) -> Any:
    """Which axes of each leaf Muon contracts and produces; None for what AdamW takes.

    Axis 0 of a layer's kernel numbers the layers: each layer's matrix is orthogonalised alone,
    heads and head_dim together.
    """

    def dimensions(path: tuple[Any, ...], leaf: Any) -> MuonDimensionNumbers | None:
        names = [part.key for part in path]
        if "layers" not in names or names[-1] != "kernel":
            return None
        inputs = 2 if names[-2] == "out" else 1  # attention's output projection contracts (H, C)
        return MuonDimensionNumbers(
            tuple(range(1, 1 + inputs)), tuple(range(1 + inputs, leaf.ndim))
        )

    return jax.tree_util.tree_map_with_path(dimensions, params)


def _adamw(config: AdamWConfig, num_steps: int) -> optax.GradientTransformation:
    return optax.adamw(
        make_schedule(config.schedule, config.learning_rate, num_steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )


def _muon(config: MuonConfig, num_steps: int) -> optax.GradientTransformation:
    return muon(
        make_schedule(config.schedule, config.learning_rate, num_steps),
        beta=config.momentum,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        adam_b1=config.b1,
        adam_b2=config.b2,
        adam_learning_rate=make_schedule(config.schedule, config.adam_learning_rate, num_steps),
        muon_weight_dimension_numbers=muon_dimensions,
    )


_OPTIMIZERS = {AdamWConfig: _adamw, MuonConfig: _muon}
