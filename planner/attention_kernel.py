"""Which kernel computes a model's attention, and how many pairs of query and key it visits.

The rules are those of model/kernels/choice.py, of a config: the planner has no JAX. A test holds
the two side by side.
"""

import math
from typing import Literal

from configs.model_config import ModelConfig
from configs.objective_config import ExampleLengths
from configs.position_config import AlibiConfig, RelativeBiasConfig
from configs.schema import RunConfig
from planner.parameters import Side

Platform = Literal["cpu", "gpu", "tpu"]
Kernel = Literal["reference", "blockwise", "cudnn", "splash"]

LONG_SCORES = 2048 * 2048  # so many scores of a head and `auto` no longer holds them all
# Places of a kernel's blocks of keys; the reference has none.
_BLOCKS = {"reference": 1, "blockwise": 512, "cudnn": 128, "splash": 1024}
LANES = 128  # of a TPU's registers: arrays are padded to as many along their last axis


def attention_kernel(
    config: RunConfig, side: Side, platform: Platform, *, of_memory: bool = False
) -> Kernel:
    """The kernel of a side's layers.

    Args:
      of_memory: of cross-attention, not of self-attention.
    """
    m, lengths = config.model, config.lengths
    a, queries = m.attention, side.length(lengths)
    keys = lengths.encoder_length if of_memory else queries
    plain: Kernel = "blockwise" if queries * keys >= LONG_SCORES else "reference"
    wanted = a.kernel
    if wanted == "auto":
        best: dict[Platform, Kernel] = {"tpu": "splash", "gpu": "cudnn", "cpu": plain}
        wanted = best[platform]
    if wanted == "splash":
        return "splash" if _can_splash(config, side, platform, of_memory) else plain
    if wanted == "cudnn":
        return "cudnn" if _can_cudnn(config, side, platform, of_memory) else plain
    return wanted


def attentions(
    config: RunConfig, side: Side, platform: Platform, *, is_window: bool = False
) -> list[tuple[Kernel, int]]:
    """Kernel and visited pairs of a row in each attention of a layer: to itself, to the memory."""
    kernel = attention_kernel(config, side, platform)
    pairs = kernel_pairs(config, side, kernel, is_window=is_window)
    found: list[tuple[Kernel, int]] = [(kernel, pairs)]
    if side.reads_memory:
        kernel = attention_kernel(config, side, platform, of_memory=True)
        keys = config.lengths.encoder_length
        block = min(_BLOCKS[kernel], keys)
        found.append((kernel, config.lengths.length * math.ceil(keys / block) * block))
    return found


def kernel_pairs(config: RunConfig, side: Side, kernel: Kernel, *, is_window: bool = False) -> int:
    """Pairs of query and key that one layer's self-attention computes for a row.

    The reference computes all of them, or what its causal blocks visit. The others visit the blocks
    of keys that a block of queries sees something of: as many as `model.kernels.blockwise` does
    (blocks of 512, of queries at most 16, with windows 64); splash attention's have up to 1,024,
    cuDNN's are taken to have 128.
    """
    if kernel == "reference":
        return own_pairs_visited(config.model, side, config.lengths)
    length = side.length(config.lengths)
    block = min(_BLOCKS[kernel], length)
    window = config.model.attention.window if is_window else 0
    most = math.inf if kernel != "blockwise" else 64 if window else 16
    size = block * max(1, math.ceil(length / (block * most)))
    sees_later = not side.is_causal or config.lengths.has_prefix
    pairs = 0
    for start in range(0, length, size):
        stop, first, last = min(start + size, length), 0, -(-length // block)
        if window:
            first = max(0, start - window + 1) // block
            last = min(last, -(-(stop + window - 1) // block))
        if not sees_later:
            last = min(last, -(-stop // block))
        pairs += (stop - start) * max(1, last - first) * block
    return pairs


def own_pairs_visited(config: ModelConfig, side: Side, lengths: ExampleLengths) -> int:
    """Of one layer's self-attention: the square of the row, or what its causal blocks visit."""
    length = side.length(lengths)
    if not side.is_causal or lengths.has_prefix:
        return length * length
    block = -(-length // config.attention.causal_blocks)
    ends = [min(start + block, length) for start in range(0, length, block)]
    return sum((end - block * i) * end for i, end in enumerate(ends))


def memory_pairs_visited(side: Side, lengths: ExampleLengths) -> int:
    """Of one layer's cross-attention; 0 where there is none."""
    return lengths.length * lengths.encoder_length if side.reads_memory else 0


def _can_splash(config: RunConfig, side: Side, platform: Platform, of_memory: bool) -> bool:
    own, keys = _own_queries(config, side), _keys(config, side, of_memory)
    return (
        platform == "tpu"
        and not _has_bias(config, of_memory)
        and not _has_prefix(side, config.lengths, of_memory)
        and own % LANES == 0
        and keys % LANES == 0
        and config.model.attention.head_dim % 64 == 0
    )


def _can_cudnn(config: RunConfig, side: Side, platform: Platform, of_memory: bool) -> bool:
    a, own, keys = (
        config.model.attention,
        _own_queries(config, side),
        _keys(config, side, of_memory),
    )
    return (
        platform == "gpu"
        and config.model.compute_dtype == "bfloat16"
        and not a.logit_softcap
        and a.head_dim % 8 == 0
        and a.head_dim <= 128
        and own % 2 == 0
        and keys % 2 == 0
    )


def _own_queries(config: RunConfig, side: Side) -> int:
    mesh = config.mesh
    return side.length(config.lengths) // mesh.rules.shards("length", mesh.axis_sizes)


def _keys(config: RunConfig, side: Side, of_memory: bool) -> int:
    return config.lengths.encoder_length if of_memory else side.length(config.lengths)


def _has_bias(config: RunConfig, of_memory: bool) -> bool:
    return not of_memory and isinstance(config.model.position, RelativeBiasConfig | AlibiConfig)


def _has_prefix(side: Side, lengths: ExampleLengths, of_memory: bool) -> bool:
    return not of_memory and side.is_causal and lengths.has_prefix
