"""The one function that the model calls: an attention, by whichever kernel."""

import logging
from functools import cache

from jaxtyping import Array, Float

from model.constrain import UNCONSTRAINED, Constrain
from model.kernels.blockwise import blockwise_attention
from model.kernels.choice import attention_case, choose_kernel
from model.kernels.cudnn import cudnn_attention
from model.kernels.reference import dot_product_attention
from model.kernels.seen import Seen
from model.kernels.splash import splash_attention


def attend(
    q_BLHC: Float[Array, "B L H C"],
    k_BKMC: Float[Array, "B K M C"],
    v_BKMC: Float[Array, "B K M C"],
    seen: Seen,
    *,
    kernel: str,
    scale: float,
    softcap: float = 0.0,
    bias_HLM: Float[Array, "H L M"] | None = None,
    constrain: Constrain = UNCONSTRAINED,
) -> Float[Array, "B L H C"]:
    """softmax(scale · q·k + bias) · v over the keys that each query sees.

    Query head h reads key/value head h // (H // K). The output has the values' dtype. What a
    query that sees no key gets differs by kernel; it is finite.

    Args:
      seen: who sees whom. Any slots for the reference; for the others 0, 1, 2, … along queries
        and along keys.
      kernel: one of `KERNELS`. One that cannot compute this case is replaced as `choose_kernel`
        says, with a line in the log, once.
      scale, softcap, bias_HLM: as of `attention_weights`.
      constrain: over which devices batch, heads and queries are cut.

    Raises:
      InputError: an unknown kernel; what `attention_cuts` refuses.
    """
    kernel = kernel_for(
        kernel,
        q_BLHC,
        k_BKMC,
        seen,
        softcap=softcap,
        has_bias=bias_HLM is not None,
        constrain=constrain,
    )
    if kernel == "splash":
        return splash_attention(
            q_BLHC, k_BKMC, v_BKMC, seen, scale=scale, softcap=softcap, constrain=constrain
        )
    if kernel == "cudnn":
        return cudnn_attention(
            q_BLHC, k_BKMC, v_BKMC, seen, scale=scale, bias_HLM=bias_HLM, constrain=constrain
        )
    if kernel == "blockwise":
        return blockwise_attention(
            q_BLHC,
            k_BKMC,
            v_BKMC,
            seen,
            scale=scale,
            softcap=softcap,
            bias_HLM=bias_HLM,
            constrain=constrain,
        )
    return dot_product_attention(
        q_BLHC, k_BKMC, v_BKMC, seen.mask_BLM, scale=scale, softcap=softcap, bias_HLM=bias_HLM
    )


def kernel_for(
    requested: str,
    q_BLHC: Float[Array, "B L H C"],
    k_BKMC: Float[Array, "B K M C"],
    seen: Seen,
    *,
    softcap: float,
    has_bias: bool,
    constrain: Constrain,
) -> str:
    """The kernel that `attend` runs: as `choose_kernel` says, with a line in the log, once.

    Raises:
      InputError: an unknown kernel; what `attention_cuts` refuses.
    """
    if requested == "reference":
        return requested
    case = attention_case(
        q_BLHC, k_BKMC, seen, softcap=softcap, has_bias=has_bias, constrain=constrain
    )
    kernel, reason = choose_kernel(requested, case)
    if reason is not None:
        say_once(reason)
    return kernel


@cache
def say_once(reason: str) -> None:
    """Warns in the log; a model's layers all have the same reason."""
    logging.getLogger("isoflop").warning(reason)
