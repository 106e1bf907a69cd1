"""Rows of a token table that is cut over a mesh, for tokens that are cut over it too.

Legend, besides the room's: T tokens of one device, S tokens of all devices among which the model
width is cut, d a device's part of the width, v of the vocabulary.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from configs.sharding import MeshAxes
from model.constrain import Constrain

# A TPU adds few rows to a table of many one after the other. More than about a tenth as many as the
# table has it sorts first, by code that grows with their number: half a million take it 7 s of
# processor time to compile, a loop over 4,096 at a time .3 s.
_TPU_SHARE = 16


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
    where rows travel the nearest row, or zeros if the vocabulary is cut.

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
    own_batch = PartitionSpec(axes.batch or None, axes.length or None)
    return jax.shard_map(
        partial(_exchange_rows, axes, constrain.platform),
        mesh=constrain.mesh,
        in_specs=(PartitionSpec(axes.vocab or None, axes.embed), own_batch),
        out_specs=PartitionSpec(*own_batch, None),
    )(table_VD, tokens_BL)


def _gather_table(table_VD: jax.Array, tokens_BL: jax.Array, constrain: Constrain) -> jax.Array:
    # Gathered over fsdp before the look-up: afterwards the rows are cut along that axis.
    table_VD = constrain(table_VD, "vocab", "activation_embed")
    x_BLD = jnp.take(table_VD, tokens_BL, axis=0)
    return constrain(x_BLD, "batch", "length", "activation_embed")


def _exchange_rows(
    axes: _Axes, platform: str, table_vd: jax.Array, tokens_BL: jax.Array
) -> jax.Array:
    """One device's part: columns of everybody's tokens, then everybody's columns of its tokens."""
    tokens_S = jax.lax.all_gather(jnp.ravel(tokens_BL), axes.embed, axis=0, tiled=True)
    # By name, the table is the same along axes that cut only tokens; its gradient is not.
    of_table = axes.embed + axes.vocab
    only_tokens = tuple(axis for axis in axes.batch + axes.length if axis not in of_table)
    table_vd = jax.lax.pcast(table_vd, only_tokens, to="varying") if only_tokens else table_vd
    at_once = tokens_S.size
    if platform == "tpu":
        at_once = math.gcd(at_once, _power_of_two(len(table_vd) // _TPU_SHARE))
    take = partial(_take, at_once, of_table + only_tokens)
    if axes.vocab:
        first = jax.lax.axis_index(axes.vocab) * table_vd.shape[0]
        tokens_S = tokens_S - first
        is_own_S = (tokens_S >= 0) & (tokens_S < table_vd.shape[0])
        x_Sd = take(table_vd, tokens_S)
        x_Sd = jnp.where(is_own_S[:, None], x_Sd, 0)
    else:
        x_Sd = take(table_vd, tokens_S)
    x_TD = jax.lax.all_to_all(x_Sd, axes.embed, split_axis=0, concat_axis=1, tiled=True)
    if axes.vocab:
        x_TD = jax.lax.psum(x_TD, axes.vocab)
    return jnp.reshape(x_TD, (*tokens_BL.shape, x_TD.shape[-1]))


def _power_of_two(n: int) -> int:
    """The largest that is at most n, and at least 1."""
    return 1 << max(n, 1).bit_length() - 1


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _take(at_once: int, varying: MeshAxes, table_vd: jax.Array, tokens_S: jax.Array) -> jax.Array:
    """Rows of a table on one device; its gradient adds so many tokens' rows at once.

    Args:
      at_once: divides S.
      varying: mesh axes along which the table differs, by name.
    """
    return jnp.take(table_vd, tokens_S, axis=0, mode="clip")


def _take_forward(
    at_once: int, varying: MeshAxes, table_vd: jax.Array, tokens_S: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, int]]:
    return _take(at_once, varying, table_vd, tokens_S), (tokens_S, len(table_vd))


def _take_backward(
    at_once: int, varying: MeshAxes, saved: tuple[jax.Array, int], gradient_Sd: jax.Array
) -> tuple[jax.Array, None]:
    tokens_S, num_rows = saved
    d = gradient_Sd.shape[-1]

    def add(sum_vd: jax.Array, some: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        tokens_s, gradient_sd = some
        rows_vd = sum_vd.at[tokens_s]
        more_sd = gradient_sd.astype(sum_vd.dtype)
        return rows_vd.add(more_sd, mode="clip", wrap_negative_indices=False), None

    zeros_vd = jnp.zeros((num_rows, d), jnp.float32)
    zeros_vd = jax.lax.pcast(zeros_vd, varying, to="varying")
    cut = (
        jnp.reshape(tokens_S, (-1, at_once)),
        jnp.reshape(gradient_Sd, (-1, at_once, d)),
    )
    sum_vd, _ = jax.lax.scan(add, zeros_vd, cut)
    return sum_vd.astype(gradient_Sd.dtype), None


_take.defvjp(_take_forward, _take_backward)
