"""Optimizers, as optax transformations, from their sub-configs."""

from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from configs.optimizer_config import AdamWConfig, MuonConfig, OptimizerConfig
from train.schedules import make_schedule


def make_optimizer(
    config: OptimizerConfig,
    num_steps: int,
    rate_multipliers: Any = None,
    step_multipliers: Any = None,
) -> optax.GradientTransformation:
    """Clip to the global norm, the optimizer's own step, decoupled weight decay, learning rate.

    Args:
      rate_multipliers: a factor on Adam's step of each parameter, a tree like theirs; None for
        none. Muon's steps, scaled to each matrix's shape already, are left as they are.
      step_multipliers: a factor on whichever optimizer's step of each parameter; None for none.
    """
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    steps = [clip, _OPTIMIZERS[type(config)](config, num_steps)]
    if rate_multipliers is not None:
        if isinstance(config, MuonConfig):
            rate_multipliers = jax.tree_util.tree_map_with_path(
                lambda path, m: 1.0 if _is_muons(path) else m, rate_multipliers
            )
        steps.append(_multiplied(rate_multipliers))
    if step_multipliers is not None:
        steps.append(_multiplied(step_multipliers))
    return optax.chain(*steps)


def _multiplied(factors: Any) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u, m: u * m, updates, factors))


def decay_mask(params: Any) -> Any:
    """True for the leaves that weight decay applies to: all but scales and biases."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in ("scale", "bias"), params
    )


def muon_dimensions(params: Any) -> Any:
    """Which axes of each leaf Muon contracts and produces; None for what AdamW takes.

    Axis 0 of a layer's kernel numbers the layers, axis 1 of an expert's the experts: each layer's
    and expert's matrix is orthogonalised alone, heads and head_dim together.
    """

    def dimensions(path: tuple[Any, ...], leaf: Any) -> MuonDimensionNumbers | None:
        if not _is_muons(path):
            return None
        names = [part.key for part in path]
        first = 2 if "experts" in names else 1
        inputs = 2 if names[-2] == "out" else 1  # attention's output projection contracts (H, C)
        return MuonDimensionNumbers(
            tuple(range(first, first + inputs)), tuple(range(first + inputs, leaf.ndim))
        )

    return jax.tree_util.tree_map_with_path(dimensions, params)


def _is_muons(path: tuple[Any, ...]) -> bool:
    names = [part.key for part in path]
    return "layers" in names and names[-1] == "kernel" and names[-2] != "router"


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
