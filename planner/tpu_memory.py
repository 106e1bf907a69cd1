"""What a train step holds on a TPU besides its state, at the fullest moment, as the compiler says.

The TPU's compiler reports two figures. `temp_size_in_bytes` counts some arrays of different moments
that share memory one by one; `peak_memory_in_bytes`, arguments included, is what it allocates, and
what it compares with the chip's memory. This is about the second.

Letters: T tokens of a microbatch on one device, D model width, H heads and K key/value heads of one
device, C head dim, F MLP width of one device, v entries of the vocabulary on one device.
"""

import math
from typing import NamedTuple

from configs.mlp_config import GATED, MoEConfig
from configs.schema import RunConfig
from configs.sharding import resolve
from planner.activation_memory import (
    heads_per_device,
    held_scores,
    item_bytes,
    kept_until,
    layers_bytes,
    mlp_width_per_device,
    places_per_row,
    rows_per_device,
    sharing_tokens,
)
from planner.attention_kernel import LANES, attention_kernel
from planner.parameters import ParameterSpec, Side, parameters, sides

_CHUNK_BYTES = 2**28  # of fp32 logits, as train/losses.py cuts them

# Fitted: how many arrays of a kind a program holds, forward and backward together.
_WIDTH_ARRAYS = 4  # [T, D]: inputs, norms, residuals and their gradients
_HEAD_ARRAYS = 3  # [T, H, C]: queries, outputs, their gradients, in both orders of axes
_KEY_ARRAYS = 5  # [T, K, C]
_STATISTICS = 1  # [T, H], fp32: a kernel's, in all lanes
_SCORE_BYTES = 4  # of a score, where the reference holds them
_GATED_ARRAYS, _UNGATED_ARRAYS = 3, 3  # [T, F]
_CHOSEN_WIDE_ARRAYS = 3  # [slots, F] of a mixture
_CHOSEN_ARRAYS = 4  # [slots, D] of a mixture: rows of choices and their gradients
_GATHERED_ARRAYS = 2  # [T, D] of the tokens that devices of an expert axis share
_FEATURE_ARRAYS = 4  # [T, D] while the loss runs: outputs of layers and norm, their gradients


class TpuBytes(NamedTuple):
    """Bytes of one device, by what they are for, and of all that is there at the fullest moment.

    activations: kept for the backward pass. gradients: fp32, of all parameters; of attention's in
    whole lanes. casts: 16-bit copies of all layers' kernels, cut as they are stored, where they are
    gathered for use. kernels: of one layer, gathered. layer: one layer's activations while it runs.
    loss: the head, what its gradient is made of, and a chunk of logits.
    fullest: the larger of two moments, the loss (activations, casts, the head; where gradients are
    accumulated also their sum) and a layer's backward pass (all but the head; of an encoder's
    layers what the decoder kept is gone). A microbatch's gradients are added where the sum lies.
    """

    activations: int
    gradients: int
    casts: int
    kernels: int
    layer: int
    loss: int
    fullest: int


def tpu_bytes(config: RunConfig) -> TpuBytes:
    """The parts of what a train step's temporaries are on a TPU."""
    gradients, of_layers = 0, 0
    for spec in parameters(config.model):
        held = spec.size // _cuts(config, spec)
        gradients += round(4 * held * _lanes_per_head(spec))
        of_layers += held if spec.is_layer_kernel else 0
    activations, loss = layers_bytes(config, "tpu").kept, _loss(config)
    casts = 2 * of_layers if item_bytes(config) == 2 and _is_width_cut(config) else 0
    summed = gradients if config.training.num_microbatches > 1 else 0
    of_sides = [
        (kept_until(config, side, "tpu"), _gathered_kernels(config, side), _layer(config, side))
        for side in sides(config.model)
    ]
    fullest = max(activations + loss + summed, *(gradients + sum(of) for of in of_sides))
    _, kernels, layer = map(max, zip(*of_sides, strict=True))
    return TpuBytes(activations, gradients, casts, kernels, layer, loss, fullest=casts + fullest)


