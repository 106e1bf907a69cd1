"""cuDNN's flash attention on NVIDIA GPUs, through `jax.nn.dot_product_attention`.

Causality and a causal window are cuDNN's own, and skip what is not seen. Segments are not: they
go in as a mask [B, 1, L, M] in 16 bits, one for all heads. So do a window to both sides, a prefix,
and everything where the queries of a row are cut over devices.

Legend: B batch, L queries, M keys, H heads, K key/value heads, C head dim.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from model.constrain import UNCONSTRAINED, Constrain
from model.kernels.over_mesh import Operands, attention_cuts, over_mesh
from model.kernels.seen import Seen
from model.masks import MaskSpec, attention_mask, segment_mask


def cudnn_attention(
    q_BLHC: Float[Array, "B L H C"],
    k_BKMC: Float[Array, "B K M C"],
    v_BKMC: Float[Array, "B K M C"],
    seen: Seen,
    *,
    scale: float,
    bias_HLM: Float[Array, "H L M"] | None = None,
    constrain: Constrain = UNCONSTRAINED,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B L H C"]:
    """`dot_product_attention` by cuDNN; what it can take, `choose_kernel` knows.

    A query of padding gets 0. The bias is rounded to the queries' dtype, as cuDNN takes it.

    Args:
      q_BLHC, k_BKMC, v_BKMC: bfloat16 or float16.
      seen: who sees whom; slots are 0, 1, 2, … along queries and keys.
      implementation: "xla" runs the same call anywhere, for tests.

    Raises:
      InputError: what `attention_cuts` refuses.
      NotImplementedError, RuntimeError: from JAX, for shapes cuDNN has no kernel for, or where
        cuDNN is not installed.
    """
    is_cut = bool(attention_cuts(constrain, q_BLHC.shape, k_BKMC.shape[1]).length)

    def on_device(own: Operands, _: None) -> jax.Array:
        return _on_device(own, seen.spec, scale, is_cut, implementation)

    operands = Operands(q_BLHC, k_BKMC, v_BKMC, seen.places, bias_HLM)
    return over_mesh(on_device, operands, constrain)


def _on_device(
    operands: Operands,
    spec: MaskSpec,
    scale: float,
    is_cut: bool,
    implementation: Literal["cudnn", "xla"],
) -> Float[Array, "B L H C"]:
    q_BLHC, k_BKMC, v_BKMC, places, bias_HLM = operands
    is_own = spec.causal and places.key_prefix_BM is None and not is_cut
    if is_own:
        mask_BLM = segment_mask(places.query_segments_BL, places.key_segments_BM)
    else:
        mask_BLM = attention_mask(spec, places)
    out_BLHC = jax.nn.dot_product_attention(
        q_BLHC,
        jnp.transpose(k_BKMC, (0, 2, 1, 3)),
        jnp.transpose(v_BKMC, (0, 2, 1, 3)),
        bias=None if bias_HLM is None else bias_HLM[None].astype(q_BLHC.dtype),
        mask=mask_BLM[:, None],
        scale=scale,
        is_causal=is_own,
        # Keys to the left of a query and to its right, itself not counted.
        local_window_size=(spec.window - 1, 0) if is_own and spec.window else None,
        implementation=implementation,
    )
    is_text_BL = places.query_segments_BL != 0
    return jnp.where(is_text_BL[:, :, None, None], out_BLHC, jnp.zeros((), out_BLHC.dtype))
