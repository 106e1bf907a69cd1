"""Attention that never holds the scores of more than a block of queries with a block of keys.

The softmax is built up over the blocks of keys: a running maximum and a running sum, by which what
was added up so far is rescaled (Milakov and Gimelshein 2018, arXiv 1805.02867, algorithm 3). The
backward pass computes the scores again and turns them to weights by the logarithm of that sum
(FlashAttention, Dao et al. 2022, arXiv 2205.14135, algorithms 1 and 4; here the loop over queries
is the outer one). Plain array operations: it runs on every platform.

Blocks of queries are unrolled in Python, so that each has its own, fixed number of key blocks:
those beyond the diagonal or outside the window are not computed.

Legend: B batch, L queries, M keys, Q queries of a block, T keys of a block, H heads, K key/value
heads, G query heads that share one, C head dim.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from model.constrain import UNCONSTRAINED, Constrain
from model.kernels.over_mesh import Operands, attention_cuts, over_mesh
from model.kernels.seen import Seen
from model.masks import MaskSpec, Places, attention_mask

BLOCK = 512  # keys of a block; queries of one too, unless there would be too many blocks
_MOST_BLOCKS = 16  # of queries: each is compiled by itself
_MOST_WINDOW_BLOCKS = 64  # a window saves more with smaller blocks
_MASKED = -1e30


class _Plan(NamedTuple):
    """What is fixed at compile time. `has_own_slots`: queries may begin anywhere in the row."""

    spec: MaskSpec
    softcap: float
    block: int
    has_own_slots: bool


class _Arrays(NamedTuple):
    """Queries (scaled), keys and values padded to whole blocks, and what is added to scores."""

    q_BKGLC: Float[Array, "B K G L C"]
    k_BKMC: Float[Array, "B K M C"]
    v_BKMC: Float[Array, "B K M C"]
    bias_KGLM: Float[Array, "K G L M"] | None


class _Rows(NamedTuple):
    """A block of queries and the key blocks it meets: `num_blocks` from `first_block` on."""

    start: int
    stop: int
    first_block: Any
    num_blocks: int


def blockwise_attention(
    q_BLHC: Float[Array, "B L H C"],
    k_BKMC: Float[Array, "B K M C"],
    v_BKMC: Float[Array, "B K M C"],
    seen: Seen,
    *,
    scale: float,
    softcap: float = 0.0,
    bias_HLM: Float[Array, "H L M"] | None = None,
    constrain: Constrain = UNCONSTRAINED,
    block: int = BLOCK,
) -> Float[Array, "B L H C"]:
    """Equal to `dot_product_attention`, in memory that grows with L and not with L·M.

    A query that sees no key gets 0, and sends no gradient anywhere (the reference gives it the
    mean of all values). Scores, softmax and sums over blocks are fp32.

    Args:
      seen: who sees whom; slots are 0, 1, 2, … along queries and keys.
      scale, softcap, bias_HLM: as of `attention_weights`; the bias gets its gradient.
      constrain: over which devices batch, heads and queries are cut.
      block: keys at a time; lengths need not be multiples.

    Raises:
      InputError: what `attention_cuts` refuses.
    """
    cuts = attention_cuts(constrain, q_BLHC.shape, k_BKMC.shape[1])
    plan = _Plan(seen.spec, softcap, block, bool(cuts.length))
    operands = Operands(q_BLHC * scale, k_BKMC, v_BKMC, seen.places, bias_HLM)
    return over_mesh(lambda own, _: _on_device(plan, own), operands, constrain)


def _on_device(plan: _Plan, operands: Operands) -> Float[Array, "B L H C"]:
    q_BLHC, k_BKMC, v_BKMC, places, bias_HLM = operands
    B, L, H, C = q_BLHC.shape
    K, M = k_BKMC.shape[1:3]
    q_BKGLC = jnp.transpose(jnp.reshape(q_BLHC, (B, L, K, H // K, C)), (0, 2, 3, 1, 4))
    plan = plan._replace(block=min(plan.block, M))
    missing = -M % plan.block  # keys of segment 0, which nobody sees
    arrays = _Arrays(
        q_BKGLC,
        _pad(k_BKMC, 2, missing),
        _pad(v_BKMC, 2, missing),
        None if bias_HLM is None else _pad(jnp.reshape(bias_HLM, (K, H // K, L, M)), 3, missing),
    )
    prefix_BM = places.key_prefix_BM
    places = places._replace(
        key_slots_M=_pad(places.key_slots_M, 0, missing),
        key_segments_BM=_pad(places.key_segments_BM, 1, missing),
        key_prefix_BM=None if prefix_BM is None else _pad(prefix_BM, 1, missing),
    )
    out_BKGLC: Any = _attend(plan, arrays, places)
    return jnp.reshape(jnp.transpose(out_BKGLC, (0, 3, 1, 2, 4)), (B, L, H, C))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan: _Plan, arrays: _Arrays, places: Places) -> Float[Array, "B K G L C"]:
    return _forward(plan, arrays, places)[0]


def _forward(plan: _Plan, arrays: _Arrays, places: Places):
    """Output, and what the backward pass needs."""
    outs, log_sums = [], []
    for rows in _query_blocks(plan, places):
        out_BKGQC, log_sum_BKGQ = _forward_rows(plan, arrays, places, rows)
        outs.append(out_BKGQC)
        log_sums.append(log_sum_BKGQ)
    out_BKGLC, log_sum_BKGL = jnp.concatenate(outs, axis=3), jnp.concatenate(log_sums, axis=3)
    return out_BKGLC, (arrays, places, out_BKGLC, log_sum_BKGL)


def _forward_rows(plan: _Plan, arrays: _Arrays, places: Places, rows: _Rows):
    q_BKGQC = arrays.q_BKGLC[:, :, :, rows.start : rows.stop]

    def add_block(carry, j):
        most_BKGQ, sum_BKGQ, out_BKGQC = carry
        start = (rows.first_block + j) * plan.block
        _, v_BKTC = _keys(plan, arrays, start)
        scores_BKGQT, seen_BQT = _scores(plan, arrays, places, rows, start)
        new_most_BKGQ = jnp.maximum(most_BKGQ, jnp.max(scores_BKGQT, axis=-1))
        weights_BKGQT = jnp.where(
            seen_BQT[:, None, None], jnp.exp(scores_BKGQT - new_most_BKGQ[..., None]), 0.0
        )
        shrink_BKGQ = jnp.exp(most_BKGQ - new_most_BKGQ)
        values_BKGQC = jnp.einsum(
            "BKGQT,BKTC->BKGQC",
            weights_BKGQT.astype(v_BKTC.dtype),
            v_BKTC,
            preferred_element_type=jnp.float32,
        )
        return (
            new_most_BKGQ,
            sum_BKGQ * shrink_BKGQ + jnp.sum(weights_BKGQT, axis=-1),
            out_BKGQC * shrink_BKGQ[..., None] + values_BKGQC,
        ), None

    start = (
        jnp.full(q_BKGQC.shape[:-1], _MASKED, jnp.float32),
        jnp.zeros(q_BKGQC.shape[:-1], jnp.float32),
        jnp.zeros(q_BKGQC.shape, jnp.float32),
    )
    (most_BKGQ, sum_BKGQ, out_BKGQC), _ = jax.lax.scan(
        add_block, start, jnp.arange(rows.num_blocks)
    )
    sum_BKGQ = jnp.where(sum_BKGQ > 0, sum_BKGQ, 1.0)  # a query that sees nothing: 0, not 0/0
    out_BKGQC = (out_BKGQC / sum_BKGQ[..., None]).astype(arrays.v_BKMC.dtype)
    return out_BKGQC, most_BKGQ + jnp.log(sum_BKGQ)


def _backward(plan: _Plan, residuals, d_out_BKGLC):
    arrays, places, out_BKGLC, log_sum_BKGL = residuals
    # Sum over keys of weight times its gradient: the same as output times its gradient.
    mean_BKGL = jnp.sum(out_BKGLC.astype(jnp.float32) * d_out_BKGLC.astype(jnp.float32), axis=-1)
    d_q, d_bias = [], []
    d_k_BKMC = jnp.zeros(arrays.k_BKMC.shape, jnp.float32)
    d_v_BKMC = jnp.zeros(arrays.v_BKMC.shape, jnp.float32)
    for rows in _query_blocks(plan, places):
        at = slice(rows.start, rows.stop)
        d_q_BKGQC, d_keys, d_values, d_bias_KGQM = _backward_rows(
            plan,
            arrays,
            places,
            rows,
            d_out_BKGLC[:, :, :, at],
            log_sum_BKGL[:, :, :, at],
            mean_BKGL[:, :, :, at],
        )
        d_q.append(d_q_BKGQC)
        d_bias.append(d_bias_KGQM)
        start = rows.first_block * plan.block
        d_k_BKMC = _add_at(d_k_BKMC, d_keys, start, axis=2)
        d_v_BKMC = _add_at(d_v_BKMC, d_values, start, axis=2)
    gradients = _Arrays(
        jnp.concatenate(d_q, axis=3).astype(arrays.q_BKGLC.dtype),
        d_k_BKMC.astype(arrays.k_BKMC.dtype),
        d_v_BKMC.astype(arrays.v_BKMC.dtype),
        None
        if arrays.bias_KGLM is None
        else jnp.concatenate(d_bias, axis=2).astype(arrays.bias_KGLM.dtype),
    )
    return gradients, None


def _backward_rows(plan, arrays, places, rows, d_out_BKGQC, log_sum_BKGQ, mean_BKGQ):
    q_BKGQC = arrays.q_BKGLC[:, :, :, rows.start : rows.stop]
    product = partial(jnp.einsum, preferred_element_type=jnp.float32)

    def add_block(d_q_BKGQC, j):
        start = (rows.first_block + j) * plan.block
        k_BKTC, v_BKTC = _keys(plan, arrays, start)
        scores_BKGQT, seen_BQT = _scores(plan, arrays, places, rows, start)
        weights_BKGQT = jnp.where(
            seen_BQT[:, None, None], jnp.exp(scores_BKGQT - log_sum_BKGQ[..., None]), 0.0
        )
        d_v_BKTC = product(
            "BKGQT,BKGQC->BKTC", weights_BKGQT.astype(d_out_BKGQC.dtype), d_out_BKGQC
        )
        d_weights_BKGQT = product("BKGQC,BKTC->BKGQT", d_out_BKGQC, v_BKTC)
        d_scores_BKGQT = weights_BKGQT * (d_weights_BKGQT - mean_BKGQ[..., None])
        if plan.softcap:
            # Masked scores are huge, and their gradient is 0 already.
            tanh_BKGQT = jnp.clip(scores_BKGQT / plan.softcap, -1.0, 1.0)
            d_scores_BKGQT = d_scores_BKGQT * (1.0 - tanh_BKGQT**2)
        d_bias_KGQT = None if arrays.bias_KGLM is None else jnp.sum(d_scores_BKGQT, axis=0)
        d_scores_BKGQT = d_scores_BKGQT.astype(q_BKGQC.dtype)
        d_q_BKGQC = d_q_BKGQC + product("BKGQT,BKTC->BKGQC", d_scores_BKGQT, k_BKTC)
        d_k_BKTC = product("BKGQT,BKGQC->BKTC", d_scores_BKGQT, q_BKGQC)
        return d_q_BKGQC, (d_k_BKTC, d_v_BKTC, d_bias_KGQT)

    d_q_BKGQC, (d_keys, d_values, d_bias) = jax.lax.scan(
        add_block, jnp.zeros(q_BKGQC.shape, jnp.float32), jnp.arange(rows.num_blocks)
    )
    d_bias_KGQM = None
    if d_bias is not None:
        bias_KGLM = arrays.bias_KGLM
        whole = jnp.zeros((*d_bias.shape[1:4], bias_KGLM.shape[3]), jnp.float32)
        d_bias_KGQM = _add_at(whole, _joined(d_bias, 3), rows.first_block * plan.block, axis=3)
    return d_q_BKGQC, _joined(d_keys, 2), _joined(d_values, 2), d_bias_KGQM


_attend.defvjp(_forward, _backward)


def _query_blocks(plan: _Plan, places: Places) -> list[_Rows]:
    """Cuts the queries, and tells each block which keys it may meet.

    Of 1,024 queries in blocks of 256 on as many keys, causal: 1, 2, 3 and 4 key blocks, from 0 on.
    """
    L, M = places.query_slots_L.shape[0], places.key_slots_M.shape[0]
    spec, block = plan.spec, plan.block
    most = _MOST_WINDOW_BLOCKS if spec.window else _MOST_BLOCKS
    size = block * max(1, -(-L // (block * most)))
    num_key_blocks = M // block
    blocks = []
    for start in range(0, L, size):
        stop = min(start + size, L)
        first, last = 0, num_key_blocks  # of its key blocks
        if plan.has_own_slots:
            if spec.window:
                # Any `reach` keys in a row lie in so many blocks.
                reach = stop - start + (spec.window - 1) * (1 if spec.causal else 2)
                last = min(num_key_blocks, (reach - 2) // block + 2)
                first = (places.query_slots_L[start] - (spec.window - 1)) // block
                first = jnp.clip(first, 0, num_key_blocks - last)
            blocks.append(_Rows(start, stop, first, last))
            continue
        if spec.window:
            first = max(0, start - spec.window + 1) // block
            last = min(last, -(-(stop + spec.window - 1) // block))
        if spec.causal and (places.key_prefix_BM is None):
            last = min(last, -(-stop // block))
        first = min(first, num_key_blocks - 1)
        blocks.append(_Rows(start, stop, first, max(1, last - first)))
    return blocks


def _keys(plan: _Plan, arrays: _Arrays, start):
    """Keys and values of the block that begins at `start`."""
    return (
        jax.lax.dynamic_slice_in_dim(arrays.k_BKMC, start, plan.block, axis=2),
        jax.lax.dynamic_slice_in_dim(arrays.v_BKMC, start, plan.block, axis=2),
    )


def _scores(plan: _Plan, arrays: _Arrays, places: Places, rows: _Rows, start):
    """Scores of a block with a block, fp32 [B, K, G, Q, T], masked; and the mask [B, Q, T]."""
    q_BKGQC = arrays.q_BKGLC[:, :, :, rows.start : rows.stop]
    k_BKTC, _ = _keys(plan, arrays, start)
    scores_BKGQT = jnp.einsum(
        "BKGQC,BKTC->BKGQT", q_BKGQC, k_BKTC, preferred_element_type=jnp.float32
    )
    if arrays.bias_KGLM is not None:
        bias_KGQM = arrays.bias_KGLM[:, :, rows.start : rows.stop]
        bias_KGQT = jax.lax.dynamic_slice_in_dim(bias_KGQM, start, plan.block, axis=3)
        scores_BKGQT = scores_BKGQT + bias_KGQT[None]
    if plan.softcap:
        scores_BKGQT = plan.softcap * jnp.tanh(scores_BKGQT / plan.softcap)

    seen_BQT = attention_mask(plan.spec, _block_places(plan, places, rows, start))
    return jnp.where(seen_BQT[:, None, None], scores_BKGQT, _MASKED), seen_BQT


def _block_places(plan: _Plan, places: Places, rows: _Rows, start) -> Places:
    """Places of a block of queries and of the block of keys that begins at `start`."""

    def of_keys(x: jax.Array, axis: int) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(x, start, plan.block, axis)

    prefix_BM = places.key_prefix_BM
    return Places(
        places.query_slots_L[rows.start : rows.stop],
        of_keys(places.key_slots_M, 0),
        places.query_segments_BL[:, rows.start : rows.stop],
        of_keys(places.key_segments_BM, 1),
        None if prefix_BM is None else of_keys(prefix_BM, 1),
    )


def _pad(x: jax.Array, axis: int, missing: int) -> jax.Array:
    """Zeros after the end of an axis."""
    return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])


def _joined(blocks: jax.Array, axis: int) -> jax.Array:
    """[N, …, T, …], what a scan stacks, as […, N·T, …], with T at `axis` of the result."""
    moved = jnp.moveaxis(blocks, 0, axis)
    return jnp.reshape(moved, (*moved.shape[:axis], -1, *moved.shape[axis + 2 :]))


def _add_at(total: jax.Array, part: jax.Array, start, *, axis: int) -> jax.Array:
    old = jax.lax.dynamic_slice_in_dim(total, start, part.shape[axis], axis)
    return jax.lax.dynamic_update_slice_in_dim(total, old + part, start, axis)