def _cuts(config: RunConfig, spec: ParameterSpec, *, whole: str = "") -> int:
    """Over how many devices a parameter is cut, but for its logical axis `whole`."""
    sizes = config.mesh.axis_sizes
    axes = resolve(config.mesh.rules, spec.logical_axes, spec.shape, sizes)
    named = zip(spec.logical_axes, axes, strict=True)
    return math.prod(sizes[axis] for name, of in named if name != whole for axis in of)


def _is_width_cut(config: RunConfig) -> bool:
    return config.mesh.rules.shards("embed", config.mesh.axis_sizes) > 1


def _gathered_kernels(config: RunConfig, side: Side) -> int:
    """Kernels of one layer of a side, whole along the model width; 0 where they are stored so."""
    if not _is_width_cut(config):
        return 0
    whole = sum(
        spec.size // (side.num_layers * _cuts(config, spec, whole="embed"))
        for spec in parameters(config.model)
        if spec.is_layer_kernel and spec.path[0] == side.name
    )
    return item_bytes(config) * whole


def _layer(config: RunConfig, side: Side) -> int:
    """One layer's activations, forward and backward."""
    m, item, rows = config.model, item_bytes(config), rows_per_device(config)
    heads, kv_heads = heads_per_device(config)
    C, D = m.attention.head_dim, m.emb_dim
    tokens = rows * places_per_row(config, side)
    num_attentions = 2 if side.reads_memory else 1
    per_token = _HEAD_ARRAYS * heads * _padded(C) + _KEY_ARRAYS * kv_heads * _padded(C)
    held = item * tokens * (_WIDTH_ARRAYS * D + num_attentions * per_token)
    if attention_kernel(config, side, "tpu") != "reference":
        held += _STATISTICS * 4 * tokens * heads * LANES
    held += _SCORE_BYTES * rows * held_scores(config, side, "tpu")
    return held + _mlp(config, tokens)


def _mlp(config: RunConfig, tokens: int) -> int:
    """An MLP's part of it; a mixture's over all slots of the devices that share their tokens."""
    m, item, width = config.model, item_bytes(config), mlp_width_per_device(config)
    if not isinstance(m.mlp, MoEConfig):
        num_wide = _GATED_ARRAYS if isinstance(m.mlp, GATED) else _UNGATED_ARRAYS
        return item * tokens * num_wide * width
    shared = sharing_tokens(config)
    slots = tokens * shared * m.mlp.experts_per_token
    held = item * slots * (_CHOSEN_WIDE_ARRAYS * width + _CHOSEN_ARRAYS * m.emb_dim)
    return held + item * tokens * _GATHERED_ARRAYS * m.emb_dim * (shared if shared > 1 else 0)


def _loss(config: RunConfig) -> int:
    """The head's kernel as gathered, and either its gradient's sum over chunks in fp32 or, where
    that is less, every logit's gradient; a chunk of fp32 logits; features (train/losses.py). The
    gradient as it travels takes the kernel's place.
    """
    m, rules, sizes = config.model, config.mesh.rules, config.mesh.axis_sizes
    if not m.has_vocab_head:
        return 0
    side = sides(m)[-1]
    tokens = rows_per_device(config) * places_per_row(config, side)
    vocab, item = m.vocab_size // rules.shards("vocab", sizes), item_bytes(config)
    chunk = 4 * vocab * min(tokens, max(LANES, _CHUNK_BYTES // (4 * vocab)))
    kept = min(4 * m.emb_dim, item * tokens) if item == 2 else 4 * m.emb_dim
    features = item * tokens * _FEATURE_ARRAYS * m.emb_dim
    return vocab * (item * m.emb_dim + kept) + chunk + features


def _lanes_per_head(spec: ParameterSpec) -> float:
    """What a parameter's gradient takes of its size: more where heads do not fill the lanes."""
    C = dict(zip(spec.logical_axes, spec.shape, strict=True)).get("head_dim", LANES)
    return _padded(C) / C


def _padded(width: int) -> int:
    return -(-width // LANES) * LANES
