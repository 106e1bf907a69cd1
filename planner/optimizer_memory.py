"""What each optimizer remembers of a run's parameters, counted without building any of it."""

import math
from collections.abc import Mapping

from configs.optimizer_config import (
    AdafactorConfig,
    AdamWConfig,
    LionConfig,
    MuonConfig,
    OptimizerConfig,
    SGDConfig,
)
from configs.schema import RunConfig
from configs.sharding import ShardingRules, resolve
from planner.parameters import ParameterSpec, parameters


def state_elements(config: RunConfig) -> int:
    """fp32 scalars of optimizer state that one device holds: 4 bytes each.

    AdamW two for every parameter. Muon one for its matrices, two for the rest. Lion one. SGD one,
    without momentum none. Adafactor one for every row and one for every column of a matrix large
    enough to be factored, one for every scalar of the rest; with momentum one more of each
    parameter. All are cut over the mesh as their parameters are, along the axes they have.

    Exact but for counters of steps and Muon's coefficients, a few bytes together.

    Raises:
      InputError: what `configs.sharding.resolve` refuses.
    """
    rules, sizes = config.mesh.rules, config.mesh.axis_sizes
    return sum(
        _held(config.optimizer, spec, _pieces(spec, rules, sizes))
        for spec in parameters(config.model)
    )


def _held(optimizer: OptimizerConfig, spec: ParameterSpec, shape: tuple[int, ...]) -> int:
    """Scalars remembered of one device's piece, of shape `shape`, of a parameter."""
    size = math.prod(shape)
    match optimizer:
        case AdamWConfig():
            return 2 * size
        case MuonConfig():
            return size if spec.is_muons else 2 * size
        case LionConfig():
            return size
        case SGDConfig():
            return size if optimizer.momentum else 0
        case AdafactorConfig():
            averaged = size if optimizer.momentum else 0
            return averaged + _second_moments(optimizer, spec, shape)


def _second_moments(optimizer: AdafactorConfig, spec: ParameterSpec, shape: tuple[int, ...]) -> int:
    """Adafactor's of one piece: rows and columns of each layer's matrix, or one for each scalar."""
    first = sum(axis in ("layers", "experts") for axis in spec.logical_axes)
    split = first + (2 if spec.is_layer_kernel and spec.path[-2] == "out" else 1)
    sides = math.prod(spec.shape[first:split]), math.prod(spec.shape[split:])
    if not spec.is_matrix or min(sides) < optimizer.min_factored_dim:
        return math.prod(shape)
    rows, columns = math.prod(shape[first:split]), math.prod(shape[split:])
    return math.prod(shape[:first]) * (rows + columns)


def _pieces(spec: ParameterSpec, rules: ShardingRules, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of one device's piece of a parameter."""
    axes = resolve(rules, spec.logical_axes, spec.shape, sizes)
    cuts = (math.prod(sizes[axis] for axis in dimension) for dimension in axes)
    return tuple(n // cut for n, cut in zip(spec.shape, cuts, strict=True))
