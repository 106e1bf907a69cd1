"""Experts spread over a mesh: every device computes the choices that go to its own experts.

Tokens are cut over the mesh axes of batch and length. Those axes that also cut the experts gather
tokens on entry, and add up and scatter their outputs on exit; kernels are gathered over the axes
that cut their width (fsdp) and stay cut over those of the MLP (tensor), whose partial sums are
added up. The losses are none of this file's business: they are computed on the whole batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from configs.errors import require
from configs.sharding import MeshAxes, ShardingRules
from model.constrain import Constrain, cut_by

# (x_TD, expert_Tk, gate_Tk, kernels, platform, manual mesh axes) -> y_TD; kernels is a NamedTuple
# of gate [E, D, F], up [E, D, F], down [E, F, D], and choices from E on are not to be computed.
Compute = Callable[[jax.Array, jax.Array, jax.Array, Any, str, MeshAxes], jax.Array]


class ExpertAxes(NamedTuple):
    """Mesh axes of more than one device, by what they cut."""

    batch: MeshAxes
    length: MeshAxes
    experts: MeshAxes
    embed: MeshAxes
    mlp: MeshAxes

    @property
    def tokens(self) -> MeshAxes:
        return self.batch + self.length

    @property
    def all(self) -> MeshAxes:
        return _union(self.tokens, self.experts, self.mlp)


def share_experts(
    compute: Compute,
    constrain: Constrain,
    x_BLD: Float[Array, "B L D"],
    expert_BLk: Int[Array, "B L k"],
    gate_BLk: Float[Array, "B L k"],
    kernels: Any,
) -> Float[Array, "B L D"]:
    """`compute` on all tokens, wherever they and the experts are.

    Raises:
      InputError: rules under which it would be wrong or wasted: `expert_axes`.
    """
    mesh = constrain.mesh
    axes = ExpertAxes((), (), (), (), ())
    if mesh is not None:
        axes = expert_axes(constrain.rules, mesh, x_BLD.shape[:2], kernels.up_EDF.shape)

    def on_device(x_BLD: jax.Array, expert_BLk: jax.Array, gate_BLk: jax.Array, kernels: Any):
        B, L, D = x_BLD.shape
        tokens = [jnp.reshape(a, (B * L, a.shape[-1])) for a in (x_BLD, expert_BLk, gate_BLk)]
        gathered = _within(axes.experts, axes.tokens)
        x_TD, expert_Tk, gate_Tk = (
            _vary(_gather(a, gathered, 0), _without(axes.all, axes.tokens)) for a in tokens
        )
        if axes.experts:
            first = jax.lax.axis_index(axes.experts) * len(kernels.up_EDF)
            # Experts of other devices: one past the last, whatever their number here.
            is_own_Tk = (expert_Tk >= first) & (expert_Tk < first + len(kernels.up_EDF))
            expert_Tk = jnp.where(is_own_Tk, expert_Tk - first, len(kernels.up_EDF))
        of_kernels = _union(axes.experts, axes.embed, axes.mlp)
        kernels = type(kernels)(
            *(
                _vary(_gather(kernel, axes.embed, dimension), _without(axes.all, of_kernels))
                for kernel, dimension in zip(kernels, (1, 1, 2), strict=True)
            )
        )
        y_TD = compute(x_TD, expert_Tk, gate_Tk, kernels, constrain.platform, axes.all)
        partial_sums = _union(axes.mlp, _without(axes.experts, axes.tokens))
        if partial_sums:
            y_TD = jax.lax.psum(y_TD, partial_sums)
        if gathered:
            y_TD = jax.lax.psum_scatter(y_TD, gathered, scatter_dimension=0, tiled=True)
        return jnp.reshape(y_TD, (B, L, D))

    if not axes.all:
        return on_device(x_BLD, expert_BLk, gate_BLk, kernels)
    of_tokens = _spec(axes.batch, axes.length, ())
    wide = _spec(axes.experts, axes.embed, axes.mlp)
    narrow = _spec(axes.experts, axes.mlp, axes.embed)
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(of_tokens, of_tokens, of_tokens, type(kernels)(wide, wide, narrow)),
        out_specs=of_tokens,
    )(x_BLD, expert_BLk, gate_BLk, kernels)


def expert_axes(
    rules: ShardingRules, mesh: Mesh, places: Sequence[int], kernel_shape: Sequence[int]
) -> ExpertAxes:
    """Which mesh axes cut what, checked.

    Args:
      places: B, L.
      kernel_shape: E, D, F.

    Raises:
      InputError: what `resolve` refuses; an axis that cuts a kernel's width but no tokens (its
        devices would all compute the same); one that cuts both the MLP and tokens (its partial
        sums would be of different tokens).
    """
    axes = ExpertAxes(
        *cut_by(mesh, rules, ("batch", "length"), places),
        *cut_by(mesh, rules, ("experts", "embed", "mlp"), kernel_shape),
    )
    require(
        not _without(axes.embed, axes.tokens),
        "mesh.rules.embed",
        axes.embed,
        f"axes that cut batch or length too ({', '.join(axes.tokens) or 'none does'}), "
        "for a mixture of experts without capacity",
    )
    require(
        not _within(axes.mlp, axes.tokens),
        "mesh.rules.mlp",
        axes.mlp,
        "axes that cut neither batch nor length, for a mixture of experts without capacity",
    )
    return axes


def _gather(x: jax.Array, axes: MeshAxes, dimension: int) -> jax.Array:
    return jax.lax.all_gather(x, axes, axis=dimension, tiled=True) if axes else x


def _vary(x: jax.Array, axes: MeshAxes) -> jax.Array:
    """`x`, equal along `axes`, marked as if it differed: its gradient is summed over them."""
    return jax.lax.pcast(x, axes, to="varying") if axes else x


def _spec(*axes: MeshAxes) -> PartitionSpec:
    return PartitionSpec(*(of or None for of in axes))


def _union(*groups: MeshAxes) -> MeshAxes:
    return tuple(dict.fromkeys(axis for axes in groups for axis in axes))


def _within(axes: MeshAxes, others: MeshAxes) -> MeshAxes:
    return tuple(axis for axis in axes if axis in others)


def _without(axes: MeshAxes, others: MeshAxes) -> MeshAxes:
    return tuple(axis for axis in axes if axis not in others)
