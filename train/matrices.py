"""Which axes of a parameter number its matrices, which go in, which come out.

Parameters of all layers are one array with a leading axis, those of a mixture's experts have
another after it. An optimizer that looks at a parameter as a matrix has to look at one layer's, or
one expert's, at a time; attention's heads and head_dim are one side of it together.
"""

from typing import Any, NamedTuple


class MatrixAxes(NamedTuple):
    """Axes of a parameter, in order: all of them together.

    stacked: number its layers and experts. inputs, outputs: the sides of each matrix; of a vector
    (a norm's scale, a bias) all that are not stacked are outputs.
    """

    stacked: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def matrix_axes(path: tuple[Any, ...], ndim: int) -> MatrixAxes:
    """The axes of the parameter at `path` (keys of a pytree) with `ndim` axes."""
    names = names_of(path)
    first = ("layers" in names) + ("experts" in names)
    num_inputs = 1
    if names[-1] in ("scale", "bias"):
        num_inputs = 0
    elif "layers" in names and names[-2] == "out":  # attention's output contracts (H, C)
        num_inputs = 2
    axes = tuple(range(ndim))
    return MatrixAxes(axes[:first], axes[first : first + num_inputs], axes[first + num_inputs :])


def names_of(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The names in a path of dictionary keys."""
    return tuple(part.key for part in path)
