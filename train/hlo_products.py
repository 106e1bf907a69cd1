"""FLOPs of one instruction that multiplies matrices. A multiply-add is two FLOPs.

Counted: `dot`, `convolution` (TPUs run dots as convolutions), library calls that carry a product's
dimension numbers (cuBLAS), cuDNN's attention, and kernels that state their own cost (Pallas with a
cost estimate).
"""

import functools
import math
import re
from collections.abc import Mapping

from train.hlo_text import Instruction, Shape, integers

_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_GEMM_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":\s*\[([^\]]*)\]')
_CALL_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_IS_PRODUCT = re.compile(
    r"matmul|gemm|dot|conv(?!ert)|dnn|attention|fmha|tpu_custom_call|mosaic|triton", re.IGNORECASE
)
_DIM_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_BATCH_GROUPS = re.compile(r"batch_group_count=(\d+)")
_STATED_FLOPS = re.compile(r'"flops":\s*"?(\d+)')
_SCORES = re.compile(r'"intermediate_tensor_shape":\s*\{[^{}]*"dimensions":\s*\[([^\]]*)\]')
_BACKWARD_PRODUCTS = 5  # scores again, and the gradients of weights, values, queries, keys


class UncountedKernelError(ValueError):
    """A library call or kernel that looks like a product but does not say how large a one."""


def call_target(instruction: Instruction) -> str:
    """Which library a custom call goes to; "" for anything else."""
    found = _CALL_TARGET.search(instruction.rest)
    return found[1] if found else ""


def kernel_name(instruction: Instruction) -> str:
    """What a kernel is called: its name in the program without the numbers XLA appends."""
    return re.sub(r"(\.(\d+|clone))+$", "", instruction.name)


def product_flops(instruction: Instruction, shapes: Mapping[str, Shape]) -> float:
    """FLOPs of one run of the instruction; 0.0 where it multiplies no matrices.

    Args:
      shapes: of the computation's instructions.

    Raises:
      UncountedKernelError: a custom call to something that multiplies, of unknown size.
    """
    match instruction.opcode:
        case "dot":
            contracted = _CONTRACTED.search(instruction.attributes)
            axes = integers(contracted[1]) if contracted else ()
            return _contraction_flops(instruction, shapes, axes)
        case "convolution":
            return _convolution_flops(instruction, shapes)
        case "custom-call":
            return _library_flops(instruction, shapes)
    return 0.0


def _contraction_flops(
    instruction: Instruction, shapes: Mapping[str, Shape], contracted: Shape
) -> float:
    left = shapes[instruction.operands[0]]
    return 2.0 * math.prod(instruction.shape) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(instruction: Instruction, shapes: Mapping[str, Shape]) -> float:
    """Pairs of an output and a window position that meet a real input, times the features.

    Padding and the holes of a dilated input are skipped: a TPU writes a batched product as a
    convolution over its batch axes, in which all but a diagonal is such holes.
    """
    labels = _DIM_LABELS.search(instruction.attributes)
    assert labels is not None, instruction.rest
    left_labels, kernel_labels, out_labels = labels.groups()
    left, kernel = (shapes[name] for name in instruction.operands[:2])
    window = _window(instruction)
    groups = _BATCH_GROUPS.search(instruction.attributes)
    pairs = 1
    for number, digit in enumerate(sorted(c for c in kernel_labels if c.isdigit())):
        pairs *= _valid_pairs(
            left[left_labels.index(digit)],
            kernel[kernel_labels.index(digit)],
            instruction.shape[out_labels.index(digit)],
            window.get("stride", {}).get(number, (1,))[0],
            window.get("pad", {}).get(number, (0, 0))[0],
            window.get("lhs_dilate", {}).get(number, (1,))[0],
            window.get("rhs_dilate", {}).get(number, (1,))[0],
        )
    rows = left[left_labels.index("b")] // (int(groups[1]) if groups else 1)
    features = kernel[kernel_labels.index("i")] * kernel[kernel_labels.index("o")]
    return 2.0 * rows * features * pairs


def _window(instruction: Instruction) -> dict[str, dict[int, Shape]]:
    """`size=8x2 pad=7_7x0_0` -> {"size": {0: (8,), 1: (2,)}, "pad": {0: (7, 7), 1: (0, 0)}}."""
    found = _WINDOW.search(instruction.attributes)
    settings = [part.split("=") for part in found[1].split()] if found else []
    return {
        name: {
            number: tuple(int(n) for n in re.findall(r"-?\d+", dim))
            for number, dim in enumerate(values.split("x"))
        }
        for name, values in settings
    }


@functools.cache
def _valid_pairs(
    size: int, window: int, out: int, stride: int, pad: int, dilation: int, window_dilation: int
) -> int:
    """Along one axis: pairs of an output and a window position that read a real input."""
    dilated = (size - 1) * dilation + 1
    count = 0
    for position in range(window):
        shift = position * window_dilation - pad
        # Outputs o with 0 <= o·stride + shift < dilated and o·stride + shift ≡ 0 (mod dilation).
        first = max(0, (stride - 1 - shift) // stride)
        last = min(out - 1, (dilated - 1 - shift) // stride)
        if last < first:
            continue
        if dilation == 1:
            count += last - first + 1
            continue
        period = dilation // math.gcd(stride, dilation)
        hits = [o for o in range(first, min(first + period, last + 1))
                if (o * stride + shift) % dilation == 0]  # fmt: skip
        count += sum((last - o) // period + 1 for o in hits)
    return count


def _library_flops(instruction: Instruction, shapes: Mapping[str, Shape]) -> float:
    target = call_target(instruction)
    if not _IS_PRODUCT.search(target):
        return 0.0
    if "fmha" in target:
        return _attention_flops(instruction, shapes, target)
    if contracted := _GEMM_CONTRACTED.search(instruction.rest):
        return _contraction_flops(instruction, shapes, integers(contracted[1]))
    if stated := _STATED_FLOPS.search(instruction.rest):
        return float(stated[1])
    raise UncountedKernelError(
        f"hlo_text: got library call {target!r} (%{instruction.name}), expected one that "
        "states its dot_dimension_numbers or its FLOPs; they cannot be read from the text"
    )


def _attention_flops(instruction: Instruction, shapes: Mapping[str, Shape], target: str) -> float:
    """cuDNN's attention: two products over the scores [B, H, L, M] forward, five backward; half
    of the pairs under a causal mask, which it skips."""
    found = _SCORES.search(instruction.rest)
    if found is None:
        raise UncountedKernelError(
            f"hlo_text: got library call {target!r} (%{instruction.name}), expected one that "
            "states its intermediate_tensor_shape"
        )
    scores = integers(found[1])
    width = math.prod(shapes[instruction.operands[0]]) / math.prod(scores[:-1])  # of a query
    products = _BACKWARD_PRODUCTS if "Backward" in target else 2
    half = 0.5 if re.search(r'"mask_type":\s*"[A-Z_]*CAUSAL', instruction.rest) else 1.0
    return half * products * 2.0 * math.prod(scores) * width
