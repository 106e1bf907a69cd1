"""cuDNN's attention: counted in a program's text, and compared with the reference on a GPU.

    .venv/bin/python -m benchmarks.gpu_attention OUT.json

Outputs and gradients of bfloat16 operands, against the reference in float32 on the same operands.
How far the reference in bfloat16 is from it is recorded beside: a kernel ought to be no worse.

Legend: B batch, L queries, M keys, H heads, K key/value heads, C head dim.
"""

import re
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from configs.serialize import write_json

_CUDNN_CALL = re.compile(r'custom_call_target="__cudnn\$fmha(\w*)"')
TOLERANCE = 2e-2  # of norms; bfloat16 rounds to 4e-3, and a backward pass rounds several times


@dataclass(frozen=True, kw_only=True)
class AttentionCheck:
    """An attention to compare: two documents and padding in each row."""

    name: str
    L: int
    H: int
    K: int
    C: int
    causal: bool
    window: int = 0
    has_bias: bool = False


CHECKS = (
    AttentionCheck(name="causal, grouped queries", L=2048, H=8, K=2, C=128, causal=True),
    AttentionCheck(name="causal, head_dim 64", L=2048, H=8, K=8, C=64, causal=True),
    AttentionCheck(name="causal, window 512", L=2048, H=4, K=4, C=128, causal=True, window=512),
    AttentionCheck(name="both ways", L=512, H=8, K=8, C=64, causal=False),
    AttentionCheck(name="both ways, bias", L=512, H=8, K=8, C=64, causal=False, has_bias=True),
)
SMOKE_CHECKS = (
    AttentionCheck(name="causal, grouped queries", L=64, H=4, K=2, C=16, causal=True),
    AttentionCheck(name="both ways, bias", L=32, H=2, K=2, C=16, causal=False, has_bias=True),
)


def cudnn_calls(hlo_text: str) -> dict[str, int]:
    """How often a program's text calls cuDNN's attention: {"forward": 2, "backward": 1}.

    A call in a loop over layers counts once. With full rematerialisation the forward one stands
    in the program twice.
    """
    kinds = Counter(
        "backward" if name.endswith("Backward") else "forward"
        for name in _CUDNN_CALL.findall(hlo_text)
    )
    return {"forward": kinds["forward"], "backward": kinds["backward"]}


def compare(
    check: AttentionCheck, implementation: Literal["cudnn", "xla"] = "cudnn"
) -> dict[str, Any]:
    """Relative errors (norm of the difference over the norm) of outputs and of each gradient.

    Args:
      implementation: "xla" answers the kernel's call without cuDNN, on any machine.

    Returns:
      `kernel` and `reference`, the latter in bfloat16: {"out": …, "q": …, "k": …, "v": …,
      "bias": …}; `ok`: all of the kernel's are below `TOLERANCE`.
    """
    import jax
    import jax.numpy as jnp

    from model.kernels.cudnn import cudnn_attention
    from model.kernels.reference import dot_product_attention
    from model.kernels.seen import Seen
    from model.masks import MaskSpec, row_places

    B, L = 2, check.L
    slots_L = jnp.arange(L)
    # A document over three eighths of the row, another one, and padding in the last eighth.
    segments_L = jnp.where(slots_L < 3 * L // 8, 1, jnp.where(slots_L < 7 * L // 8, 2, 0))
    segments_BL = jnp.broadcast_to(segments_L, (B, L))
    seen = Seen(MaskSpec(causal=check.causal, window=check.window), row_places(segments_BL))
    keys = jax.random.split(jax.random.key(0), 5)
    shapes: dict[str, tuple[int, ...]] = {
        "q": (B, L, check.H, check.C),
        "k": (B, check.K, L, check.C),
        "v": (B, check.K, L, check.C),
    }
    if check.has_bias:
        shapes["bias"] = (check.H, L, L)
    operands = {
        name: jax.random.normal(key, shape, jnp.float32).astype(jnp.bfloat16)
        for (name, shape), key in zip(shapes.items(), keys, strict=False)
    }
    is_text_BL = segments_BL > 0
    scale = check.C**-0.5
    pull_BLHC = jax.random.normal(keys[4], shapes["q"]) * is_text_BL[:, :, None, None]

    def kernel(q: Any, k: Any, v: Any, bias: Any = None) -> jax.Array:
        return cudnn_attention(
            q, k, v, seen, scale=scale, bias_HLM=bias, implementation=implementation
        )

    def reference(q: Any, k: Any, v: Any, bias: Any = None) -> jax.Array:
        return dot_product_attention(
            q, k, v, seen.mask_BLM, scale=scale, softcap=0.0, bias_HLM=bias
        )

    def results(attention: Any, dtype: Any) -> dict[str, jax.Array]:
        inputs = {name: value.astype(dtype) for name, value in operands.items()}

        def loss(inputs: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            out_BLHC = attention(**inputs).astype(jnp.float32) * is_text_BL[:, :, None, None]
            return jnp.sum(out_BLHC * pull_BLHC), out_BLHC

        gradients, out_BLHC = jax.jit(jax.grad(loss, has_aux=True))(inputs)
        return {"out": out_BLHC} | gradients

    with jax.default_matmul_precision("highest"):  # not TF32, which GPUs take for fp32
        exact = results(reference, jnp.float32)

    def errors(found: dict[str, jax.Array]) -> dict[str, float]:
        def error(name: str) -> float:
            difference = found[name].astype(jnp.float32) - exact[name]
            return float(jnp.linalg.norm(difference) / jnp.linalg.norm(exact[name]))

        return {name: error(name) for name in exact}

    of_kernel = errors(results(kernel, jnp.bfloat16))
    return asdict(check) | {
        "kernel": of_kernel,
        "reference": errors(results(reference, jnp.bfloat16)),
        "ok": all(error < TOLERANCE for error in of_kernel.values()),
    }


def main(args: list[str]) -> int:
    """Compares all cases and writes them to a file; 0 if all are within the tolerance."""
    is_smoke = "--smoke" in args
    import jax

    records = [
        compare(check, "xla" if is_smoke else "cudnn")
        for check in (SMOKE_CHECKS if is_smoke else CHECKS)
    ]
    is_ok = all(record["ok"] for record in records)
    device = jax.devices()[0].device_kind
    write_json(
        Path(args[0]),
        {"status": "measured", "device": device, "tolerance": TOLERANCE, "ok": is_ok}
        | {"checks": records},
    )
    return 0 if is_ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
