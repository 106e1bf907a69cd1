"""Every byte of device memory that training and generation hold, to first order."""

import math
from dataclasses import dataclass

from configs.model_config import ModelConfig
from configs.optimizer_config import MuonConfig
from configs.schema import RunConfig
from configs.sharding import resolve
from planner.activation_memory import item_bytes, layers_bytes, places_per_row, rows_per_device
from planner.attention_kernel import Platform
from planner.optimizer_memory import state_elements
from planner.parameters import parameters, sides
from planner.tpu_memory import tpu_bytes

# Of a chunk of fp32 logits, as train/losses.py cuts them.
_CHUNK_BYTES = {"cpu": 8 * 2**20, "gpu": 512 * 2**20}


@dataclass(frozen=True, kw_only=True)
class TrainingBytes:
    """Bytes of device memory on the fullest device while a step runs.

    Each component is given at its own largest; `total` is what the compiler reports as arguments
    and temporaries: on CPU and GPU the fullest moment, when not all of the components are there.

    activations: what all layers of both sides keep for the backward pass. layer: what one layer's
    forward and backward pass add. logits: what the loss adds: a chunk of logits with softmax and
    gradient, the head gathered whole and its gradient. update: what the optimizer's update adds.
    """

    params: int
    optimizer: int
    gradients: int
    activations: int
    layer: int
    logits: int
    update: int
    total: int


def training_bytes(config: RunConfig, *, platform: Platform = "cpu") -> TrainingBytes:
    """What a train step holds per device: arguments and temporaries, as the compiler reports them.

    State is exact: fp32 parameters, what the optimizer remembers of them (`state_elements`), fp32
    gradients (twice when accumulated: the running sum and the microbatch's own), each cut as the
    sharding rules say. The state is donated, so its next value takes no room of its own.

    On CPU and GPU the peak is the largest of three moments:

    - Loss: activations of every layer of both sides; the fp32 gradient of the head's kernel, whole
      along the model width, where a mesh cuts that also the kernel as gathered; two fp32 arrays
      of a chunk's logits (themselves and their gradient); of the gradients only the running sum.
    - A layer's backward pass: activations, gradients, the fp32 gradient of one layer's attention
      scores, what rematerialisation has to compute again of one layer, half of what it kept.
    - Update: the summed gradient, and on a CPU its mean, which the norm needs whole before any of
      it is clipped; for Muon's matrices also the iterate and its product.

    On TPUs it is the larger of two moments of `planner.tpu_memory`.

    Not counted: batch, on CPU and GPU fragmentation, 16-bit copies of the parameters, layers'
    kernels gathered one at a time. XLA's CPU backend holds more than this in bf16 (it widens stored
    arrays back to fp32) and does not profit from rematerialisation when layers are unrolled.

    Args:
      platform: whose compiler; it decides on the attention kernel too.
    """
    elements, matrices = _elements_per_device(config)
    params, optimizer = 4 * elements, 4 * state_elements(config)
    # A GPU's update makes the mean on its way; elsewhere it is an array.
    update = 0 if platform == "gpu" else 4 * elements
    if isinstance(config.optimizer, MuonConfig):
        update += 4 * matrices
    if platform == "tpu":
        held = tpu_bytes(config)
        return TrainingBytes(
            params=params,
            optimizer=optimizer,
            gradients=held.gradients,
            activations=held.activations,
            layer=held.layer + held.kernels + held.casts,
            logits=held.loss,
            update=update,
            total=params + optimizer + held.fullest,
        )
    accumulated = 0 if config.training.num_microbatches == 1 else 4 * elements
    gradients = accumulated + 4 * elements
    layers, loss = layers_bytes(config, platform), _loss_bytes(config, platform)
    fullest = max(
        accumulated + layers.kept + loss,
        gradients + layers.kept + layers.added,
        4 * elements + update,
    )
    return TrainingBytes(
        params=params,
        optimizer=optimizer,
        gradients=gradients,
        activations=layers.kept,
        layer=layers.added,
        logits=loss,
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
    a, item = config.attention, item_bytes or (2 if config.compute_dtype == "bfloat16" else 4)
    per_slot = 2 * config.num_layers * a.num_kv_heads * a.head_dim * item + 4
    return per_slot * batch_size * (length + memory_length) + 4


def _elements_per_device(config: RunConfig) -> tuple[int, int]:
    """Parameters one device holds: all of them, and of Muon's matrices."""
    rules, sizes = config.mesh.rules, config.mesh.axis_sizes
    elements, matrices = 0, 0
    for spec in parameters(config.model):
        axes = resolve(rules, spec.logical_axes, spec.shape, sizes)
        held = spec.size // math.prod(sizes[axis] for dim in axes for axis in dim)
        elements += held
        if spec.is_muons:
            matrices += held
    return elements, matrices


def _loss_bytes(config: RunConfig, platform: Platform) -> int:
    """What the chunked loss holds besides activations; whole logits where there is no vocabulary.

    Chunks as train/losses.py cuts them. With a head that only classifies there is little to count.
    """
    m, rules, sizes = config.model, config.mesh.rules, config.mesh.axis_sizes
    vocab = m.vocab_size // rules.shards("vocab", sizes)
    tokens = rows_per_device(config) * places_per_row(config, sides(m)[-1])
    if not m.has_vocab_head:
        return 0
    chunk = max(128, _CHUNK_BYTES[platform] // (4 * vocab) // 128 * 128)
    is_cut = rules.shards("embed", sizes) > 1
    of_kernel = 4 + (item_bytes(config) if is_cut else 0)
    return 2 * 4 * vocab * min(tokens, chunk) + of_kernel * vocab * m.emb_dim
