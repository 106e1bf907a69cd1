"""Which kernel computes an attention: from facts known before anything is compiled."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from configs.errors import require
from model.constrain import Constrain
from model.kernels.over_mesh import attention_cuts
from model.kernels.seen import Seen
from model.kernels.splash import LANES

KERNELS = ("auto", "reference", "blockwise", "cudnn", "splash")

# From so many scores of a head on, the reference's matrix of them is too big to hold.
LONG_SCORES = 2048 * 2048


@dataclass(frozen=True, kw_only=True)
class AttentionCase:
    """An attention, as far as the choice of its kernel depends on it.

    L queries and M keys of a row, H heads, K key/value heads, of head dim C. platform: "cpu",
    "gpu" or "tpu". dtype: of queries, keys and values. length_shards: over how many devices a
    row's queries are cut. max_head_dim: of cuDNN on this GPU: 256 from Hopper on, else 128.
    """

    platform: str
    dtype: str
    L: int
    M: int
    H: int
    K: int
    C: int
    causal: bool
    window: int = 0
    softcap: float = 0.0
    has_bias: bool = False
    has_prefix: bool = False
    length_shards: int = 1
    max_head_dim: int = 128


class Choice(NamedTuple):
    """The kernel to run, and why it is not the one asked for (or the platform's own); else None."""

    kernel: str
    reason: str | None = None


def attention_case(
    q_BLHC: Float[Array, "B L H C"],
    k_BKMC: Float[Array, "B K M C"],
    seen: Seen,
    *,
    softcap: float,
    has_bias: bool,
    constrain: Constrain,
) -> AttentionCase:
    """The case of an attention that is being traced."""
    cuts = attention_cuts(constrain, q_BLHC.shape, k_BKMC.shape[1])
    platform = constrain.platform
    return AttentionCase(
        platform=platform,
        dtype=jnp.dtype(q_BLHC.dtype).name,
        L=q_BLHC.shape[1],
        M=k_BKMC.shape[2],
        H=q_BLHC.shape[2],
        K=k_BKMC.shape[1],
        C=q_BLHC.shape[3],
        causal=seen.spec.causal,
        window=seen.spec.window,
        softcap=softcap,
        has_bias=has_bias,
        has_prefix=seen.places.key_prefix_BM is not None,
        length_shards=constrain.num_devices(cuts.length),
        max_head_dim=_max_head_dim() if platform == "gpu" else 128,
    )


def choose_kernel(requested: str, case: AttentionCase) -> Choice:
    """The kernel for `case`: the one requested, or for "auto" the best there is.

    "auto" is splash attention on TPUs and cuDNN's on GPUs where they can, else `blockwise` from
    2048 × 2048 scores a head on, else `reference`. Where a kernel cannot, these two take its
    place, and the reason is given.

    Raises:
      InputError: `requested` is none of `KERNELS`.
    """
    require(requested in KERNELS, "model.attention.kernel", requested, f"one of {KERNELS}")
    if requested in ("reference", "blockwise"):
        return Choice(requested)
    plain = "blockwise" if case.L * case.M >= LONG_SCORES else "reference"
    kernel = requested
    if requested == "auto":
        kernel = {"tpu": "splash", "gpu": "cudnn"}.get(case.platform, plain)
    if kernel == plain:
        return Choice(plain)
    obstacle = _splash_obstacle(case) if kernel == "splash" else _cudnn_obstacle(case)
    if obstacle is None:
        return Choice(kernel)
    return Choice(plain, f"attention kernel {plain} in place of {kernel}: {obstacle}")


def _splash_obstacle(case: AttentionCase) -> str | None:
    """Why splash attention cannot compute `case`; None where it can."""
    own_queries = case.L // case.length_shards
    if case.platform != "tpu":
        return f"it needs a TPU, and this is a {case.platform}"
    if case.dtype not in ("bfloat16", "float32"):
        return f"it takes bfloat16 or float32, not {case.dtype}"
    if case.has_bias:
        return "it takes no bias on scores"
    if case.has_prefix:
        return "it takes no prefix that all may see"
    if own_queries % LANES or case.M % LANES:
        return f"{own_queries} queries and {case.M} keys on a device are not multiples of {LANES}"
    if case.C % 64:
        return f"head_dim {case.C} is not a multiple of 64"
    if (case.causal or case.window) and case.L != case.M:
        return f"it takes no causal or windowed mask of {case.L} queries on {case.M} keys"
    return None


def _cudnn_obstacle(case: AttentionCase) -> str | None:
    """Why cuDNN cannot compute `case`; None where it can."""
    if case.platform != "gpu":
        return f"it needs a GPU, and this is a {case.platform}"
    if case.dtype not in ("bfloat16", "float16"):
        return f"it takes bfloat16 or float16, not {case.dtype}"
    if case.softcap:
        return "it takes no softcap on scores"
    if case.C % 8 or case.C > case.max_head_dim:
        return f"head_dim {case.C} is not a multiple of 8 up to {case.max_head_dim}"
    if (case.L // case.length_shards) % 2 or case.M % 2:
        return f"with segments it takes even lengths, not {case.L} queries and {case.M} keys"
    if (case.causal or case.window) and case.L != case.M:
        return f"it takes no causal or windowed mask of {case.L} queries on {case.M} keys"
    return None


def _max_head_dim() -> int:
    """JAX asks the GPU of this machine, so a program for another machine's gets 128."""
    device = jax.devices()[0]
    capability = getattr(device, "compute_capability", "0.0")
    return 256 if device.platform == "gpu" and float(capability) >= 9.0 else 128
