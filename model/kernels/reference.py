"""Scaled dot-product attention in plain XLA operations: what every other kernel must equal."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Large and finite: a row with no key to attend to (padding) gets uniform weights, not NaN.
_MASKED = -1e30


def heads_first(x_BMKC: Float[Array, "B M K C"]) -> Float[Array, "B K M C"]:
    """Keys or values in the order that attention takes them."""
    return jnp.transpose(x_BMKC, (0, 2, 1, 3))


def attention_weights(
    q_BLHC: Float[Array, "B L H C"],
    k_BKMC: Float[Array, "B K M C"],
    mask_BLM: Bool[Array, "B L M"],
    *,
    scale: float,
    softcap: float = 0.0,
    bias_HLM: Float[Array, "H L M"] | None = None,
) -> Float[Array, "B K G L M"]:
    """softmax(scale · q·k + bias), fp32; query head h = k·G + g reads key/value head k.

    Scores and softmax are fp32: a bf16 softmax loses small weights. Vaswani et al. 2017, eq. 1.

    Args:
      scale: usually 1/sqrt(C).
      softcap: s > 0 turns a score x into s·tanh(x/s) (Gemma 2, arXiv 2408.00118, section 2).
      bias_HLM: added to the scores, fp32; None for none.
    """
    B, L, H, C = q_BLHC.shape
    K, M = k_BKMC.shape[1], k_BKMC.shape[2]
    q_BKGLC = jnp.transpose(jnp.reshape(q_BLHC * scale, (B, L, K, H // K, C)), (0, 2, 3, 1, 4))
    scores_BKGLM = jnp.einsum(
        "BKGLC,BKMC->BKGLM", q_BKGLC, k_BKMC, preferred_element_type=jnp.float32
    )
    if bias_HLM is not None:
        scores_BKGLM = scores_BKGLM + jnp.reshape(bias_HLM, (1, K, H // K, L, M))
    if softcap:
        scores_BKGLM = softcap * jnp.tanh(scores_BKGLM / softcap)
    scores_BKGLM = jnp.where(mask_BLM[:, None, None, :, :], scores_BKGLM, _MASKED)
    return jax.nn.softmax(scores_BKGLM, axis=-1)


def dot_product_attention(
    q_BLHC: Float[Array, "B L H C"],
    k_BKMC: Float[Array, "B K M C"],
    v_BKMC: Float[Array, "B K M C"],
    mask_BLM: Bool[Array, "B L M"],
    *,
    scale: float,
    softcap: float = 0.0,
    bias_HLM: Float[Array, "H L M"] | None = None,
) -> Float[Array, "B L H C"]:
    """`attention_weights` times the values, in the values' dtype."""
    weights_BKGLM = attention_weights(
        q_BLHC, k_BKMC, mask_BLM, scale=scale, softcap=softcap, bias_HLM=bias_HLM
    )
    out_BKGLC = jnp.einsum("BKGLM,BKMC->BKGLC", weights_BKGLM.astype(v_BKMC.dtype), v_BKMC)
    return jnp.reshape(jnp.transpose(out_BKGLC, (0, 3, 1, 2, 4)), q_BLHC.shape)


def causal_attention(
    q_BLHC: Float[Array, "B L H C"],
    k_BKLC: Float[Array, "B K L C"],
    v_BKLC: Float[Array, "B K L C"],
    mask_BLL: Bool[Array, "B L L"],
    *,
    num_blocks: int,
    scale: float,
    softcap: float = 0.0,
    bias_HLL: Float[Array, "H L L"] | None = None,
) -> Float[Array, "B L H C"]:
    """`dot_product_attention` of a row with itself where no query may see a later key.

    Queries are cut into `num_blocks` blocks and each multiplies only the keys up to its own end;
    the mask still decides within them. Equal to the uncut product up to rounding.
    """
    L = q_BLHC.shape[1]
    block = -(-L // num_blocks)
    blocks = []
    for start in range(0, L, block):
        end = min(start + block, L)
        out = dot_product_attention(
            q_BLHC[:, start:end],
            k_BKLC[:, :, :end],
            v_BKLC[:, :, :end],
            mask_BLL[:, start:end, :end],
            scale=scale,
            softcap=softcap,
            bias_HLM=None if bias_HLL is None else bias_HLL[:, start:end, :end],
        )
        blocks.append(out)
    return jnp.concatenate(blocks, axis=1)
