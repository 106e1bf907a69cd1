"""Sharding constraints on activations, and shardings of parameters, by the rules of the config.

Both go through the strict resolver of `configs.sharding`, so a misspelt logical axis, a wrong
rank or a dimension that does not divide raises on any platform, a laptop's CPU included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from configs.sharding import DEFAULT_RULES, MESH_AXES, ShardingRules, resolve


def named_sharding(
    mesh: Mesh, rules: ShardingRules, logical_axes: Sequence[str | None], shape: Sequence[int]
) -> NamedSharding:
    """Sharding of an array of `shape` whose dimensions are named by `logical_axes`.

    Mesh axes of one device cut nothing and are left out.

    Raises:
      InputError: what `configs.sharding.resolve` refuses.
    """
    sizes = dict(mesh.shape)
    resolved = resolve(rules, logical_axes, shape, sizes)
    cut = (tuple(axis for axis in axes if sizes[axis] > 1) for axes in resolved)
    return NamedSharding(mesh, PartitionSpec(*(axes or None for axes in cut)))


@dataclass(frozen=True)
class Constrain:
    """`constrain(x, "batch", "length", ...)` pins how an activation is cut over the mesh.

    Without a mesh (one device: inference, tests) values pass through, but the names and the rank
    are still checked.
    """

    mesh: Mesh | None = None
    rules: ShardingRules = DEFAULT_RULES

    @property
    def platform(self) -> str:
        """What the program is for: "cpu", "gpu" or "tpu"."""
        if self.mesh is None:
            return jax.default_backend()
        platform = self.mesh.devices.flat[0].platform
        return "gpu" if platform in ("cuda", "rocm") else platform

    def __call__(self, x: jax.Array, *logical_axes: str | None) -> jax.Array:
        if self.mesh is None:
            whole: dict[str, int] = dict.fromkeys(MESH_AXES, 1)
            resolve(self.rules, logical_axes, x.shape, whole)
            return x
        sharding = named_sharding(self.mesh, self.rules, logical_axes, x.shape)
        return jax.lax.with_sharding_constraint(x, sharding)


UNCONSTRAINED = Constrain()
