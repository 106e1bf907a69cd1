"""Splash attention on TPUs: the Pallas kernel that comes with JAX.

It knows causal, windowed and full masks by their formula, skips the blocks that they hide, and
takes segments as they are. Each device runs it on its own rows, heads and queries; where the
queries of a row are cut, each part has its own part of the mask.

Legend: B batch, L queries, M keys, H heads, K key/value heads, C head dim.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash_kernel,
)
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from model.constrain import UNCONSTRAINED, Constrain
from model.kernels.over_mesh import Operands, attention_cuts, over_mesh
from model.kernels.seen import Seen
from model.masks import MaskSpec

LANES = 128  # lengths on a device must be multiples of it
_BLOCKS = (1024, 512, 256, LANES)  # the first that divides a length, and fits, is taken
_BLOCK_BYTES = 2**19  # of a block of queries or keys: twice as much overflows 16 MB of VMEM


def splash_attention(
    q_BLHC: Float[Array, "B L H C"],
    k_BKMC: Float[Array, "B K M C"],
    v_BKMC: Float[Array, "B K M C"],
    seen: Seen,
    *,
    scale: float,
    softcap: float = 0.0,
    constrain: Constrain = UNCONSTRAINED,
) -> Float[Array, "B L H C"]:
    """`dot_product_attention` by splash attention; what it can take, `choose_kernel` knows.

    A query of padding sees padding, or if there is none all keys alike: finite, and read by
    nobody. On a CPU the kernel is interpreted: right, and very slow.

    Args:
      seen: who sees whom; slots are 0, 1, 2, … along queries and keys.

    Raises:
      InputError: what `attention_cuts` refuses.
      ValueError: from JAX, for lengths that are not multiples of 128 on each device.
    """
    cuts = attention_cuts(constrain, q_BLHC.shape, k_BKMC.shape[1])
    sizes = {} if constrain.mesh is None else dict(constrain.mesh.shape)
    length_shards, head_shards = (
        math.prod(sizes[axis] for axis in axes) for axes in (cuts.length, cuts.heads)
    )
    (_, L, H, C), M = q_BLHC.shape, k_BKMC.shape[2]
    mask, mask_axes = _mask(seen.spec, L, M), cuts.length
    if isinstance(mask, splash_mask.FullMask):
        # Every part of the queries sees the same; JAX does not cut a mask that hides nothing.
        mask, mask_axes = splash_mask.FullMask((L // length_shards, M)), ()
    kernel = splash_kernel.make_splash_mha(
        splash_mask.MultiHeadMask([mask] * (H // head_shards)),
        block_sizes=_block_sizes(L // length_shards, M, C * q_BLHC.dtype.itemsize),
        head_shards=1,  # the same mask on every head: nothing to cut
        q_seq_shards=length_shards if mask_axes else 1,
        attn_logits_soft_cap=softcap or None,
        interpret=constrain.platform == "cpu",
    )
    specs = None
    if constrain.mesh is not None:
        cut = NamedSharding(constrain.mesh, PartitionSpec(None, mask_axes or None))
        specs = kernel.manual_sharding_spec(cut)
    operands = Operands(q_BLHC * scale, k_BKMC, v_BKMC, seen.places, None)
    return over_mesh(_on_device, operands, constrain, kernel, specs)


def _on_device(own: Operands, kernel: Any) -> Float[Array, "B L H C"]:
    q_BLHC, k_BKMC, v_BKMC, places, _ = own
    segments = splash_kernel.SegmentIds(places.query_segments_BL, places.key_segments_BM)
    q_BHLC = jnp.transpose(q_BLHC, (0, 2, 1, 3))
    out_BHLC = jax.vmap(kernel)(q_BHLC, k_BKMC, v_BKMC, segments)
    # A choice by segments here, between kernel and projection, costs a copy of the output.
    return jnp.transpose(out_BHLC, (0, 2, 1, 3))


def _mask(spec: MaskSpec, L: int, M: int) -> splash_mask.Mask:
    if 0 < spec.window < max(L, M):
        reach = spec.window - 1
        return splash_mask.LocalMask((L, M), (reach, 0 if spec.causal else reach), offset=0)
    return splash_mask.CausalMask((L, M)) if spec.causal else splash_mask.FullMask((L, M))


def _block_sizes(L: int, M: int, head_bytes: int) -> splash_kernel.BlockSizes:
    """Blocks for L queries of one device and M keys, of so many bytes a head.

    Gradients of queries and of keys are computed by two kernels: the fused one would hold a
    gradient of the queries for every block of keys.
    """
    fitting = [block for block in _BLOCKS if block * head_bytes <= _BLOCK_BYTES]
    of_queries, of_keys = (
        next((block for block in fitting if length % block == 0), LANES) for length in (L, M)
    )
    return splash_kernel.BlockSizes(
        block_q=of_queries,
        block_kv=of_keys,
        block_kv_compute=min(of_keys, 512),
        block_q_dkv=of_queries,
        block_kv_dkv=of_keys,
        block_kv_dkv_compute=min(of_keys, 512),
        block_q_dq=of_queries,
        block_kv_dq=min(of_keys, 512),
    )
