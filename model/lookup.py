"""Rows of a token table that is cut over a mesh, for tokens that are cut over it too.

Legend, besides the room's: T tokens of one device, S tokens of all devices among which the model
width is cut, d a device's part of the width, v of the vocabulary.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from configs.sharding import MeshAxes
from model.constrain import Constrain


class _Axes(NamedTuple):
    """Mesh axes of more than one device, by what they cut."""

    batch: MeshAxes
    length: MeshAxes
    vocab: MeshAxes
    embed: MeshAxes


def look_up(
    table_VD: Float[Array, "V D"], tokens_BL: Int[Array, "B L"], constrain: Constrain
) -> Float[Array, "B L D"]:
    """`table_VD[tokens_BL]`. Ids out of range must be refused on the host: here they give NaN, or
    zeros where the vocabulary is cut.

    Where the devices that share the model width have fewer tokens than the table has rows, rows
    travel instead of the table: every device looks the tokens of all of them up in its columns,
    and an all-to-all brings each its own tokens' whole rows. Else the table is gathered.
    """
    axes = _Axes(
        *constrain.cut_by(("batch", "length"), tokens_BL.shape),
        *constrain.cut_by(("vocab", "embed"), table_VD.shape),
    )
    tokens = axes.batch + axes.length
    own_tokens = tokens_BL.size // constrain.num_devices(tokens)
    own_rows = len(table_VD) // constrain.num_devices(axes.vocab)
    if not axes.embed or own_tokens > own_rows or not set(axes.embed) <= set(tokens):
        return _gather_table(table_VD, tokens_BL, constrain)
    return jax.shard_map(
        partial(_exchange_rows, axes),
        mesh=constrain.mesh,
        in_specs=(
            PartitionSpec(axes.vocab or None, axes.embed),
            PartitionSpec(axes.batch or None, axes.length or None),
        ),
        out_specs=PartitionSpec(axes.batch or None, axes.length or None, None),
    )(table_VD, tokens_BL)


def _gather_table(table_VD: jax.Array, tokens_BL: jax.Array, constrain: Constrain) -> jax.Array:
    # Gathered over fsdp before the look-up: afterwards the rows are cut along that axis.
    table_VD = constrain(table_VD, "vocab", "activation_embed")
    x_BLD = jnp.take(table_VD, tokens_BL, axis=0)
    return constrain(x_BLD, "batch", "length", "activation_embed")


def _exchange_rows(axes: _Axes, table_vd: jax.Array, tokens_BL: jax.Array) -> jax.Array:
    """One device's part: columns of everybody's tokens, then everybody's columns of its tokens."""
    tokens_S = jax.lax.all_gather(jnp.ravel(tokens_BL), axes.embed, axis=0, tiled=True)
    if axes.vocab:
        first = jax.lax.axis_index(axes.vocab) * table_vd.shape[0]
        tokens_S = tokens_S - first
        is_own_S = (tokens_S >= 0) & (tokens_S < table_vd.shape[0])
        x_Sd = jnp.take(table_vd, jnp.where(is_own_S, tokens_S, 0), axis=0)
        x_Sd = jnp.where(is_own_S[:, None], x_Sd, 0)
    else:
        x_Sd = jnp.take(table_vd, tokens_S, axis=0)
    x_TD = jax.lax.all_to_all(x_Sd, axes.embed, split_axis=0, concat_axis=1, tiled=True)
    if axes.vocab:
        x_TD = jax.lax.psum(x_TD, axes.vocab)
    return jnp.reshape(x_TD, (*tokens_BL.shape, x_TD.shape[-1]))
