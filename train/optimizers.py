"""Optimizers, as optax transformations, from their sub-configs."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from configs.optimizer_config import (
    AdafactorConfig,
    AdamWConfig,
    LionConfig,
    MuonConfig,
    OptimizerConfig,
    SGDConfig,
)
from train.adafactor import scale_by_adafactor
from train.matrices import matrix_axes, names_of
from train.schedules import make_schedule


def make_optimizer(
    config: OptimizerConfig,
    num_steps: int,
    rate_multipliers: Any = None,
    step_multipliers: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip to the global norm, the optimizer's own step, decoupled weight decay, learning rate.

    Its `update` takes `grad_norm`, the gradient's global norm, where that is known already.

    Args:
      rate_multipliers: muP's factor on Adam's learning rate of each parameter, a tree like theirs;
        None for none. What follows from it for the other optimizers: `_rates_of`.
      step_multipliers: a factor on the steps of each parameter for an optimizer whose steps have a
        size of their own; None for none. For the others: `_steps_of`.
    """
    clip = _clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    steps = [clip, _OPTIMIZERS[type(config)](config, num_steps)]
    if rate_multipliers is not None:
        steps.append(_multiplied(_rates_of(config, rate_multipliers)))
    if step_multipliers is not None:
        steps.append(_multiplied(_steps_of(config, step_multipliers)))
    return optax.with_extra_args_support(optax.chain(*steps))


def _clip_by_global_norm(max_norm: float) -> optax.GradientTransformationExtraArgs:
    """`optax.clip_by_global_norm`, which does not compute again a norm that it is told."""

    def update(
        updates: Any, state: Any, params: Any = None, *, grad_norm: Any = None, **_: Any
    ) -> tuple[Any, Any]:
        del params
        norm = optax.tree.norm(updates) if grad_norm is None else grad_norm
        clipped = jax.tree.map(
            lambda u: jnp.where(norm < max_norm, u, u / norm.astype(u.dtype) * max_norm), updates
        )
        return clipped, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _rates_of(config: OptimizerConfig, adams: Any) -> Any:
    """muP's factors on an optimizer's learning rate, from those on Adam's.

    They follow from how an optimizer's step scales with the width (Yang et al. 2022, arXiv
    2203.03466, appendix J and table 8).

    - AdamW, Lion: every entry steps by about the learning rate.
    - Muon: its matrices' steps are scaled to their shapes already; AdamW's of the rest are Adam's.
    - Adafactor: a step is relative to its parameter, and a hidden kernel's entries begin with
      1/sqrt(m) of the base model's size: of Adam's 1/m the other 1/sqrt(m) is left to be applied.
      What has a factor of 1 begins with the same size at any width.
    - SGD: a step is the gradient, whose entries shrink by 1/m wherever a parameter's effect is
      spread over the width: m times Adam's factor (table 8's column for SGD). Not so for what has
      no axis as wide as the model (biases of the logits, scales of query and key norms), nor for
      a router, whose outputs are few and not divided by the width.
    """
    match config:
        case MuonConfig():
            return jax.tree_util.tree_map_with_path(
                lambda path, factor: 1.0 if _is_muons(path) else factor, adams
            )
        case AdafactorConfig():
            return jax.tree.map(math.sqrt, adams)
        case SGDConfig():
            width = 1 / min(jax.tree.leaves(adams))
            return jax.tree_util.tree_map_with_path(
                lambda path, factor: width * factor if _is_spread(path) else factor, adams
            )
        case _:
            return adams


def _steps_of(config: OptimizerConfig, factors: Any) -> Any:
    """Factors on an optimizer's steps of parameters that hold a constant of the forward pass.

    A parameter that is c times what it would be elsewhere takes c times the step. Adafactor's steps
    are relative: they are c times as large already. SGD's gradient is 1/c of what it would be, so
    its steps need the factor twice.
    """
    match config:
        case AdafactorConfig():
            return jax.tree.map(lambda _: 1.0, factors)
        case SGDConfig():
            return jax.tree.map(lambda factor: factor**2, factors)
        case _:
            return factors


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
        axes = matrix_axes(path, leaf.ndim)
        return MuonDimensionNumbers(axes.inputs, axes.outputs) if _is_muons(path) else None

    return jax.tree_util.tree_map_with_path(dimensions, params)


def _is_muons(path: tuple[Any, ...]) -> bool:
    names = names_of(path)
    return "layers" in names and names[-1] == "kernel" and names[-2] != "router"


def _is_spread(path: tuple[Any, ...]) -> bool:
    """Whether a parameter's effect is spread over the model's width, so that gradients are thin."""
    names = names_of(path)
    of_logits = names[0] == "head" and names[-1] == "bias" and names[-2] in ("head", "out")
    return not of_logits and names[-2] not in ("router", "query_norm", "key_norm")


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


def _adafactor(config: AdafactorConfig, num_steps: int) -> optax.GradientTransformation:
    return optax.chain(
        scale_by_adafactor(config),
        optax.ema(config.momentum, debias=False) if config.momentum else optax.identity(),
        *_decayed(config, num_steps),
    )


def _lion(config: LionConfig, num_steps: int) -> optax.GradientTransformation:
    return optax.lion(
        make_schedule(config.schedule, config.learning_rate, num_steps),
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )


def _sgd(config: SGDConfig, num_steps: int) -> optax.GradientTransformation:
    return optax.chain(
        optax.trace(config.momentum, config.nesterov) if config.momentum else optax.identity(),
        *_decayed(config, num_steps),
    )


def _decayed(
    config: AdafactorConfig | SGDConfig, num_steps: int
) -> tuple[optax.GradientTransformation, ...]:
    """Decoupled weight decay, then minus the learning rate."""
    return (
        optax.add_decayed_weights(config.weight_decay, decay_mask),
        optax.scale_by_learning_rate(
            make_schedule(config.schedule, config.learning_rate, num_steps)
        ),
    )


_OPTIMIZERS = {
    AdamWConfig: _adamw,
    MuonConfig: _muon,
    AdafactorConfig: _adafactor,
    LionConfig: _lion,
    SGDConfig: _sgd,
}
