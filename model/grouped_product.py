"""Products of rows with the kernel of the group they belong to: what a mixture of experts runs on.

Legend: T tokens, k choices of a token, S slots that hold the chosen rows group by group, E groups,
n blocks of b slots, D and F what a kernel contracts and produces.

Both ways between tokens and slots are gathers, in the gradient too: scatters add up in any order
on a GPU, and a resumed run must equal an uninterrupted one bit for bit.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Larger blocks multiply better and leave larger gaps.
_MAX_BLOCK = 512


class Groups(NamedTuple):
    """Where the chosen rows lie, sorted by group.

    slot_Tk: the slot of each choice; S for a choice of no group. choice_S: the choice
    t·k + rank a slot holds; T·k for an empty slot. sizes_E: slots of each group, one group after
    the other; of a group, gaps come last.
    """

    slot_Tk: Int[Array, "T k"]
    choice_S: Int[Array, " S"]
    sizes_E: Int[Array, " E"]


def group_choices(group_Tk: Int[Array, "T k"], num_groups: int, block: int) -> Groups:
    """Sorts choices by group; every group begins at a multiple of `block` slots.

    Args:
      group_Tk: the group each token chose first, second, …; `num_groups` or more for none.

    Returns:
      Groups over as many slots as any choice needs. For choices [[1], [0], [1], [9]], two groups
      and blocks of two: slot_Tk [[2], [0], [3], [6]], choice_S [1, 4, 0, 2, 4, 4], sizes_E [2, 2].
    """
    M = group_Tk.size
    num_blocks = (M + min(num_groups, M) * (block - 1)) // block
    group_M = jnp.minimum(jnp.reshape(group_Tk, (M,)), num_groups)
    order_M = jnp.argsort(group_M, stable=True)
    ends_E = jnp.searchsorted(group_M[order_M], jnp.arange(num_groups), side="right")
    counts_E = jnp.diff(ends_E, prepend=0)
    sizes_E = -(-counts_E // block) * block
    first_choice_E, first_slot_E = ends_E - counts_E, jnp.cumsum(sizes_E) - sizes_E

    rank_M = jnp.argsort(order_M) - _of_group(first_choice_E, group_M)
    has_group_M = group_M < num_groups
    slot_M = jnp.where(has_group_M, _of_group(first_slot_E, group_M) + rank_M, num_blocks * block)

    slot_S = jnp.arange(num_blocks * block)
    group_S = jnp.searchsorted(jnp.cumsum(sizes_E), slot_S, side="right")
    rank_S = slot_S - _of_group(first_slot_E, group_S)
    is_full_S = rank_S < _of_group(counts_E, group_S)
    sorted_S = jnp.where(is_full_S, _of_group(first_choice_E, group_S) + rank_S, M)
    choice_S = jnp.take(order_M, sorted_S, mode="fill", fill_value=M)
    return Groups(jnp.reshape(slot_M, group_Tk.shape), choice_S, sizes_E)


def block_size(num_choices: int, num_groups: int, platform: str) -> int:
    """Slots a block: about a quarter of a group, so that gaps add an eighth or so of the rows.

    1 where `jax.lax.ragged_dot` is native, and needs no blocks.
    """
    if platform == "tpu":
        return 1
    return min(_MAX_BLOCK, 1 << max(num_choices // (4 * num_groups), 1).bit_length() - 1)


@jax.custom_vjp
def rows_to_slots(x_TD: Float[Array, "T D"], groups: Groups) -> Float[Array, "S D"]:
    """Each slot's row, zeros in empty ones."""
    return _take(x_TD, groups.choice_S // groups.slot_Tk.shape[1])


@jax.custom_vjp
def slots_to_rows(y_SD: Float[Array, "S D"], groups: Groups) -> Float[Array, "T k D"]:
    """Each choice's row, zeros for a choice of no group."""
    return _take(y_SD, groups.slot_Tk)


def _rows_to_slots_gradient(groups: Groups, g_SD: jax.Array):
    return jnp.sum(slots_to_rows(g_SD, groups), axis=1), None


def _slots_to_rows_gradient(groups: Groups, g_TkD: jax.Array):
    T, k, D = g_TkD.shape
    return _take(jnp.reshape(g_TkD, (T * k, D)), groups.choice_S), None


rows_to_slots.defvjp(lambda x, groups: (rows_to_slots(x, groups), groups), _rows_to_slots_gradient)
slots_to_rows.defvjp(lambda y, groups: (slots_to_rows(y, groups), groups), _slots_to_rows_gradient)


def grouped_product(
    x_SD: Float[Array, "S D"],
    kernel_EDF: Float[Array, "E D F"],
    sizes_E: Int[Array, " E"],
    *,
    block: int,
    platform: str,
    manual_axes: tuple[str, ...] = (),
) -> Float[Array, "S F"]:
    """Each slot's row times the kernel of its group.

    `jax.lax.ragged_dot` where it is native. On CPU it becomes a product of every row with every
    kernel, E times the work (jax 0.10 to 0.12), and so it does by default on NVIDIA GPUs
    (openxla/xla pull request 40189). There blocks of slots are multiplied one by one, and those
    of no group not at all.

    Args:
      sizes_E: slots of each group, multiples of `block`. Slots after the last group's give zeros
        or, where the product is native, anything.
      block: what `block_size` says.
      platform: where it will run: "cpu", "gpu", "tpu".
      manual_axes: mesh axes that all arguments vary over, under `jax.shard_map`.
    """
    if platform == "tpu":
        return jax.lax.ragged_dot(x_SD, kernel_EDF, sizes_E)
    return _block_product(x_SD, kernel_EDF, sizes_E, block, manual_axes)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _block_product(
    x_SD: jax.Array, kernel_EDF: jax.Array, sizes_E: jax.Array, block: int, axes: tuple[str, ...]
) -> jax.Array:
    D, F = kernel_EDF.shape[1:]

    def multiply(_: None, item: tuple[jax.Array, ...]):
        x_bD, group, is_used = item
        zeros_bF = _varying(jnp.zeros((block, F), x_bD.dtype), axes)
        return None, jax.lax.cond(is_used, lambda: x_bD @ kernel_EDF[group], lambda: zeros_bF)

    x_nbD = jnp.reshape(x_SD, (-1, block, D))
    _, y_nbF = jax.lax.scan(multiply, None, (x_nbD, *_blocks(sizes_E, len(x_nbD), block)))
    return jnp.reshape(y_nbF, (-1, F))


def _block_product_gradient(
    block: int, axes: tuple[str, ...], inputs: tuple[jax.Array, ...], g_SF: jax.Array
):
    x_SD, kernel_EDF, sizes_E = inputs
    D, F = kernel_EDF.shape[1:]

    def multiply(dkernel_EDF: jax.Array, item: tuple[jax.Array, ...]):
        x_bD, g_bF, group, is_used = item

        def products() -> tuple[jax.Array, jax.Array]:
            dkernel_DF = jnp.dot(x_bD.T, g_bF, preferred_element_type=jnp.float32)
            return g_bF @ kernel_EDF[group].T, dkernel_DF

        def nothing() -> tuple[jax.Array, jax.Array]:
            zeros = jnp.zeros((block, D), x_bD.dtype), jnp.zeros((D, F), jnp.float32)
            return _varying(zeros, axes)

        dx_bD, dkernel_DF = jax.lax.cond(is_used, products, nothing)
        return dkernel_EDF.at[group].add(dkernel_DF), dx_bD

    x_nbD, g_nbF = jnp.reshape(x_SD, (-1, block, D)), jnp.reshape(g_SF, (-1, block, F))
    # fp32: a group's blocks are added up one by one.
    zeros_EDF = _varying(jnp.zeros(kernel_EDF.shape, jnp.float32), axes)
    dkernel_EDF, dx_nbD = jax.lax.scan(
        multiply, zeros_EDF, (x_nbD, g_nbF, *_blocks(sizes_E, len(x_nbD), block))
    )
    return jnp.reshape(dx_nbD, x_SD.shape), dkernel_EDF.astype(kernel_EDF.dtype), None


_block_product.defvjp(
    lambda x, kernel, sizes, block, axes: (
        _block_product(x, kernel, sizes, block, axes),
        (x, kernel, sizes),
    ),
    _block_product_gradient,
)


def _blocks(
    sizes_E: jax.Array, num_blocks: int, block: int
) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
    """The group of every block, and whether it has one."""
    ends_E = jnp.cumsum(sizes_E) // block
    group_n = jnp.searchsorted(ends_E, jnp.arange(num_blocks), side="right")
    num_groups = len(sizes_E)
    return jnp.minimum(group_n, num_groups - 1), group_n < num_groups


def _of_group(values_E: jax.Array, group: jax.Array) -> jax.Array:
    return jnp.take(values_E, group, mode="fill", fill_value=0)


def _take(rows: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take(rows, index, axis=0, mode="fill", fill_value=0)


def _varying(tree, axes: tuple[str, ...]):
    return jax.lax.pcast(tree, axes, to="varying") if axes else tree
