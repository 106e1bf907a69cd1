"""Adafactor's step on stacked parameters (Shazeer and Stern 2018, arXiv 1804.04235).

Optax's own factors over the two largest axes of an array and takes root mean squares over all of
it. Here an array holds the matrices of all layers and experts, heads and head_dim apart: each
matrix is factored, clipped and scaled alone, as if it were a parameter of its own.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from configs.optimizer_config import AdafactorConfig
from train.matrices import MatrixAxes, matrix_axes


class AdafactorState(NamedTuple):
    """Steps done (int32 scalar) and second moments, fp32, in trees like the parameters'.

    rows: means over the outputs, columns: over the inputs, of those that are factored; whole: of
    the others; `optax.MaskedNode` where there is none. An axis that was averaged stays, of size 1:
    so each moment is cut over a mesh as its parameter is.
    """

    count: Any
    rows: Any
    columns: Any
    whole: Any


class _Step(NamedTuple):
    """Of one parameter."""

    update: Any
    rows: Any
    columns: Any
    whole: Any


def scale_by_adafactor(config: AdafactorConfig) -> optax.GradientTransformation:
    """Gradients to steps: divided by the root of their second moments, clipped, relative.

    Algorithm 4 for matrices, 5 for vectors, without the learning rate: a step's root mean square is
    at most `clipping_threshold` times its parameter's.
    """

    def init(params: optax.Params) -> AdafactorState:
        def zeros(field: str) -> Any:
            def of_leaf(path: tuple[Any, ...], param: Any) -> Any:
                shape = getattr(_moment_shapes(config, path, param.shape), field)
                return optax.MaskedNode() if shape is None else jnp.zeros(shape, jnp.float32)

            return jax.tree_util.tree_map_with_path(of_leaf, params)

        return AdafactorState(
            jnp.zeros((), jnp.int32), zeros("rows"), zeros("columns"), zeros("whole")
        )

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AdafactorState]:
        assert isinstance(state, AdafactorState) and params is not None
        decay = 1.0 - (state.count + 1.0) ** -config.decay_exponent

        def of_leaf(path: tuple[Any, ...], *leaves: Any) -> _Step:
            return _step(config, matrix_axes(path, leaves[0].ndim), decay, *leaves)

        steps = jax.tree_util.tree_map_with_path(
            of_leaf, updates, params, state.rows, state.columns, state.whole
        )

        def of_all(field: str) -> Any:
            return jax.tree.map(
                lambda step: getattr(step, field), steps, is_leaf=lambda x: isinstance(x, _Step)
            )

        count = optax.safe_increment(state.count)
        return of_all("update"), AdafactorState(
            count, of_all("rows"), of_all("columns"), of_all("whole")
        )

    return optax.GradientTransformation(init, update)


class _MomentShapes(NamedTuple):
    rows: tuple[int, ...] | None
    columns: tuple[int, ...] | None
    whole: tuple[int, ...] | None


def _moment_shapes(
    config: AdafactorConfig, path: tuple[Any, ...], shape: tuple[int, ...]
) -> _MomentShapes:
    axes = matrix_axes(path, len(shape))
    sides = (math.prod(shape[i] for i in side) for side in (axes.inputs, axes.outputs))
    if not axes.inputs or min(sides) < config.min_factored_dim:
        return _MomentShapes(None, None, shape)
    return _MomentShapes(
        tuple(1 if i in axes.outputs else n for i, n in enumerate(shape)),
        tuple(1 if i in axes.inputs else n for i, n in enumerate(shape)),
        None,
    )


def _step(
    config: AdafactorConfig,
    axes: MatrixAxes,
    decay: jax.Array,
    gradient: jax.Array,
    param: jax.Array,
    rows: Any,
    columns: Any,
    whole: Any,
) -> _Step:
    """One parameter's step and its next moments."""

    def averaged(moment: jax.Array, new: jax.Array) -> jax.Array:
        return decay * moment + (1.0 - decay) * new

    squared = jnp.square(gradient) + config.epsilon
    if isinstance(whole, optax.MaskedNode):
        rows = averaged(rows, jnp.mean(squared, axes.outputs, keepdims=True))
        columns = averaged(columns, jnp.mean(squared, axes.inputs, keepdims=True))
        # The product of both over the mean of all: the paper's equation 4, which is of sums.
        of_row = jax.lax.rsqrt(rows / jnp.mean(rows, axes.inputs, keepdims=True))
        update = gradient * of_row * jax.lax.rsqrt(columns)
    else:
        whole = averaged(whole, squared)
        update = gradient * jax.lax.rsqrt(whole)
    matrix = (*axes.inputs, *axes.outputs)
    if config.clipping_threshold:
        excess = _root_mean_square(update, matrix) / config.clipping_threshold
        update = update / jnp.maximum(1.0, excess)
    scale = jnp.maximum(config.min_scale, _root_mean_square(param, matrix))
    return _Step(update * scale, rows, columns, whole)


def _root_mean_square(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x), axes, keepdims=True))
