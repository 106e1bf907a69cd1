"""Scaled dot-product attention in plain XLA operations: what every other kernel must equal."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Large and finite: a row with no key to attend to (padding) gets uniform weights, not NaN.
_MASKED = -1e30


def dot_product_attention(
    q_BLHC: Float[Array, "B L H C"],
    k_BMKC: Float[Array, "B M K C"],
    v_BMKC: Float[Array, "B M K C"],
    mask_BLM: Bool[Array, "B L M"],
) -> Float[Array, "B L H C"]:
    """softmax(q·k / sqrt(C)) · v; query head h reads key/value head h // (H/K).

    Scores and softmax are fp32 (a bf16 softmax loses small weights); the weights are cast back
    to the value's dtype for the second product. Vaswani et al. 2017, equation 1.
    """
    B, L, H, C = q_BLHC.shape
    K = k_BMKC.shape[2]
    q_BKGLC = jnp.transpose(jnp.reshape(q_BLHC * C**-0.5, (B, L, K, H // K, C)), (0, 2, 3, 1, 4))
    k_BKMC = jnp.transpose(k_BMKC, (0, 2, 1, 3))
    v_BKMC = jnp.transpose(v_BMKC, (0, 2, 1, 3))
    scores_BKGLM = jnp.einsum(
        "BKGLC,BKMC->BKGLM", q_BKGLC, k_BKMC, preferred_element_type=jnp.float32
    )
    scores_BKGLM = jnp.where(mask_BLM[:, None, None, :, :], scores_BKGLM, _MASKED)
    weights_BKGLM = jax.nn.softmax(scores_BKGLM, axis=-1).astype(v_BMKC.dtype)
    out_BKGLC = jnp.einsum("BKGLM,BKMC->BKGLC", weights_BKGLM, v_BKMC)
    return jnp.reshape(jnp.transpose(out_BKGLC, (0, 3, 1, 2, 4)), (B, L, H, C))


def causal_attention(
    q_BLHC: Float[Array, "B L H C"],
    k_BLKC: Float[Array, "B L K C"],
    v_BLKC: Float[Array, "B L K C"],
    mask_BLL: Bool[Array, "B L L"],
    num_blocks: int,
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
        mask = mask_BLL[:, start:end, :end]
        out = dot_product_attention(q_BLHC[:, start:end], k_BLKC[:, :end], v_BLKC[:, :end], mask)
        blocks.append(out)
    return jnp.concatenate(blocks, axis=1)
