"""Sharding constraints on activations, and shardings of parameters, by the rules of the config.

Both go through the strict resolver of `configs.sharding`, so a misspelt logical axis, a wrong
rank or a dimension that does not divide raises on any platform, a laptop's CPU included.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from configs.sharding import DEFAULT_RULES, MESH_AXES, MeshAxes, ShardingRules, resolve


def named_sharding(
    mesh: Mesh, rules: ShardingRules, logical_axes: Sequence[str | None], shape: Sequence[int]
) -> NamedSharding:
    """Sharding of an array of `shape` whose dimensions are named by `logical_axes`.

    Raises:
      InputError: what `configs.sharding.resolve` refuses.
    """
    cut = cut_by(mesh, rules, logical_axes, shape)
    return NamedSharding(mesh, PartitionSpec(*(axes or None for axes in cut)))


def cut_by(
    mesh: Mesh, rules: ShardingRules, logical_axes: Sequence[str | None], shape: Sequence[int]
) -> tuple[MeshAxes, ...]:
    """Mesh axes of more than one device that cut each dimension; those of one cut nothing.

    Raises:
      InputError: what `configs.sharding.resolve` refuses.
    """
    sizes = dict(mesh.shape)
    resolved = resolve(rules, logical_axes, shape, sizes)
    return tuple(tuple(axis for axis in axes if sizes[axis] > 1) for axes in resolved)


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

    def cut_by(self, logical_axes: Sequence[str], shape: Sequence[int]) -> tuple[MeshAxes, ...]:
        """Mesh axes of more than one device that cut each dimension; without a mesh none."""
        if self.mesh is None:
            return ((),) * len(shape)
        return cut_by(self.mesh, self.rules, logical_axes, shape)

    def num_devices(self, axes: MeshAxes) -> int:
        """How many devices lie along these mesh axes together."""
        return 1 if self.mesh is None else math.prod(self.mesh.shape[axis] for axis in axes)

    @property
    def cuts_length(self) -> bool:
        """Whether rows are cut along their length."""
        return self.mesh is not None and self.rules.shards("length", dict(self.mesh.shape)) > 1

    def gathered(self, kernel: jax.Array, *logical_axes: str | None) -> jax.Array:
        """A kernel as products take it: whole along the model width, which only storage cuts.

        In its compute dtype it is gathered at half the bytes. Its gradient is summed straight into
        pieces, cut as the kernel is stored.
        """
        if self.mesh is None:
            return kernel
        stored = named_sharding(self.mesh, self.rules, logical_axes, kernel.shape)
        at_use = tuple(None if axis == "embed" else axis for axis in logical_axes)
        return _gathered(
            stored, named_sharding(self.mesh, self.rules, at_use, kernel.shape), kernel
        )

    def __call__(self, x: jax.Array, *logical_axes: str | None) -> jax.Array:
        if self.mesh is None:
            whole: dict[str, int] = dict.fromkeys(MESH_AXES, 1)
            resolve(self.rules, logical_axes, x.shape, whole)
            return x
        sharding = named_sharding(self.mesh, self.rules, logical_axes, x.shape)
        return jax.lax.with_sharding_constraint(x, sharding)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gathered(stored: NamedSharding, at_use: NamedSharding, kernel: jax.Array) -> jax.Array:
    # Before and after: otherwise the compiler may gather first and convert later.
    kernel = jax.lax.with_sharding_constraint(kernel, stored)
    return jax.lax.with_sharding_constraint(kernel, at_use)


def _gathered_forward(
    stored: NamedSharding, at_use: NamedSharding, kernel: jax.Array
) -> tuple[jax.Array, None]:
    return _gathered(stored, at_use, kernel), None


def _gathered_backward(
    stored: NamedSharding, at_use: NamedSharding, _: None, gradient: jax.Array
) -> tuple[jax.Array]:
    del at_use
    return (jax.lax.with_sharding_constraint(gradient, stored),)


_gathered.defvjp(_gathered_forward, _gathered_backward)

UNCONSTRAINED = Constrain()
