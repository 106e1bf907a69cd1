"""Which mesh axes cut which logical axis of an array: rules, and the strict resolver.

Modules name the logical axes of their parameters and activations; the rules map each name to
mesh axes; the resolver turns (rules, logical axes, mesh) into the mesh axes per dimension. Pure
data: the planner counts bytes with it, the model and the train step make `PartitionSpec`s of it.

The resolver raises where Flax's own would silently replicate: an unknown logical axis, two
dimensions cut by one mesh axis, a rank that does not match, a mesh axis that is not in the mesh,
a dimension that does not divide.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.errors import InputError

MeshAxes = tuple[str, ...]
MESH_AXES = ("replica", "data", "fsdp", "expert", "sequence", "tensor")
"""In mesh order: neighbours along `tensor` are nearest, along `replica` farthest."""


@dataclass(frozen=True, kw_only=True)
class ShardingRules:
    """Logical axis -> mesh axes that cut it; an empty tuple leaves the axis whole.

    Parameters use: vocab, embed (model width), heads, kv_heads, head_dim, mlp, layers, experts,
    router (a router's outputs), norm (vectors of the model's width: scales and biases), positions
    (rows of a position table), buckets (of a relative bias), token_types. Activations use: batch,
    length, residual_length (of what layers add to: cutting it by `tensor` too turns each all-reduce
    of tensor parallelism into a reduce-scatter and an all-gather, and keeps less; Korthikanti et
    al. 2022, arXiv 2205.05198), activation_embed, heads, kv_heads, head_dim, mlp, vocab.
    """

    batch: MeshAxes = ("replica", "data", "fsdp", "expert")
    length: MeshAxes = ("sequence",)
    residual_length: MeshAxes = ("sequence",)
    activation_embed: MeshAxes = ()
    embed: MeshAxes = ("fsdp", "sequence")
    vocab: MeshAxes = ("tensor",)
    heads: MeshAxes = ("tensor",)
    kv_heads: MeshAxes = ("tensor",)
    head_dim: MeshAxes = ()
    mlp: MeshAxes = ("tensor",)
    layers: MeshAxes = ()
    experts: MeshAxes = ("expert",)
    router: MeshAxes = ()
    norm: MeshAxes = ()
    positions: MeshAxes = ()
    buckets: MeshAxes = ()
    token_types: MeshAxes = ()

    def axes(self, logical: str) -> MeshAxes:
        """Mesh axes that cut `logical`. Raises InputError on a name the rules do not have."""
        if logical not in self.__dataclass_fields__:
            raise InputError(
                f"mesh.rules: got logical axis {logical!r}, "
                f"expected one of {', '.join(self.__dataclass_fields__)}"
            )
        return getattr(self, logical)

    def shards(self, logical: str, axis_sizes: Mapping[str, int]) -> int:
        """Into how many pieces a mesh with `axis_sizes` cuts the logical axis."""
        return math.prod(_size(axis, axis_sizes) for axis in self.axes(logical))


DEFAULT_RULES = ShardingRules()


def resolve(
    rules: ShardingRules,
    logical_axes: Sequence[str | None],
    shape: Sequence[int],
    axis_sizes: Mapping[str, int],
) -> tuple[MeshAxes, ...]:
    """Mesh axes that cut each dimension of an array.

    Args:
      rules: logical axis -> mesh axes.
      logical_axes: one name per dimension; None leaves the dimension whole.
      shape: the array's global shape.
      axis_sizes: mesh axis -> number of devices; what `MeshConfig.axis_sizes` gives.

    Returns:
      One tuple of mesh axes per dimension, () where the dimension is whole.

    Raises:
      InputError: unknown logical axis, mesh axis not in the mesh, one mesh axis cutting two
        dimensions, rank mismatch, or a dimension the mesh axes do not divide.
    """
    if len(logical_axes) != len(shape):
        raise InputError(
            f"sharding: got {len(logical_axes)} logical axes {tuple(logical_axes)} for shape "
            f"{tuple(shape)}, expected one per dimension"
        )
    used: dict[str, str] = {}
    resolved = []
    for logical, size in zip(logical_axes, shape, strict=True):
        mesh_axes = () if logical is None else rules.axes(logical)
        for axis in mesh_axes:
            if axis in used:
                raise InputError(
                    f"mesh.rules.{logical}: got mesh axis {axis!r}, which already cuts "
                    f"{used[axis]!r} of the same array {tuple(logical_axes)}; expected another"
                )
            used[axis] = str(logical)
        shards = math.prod(_size(axis, axis_sizes) for axis in mesh_axes)
        if size % shards:
            raise InputError(
                f"mesh.rules.{logical}: got {shards} shards for a dimension of {size}, "
                f"expected a divisor of {size}"
            )
        resolved.append(tuple(mesh_axes))
    return tuple(resolved)


def _size(axis: str, axis_sizes: Mapping[str, int]) -> int:
    if axis not in axis_sizes:
        raise InputError(
            f"mesh.rules: got mesh axis {axis!r}, expected one of {', '.join(axis_sizes)}"
        )
    return axis_sizes[axis]
