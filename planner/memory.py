"""Every byte of device memory that training and generation hold, to first order."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from configs.mlp_config import (
    GATED,
    GEGLUConfig,
    GELUConfig,
    MoEConfig,
    ReLUConfig,
    SquaredReLUConfig,
    SwiGLUConfig,
)
from configs.model_config import ModelConfig
from configs.objective_config import ExampleLengths
from configs.optimizer_config import MuonConfig
from configs.schema import RunConfig
from configs.sharding import ShardingRules, resolve
from planner.flops import expert_slots, memory_pairs_visited, own_pairs_visited
from planner.parameters import Side, parameters, sides

# Arrays of MLP width that autodiff keeps of an ungated MLP, the input of its last product among
# them; a gate adds itself and the product with it.
_WIDE_ARRAYS: Mapping[type, int] = {
    SwiGLUConfig: 4,
    MoEConfig: 4,
    ReLUConfig: 2,
    SquaredReLUConfig: 3,
}
_GELU_ARRAYS = {"exact": 4, "tanh": 6}


@dataclass(frozen=True, kw_only=True)
class TrainingBytes:
    """Bytes of device memory on the fullest device while a step runs.

    Each component is given at its own largest; `total` is held at the fullest moment, when not
    all of them are.

    activations: what all layers of both sides keep for the backward pass. layer: what one layer's
    backward pass adds. logits: fp32, with softmax and gradient. update: what the optimizer's update
    adds.
    """

    params: int
    optimizer: int
    gradients: int
    activations: int
    layer: int
    logits: int
    update: int
    total: int


def training_bytes(config: RunConfig) -> TrainingBytes:
    """What a train step holds at its peak, per device, to first order.

    State is exact: fp32 parameters, fp32 moments (two; for Muon's matrices one), fp32 gradients
    (twice when accumulated: the running sum and the microbatch's own), each cut as the sharding
    rules say. The state is donated, so its next value takes no room of its own. The peak is the
    largest of three moments:

    - Loss: activations of every layer of both sides and three fp32 arrays of a microbatch's logits
      (themselves, their exponentials, their gradient); of the gradients only the running sum. Where
      a mesh cuts the model width, also the head gathered whole and its gradient before it is cut
      again.
    - A layer's backward pass: activations, gradients, the fp32 gradient of one layer's attention
      scores, and with full rematerialisation (which keeps only each layer's input) everything
      one layer keeps.
    - Update: the summed gradient, and its mean, which the norm needs whole before any of it is
      clipped; for Muon's matrices also the iterate and its product.

    Not counted: batch, fragmentation, 16-bit copies of the parameters, layers' kernels gathered
    one at a time. XLA's CPU backend holds more than this in bf16 (it widens stored arrays back to
    fp32) and does not profit from rematerialisation when layers are unrolled.
    """
    m, sizes, rules = config.model, config.mesh.axis_sizes, config.mesh.rules
    elements, matrices = _elements_per_device(m, rules, sizes)
    rows = config.training.batch_size // config.training.num_microbatches
    rows //= rules.shards("batch", sizes)
    is_muon = isinstance(config.optimizer, MuonConfig)
    params = 4 * elements
    optimizer = 4 * (2 * elements - matrices if is_muon else 2 * elements)
    accumulated = 0 if config.training.num_microbatches == 1 else 4 * elements
    gradients = accumulated + 4 * elements
    activations, layer = _layers_bytes(config, rows)
    vocab = m.vocab_size // rules.shards("vocab", sizes)
    logits = 3 * 4 * rows * config.lengths.length * vocab
    is_cut = rules.shards("embed", sizes) > 1
    gathered = (4 + _compute_item_bytes(m)) * vocab * m.emb_dim if is_cut else 0
    update = 4 * (elements + matrices if is_muon else elements)
    fullest = max(
        accumulated + activations + logits + gathered,
        gradients + activations + layer,
        4 * elements + update,
    )
    return TrainingBytes(
        params=params,
        optimizer=optimizer,
        gradients=gradients,
        activations=activations,
        layer=layer,
        logits=logits,
        update=update,
        total=params + optimizer + fullest,
    )


def kv_cache_bytes(
    config: ModelConfig,
    batch_size: int,
    length: int,
    item_bytes: int | None = None,
    *,
    memory_length: int = 0,
) -> int:
    """Bytes of the cache generation keeps for `batch_size` rows of `length` slots.

    Keys and values of every decoder layer, of its own slots and of the encoder's places, one int32
    segment id for each and one int32 length: the arrays of `model.cache.empty_cache`. An
    encoder-only model has no cache: 0.

    Args:
      item_bytes: of one key or value scalar; None: of the config's compute dtype.
      memory_length: places of the encoder's rows.
    """
    if config.architecture == "encoder_only":
        return 0
    a, item = config.attention, item_bytes or _compute_item_bytes(config)
    per_slot = 2 * config.num_layers * a.num_kv_heads * a.head_dim * item + 4
    return per_slot * batch_size * (length + memory_length) + 4


def _compute_item_bytes(config: ModelConfig) -> int:
    return 2 if config.compute_dtype == "bfloat16" else 4


def _elements_per_device(
    config: ModelConfig, rules: ShardingRules, sizes: Mapping[str, int]
) -> tuple[int, int]:
    """Parameters one device holds: all of them, and of Muon's matrices."""
    elements, matrices = 0, 0
    for spec in parameters(config):
        axes = resolve(rules, spec.logical_axes, spec.shape, sizes)
        held = spec.size // math.prod(sizes[axis] for dim in axes for axis in dim)
        elements += held
        if spec.is_muons:
            matrices += held
    return elements, matrices


def _layers_bytes(config: RunConfig, rows: int) -> tuple[int, int]:
    """What all layers keep for a microbatch's backward pass, and what one of them adds to it.

    Besides its layers an encoder leaves a decoder its output and collects its gradient, in fp32. A
    mixture keeps its experts' kernels as it multiplied by them.
    """
    m, lengths, item = config.model, config.lengths, _compute_item_bytes(config.model)
    activations, layer, experts = 0, 0, _expert_elements(config)
    for side in sides(m):
        kept = rows * _layer_bytes_per_row(config, side, lengths) + item * experts
        gradient = rows * 4 * _scores_per_row(config, side, lengths)
        if m.remat == "full":
            kept, gradient = rows * side.length(lengths) * m.emb_dim * item, gradient + kept
        activations += side.num_layers * kept
        layer = max(layer, gradient)
        if side.reads_memory:
            activations += rows * lengths.encoder_length * m.emb_dim * (item + 4)
    return activations, layer


def _expert_elements(config: RunConfig) -> int:
    """Scalars of one layer's experts on one device, gathered over what cuts the model's width."""
    m, rules, sizes = config.model, config.mesh.rules, config.mesh.axis_sizes
    if not isinstance(m.mlp, MoEConfig):
        return 0
    whole = 3 * m.mlp.num_experts * m.emb_dim * m.mlp.mlp_dim
    return whole // (rules.shards("experts", sizes) * rules.shards("mlp", sizes))


def _layer_bytes_per_row(config: RunConfig, side: Side, lengths: ExampleLengths) -> int:
    """Bytes a layer keeps of a row for its backward pass: what JAX's autodiff stores of a scan.

    fp32: three arrays for the statistics of each norm, the attention weights, two of a softcap.
    Compute dtype: every product's own input (D for each of query, key, value, gate and up, H·C for
    out, F for down), queries, keys and values (H·C, 2·K·C), the weights again as the second
    product reads them, and of the MLP gate, up, the activation and the factors of its derivative.
    The causal half of the weights is skipped block by block where `causal_blocks` says so.
    """
    m, a = config.model, config.model.attention
    heads, kv_heads = _heads_per_device(config)
    D, C, item = m.emb_dim, a.head_dim, _compute_item_bytes(m)
    length = side.length(lengths)
    num_attentions = 2 if side.reads_memory else 1
    num_norms = (num_attentions + 1) * (2 if m.norm_placement == "sandwich" else 1)
    per_place = num_norms * 3 * 4 * D
    # Cross-attention's keys and values are of the encoder's places.
    per_place += item * (3 * D + 2 * (heads + kv_heads) * C)
    if side.reads_memory:
        per_place += item * (D + 2 * heads * C)
    kept = length * per_place + _mlp_bytes_per_row(config, length)
    if side.reads_memory:
        kept += lengths.encoder_length * item * 2 * (D + kv_heads * C)
    if a.qk_norm:
        keys = length + (lengths.encoder_length if side.reads_memory else 0)
        kept += 3 * 4 * C * (num_attentions * length * heads + keys * kv_heads)
    per_score = 4 + item + (8 if a.logit_softcap else 0)
    return kept + per_score * _scores_per_row(config, side, lengths)


def _mlp_bytes_per_row(config: RunConfig, length: int) -> int:
    """Bytes that a layer's MLP keeps of a row's `length` places.

    A mixture keeps of every slot what a dense MLP keeps of a place, and of every choice its
    result, which the gate's gradient needs.
    """
    m, mlp, item = config.model, config.model.mlp, _compute_item_bytes(config.model)
    shards = config.mesh.rules.shards("mlp", config.mesh.axis_sizes)
    is_gated = isinstance(mlp, (*GATED, MoEConfig))
    if isinstance(mlp, (GEGLUConfig, GELUConfig)):
        num_wide = _GELU_ARRAYS[mlp.gelu] + 2 * is_gated
    else:
        num_wide = _WIDE_ARRAYS[type(mlp)] + 2 * is_gated
    num_inputs = 2 if is_gated else 1
    per_place = item * (num_inputs * m.emb_dim + num_wide * mlp.mlp_dim // shards)
    if not isinstance(mlp, MoEConfig):
        return length * per_place
    slots = expert_slots(config)
    choices = length * mlp.experts_per_token
    return (
        round(choices * slots.computed / slots.chosen) * per_place
        + choices * item * m.emb_dim
        + length * 4 * 2 * mlp.num_experts
    )


def _heads_per_device(config: RunConfig) -> tuple[int, int]:
    a, rules, sizes = config.model.attention, config.mesh.rules, config.mesh.axis_sizes
    return (
        a.num_heads // rules.shards("heads", sizes),
        a.num_kv_heads // rules.shards("kv_heads", sizes),
    )


def _scores_per_row(config: RunConfig, side: Side, lengths: ExampleLengths) -> int:
    """Attention scores that one layer computes of a row on one device."""
    heads, _ = _heads_per_device(config)
    own = own_pairs_visited(config.model, side, lengths)
    return heads * (own + memory_pairs_visited(side, lengths))
