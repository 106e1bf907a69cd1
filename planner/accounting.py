"""Every parameter, every FLOP and every byte of a config, counted without building the model.

Three definitions of a parameter count N, always told apart:
  total: every scalar the checkpoint holds;
  matmul: scalars that take part in matrix products: the layers' kernels and the output head
    (the tied table counts once, as the head; the look-up itself is no product; norms are none);
  non-embedding: total without the token table and the head.

FLOP convention: a multiply-add is two. Model FLOPs of training = 3 × forward; recomputation is
not counted. Attention is halved for causal masks; the PaLM variant (arXiv 2204.02311, appendix B)
does not halve it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from configs.schema import ModelConfig, RunConfig
from configs.sharding import ShardingRules, resolve

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """One parameter array: its path in the model's tree, shape, and a logical name per axis."""

    path: tuple[str, ...]
    shape: Shape
    logical_axes: tuple[str, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether matrix products use it (a norm's scale is no matrix)."""
        return self.path[-1] != "scale"


def parameters(config: ModelConfig) -> Iterator[ParameterSpec]:
    """Every parameter of the model, in the order of its story: table, layers, norm, head."""
    c, a = config, config.attention
    N, D, V, F = c.num_layers, c.emb_dim, c.vocab_size, c.mlp.mlp_dim
    H, K, C = a.num_heads, a.num_kv_heads, a.head_dim

    def layer(path: str, shape: Shape, *logical_axes: str) -> ParameterSpec:
        return ParameterSpec(
            path=("decoder", "layers", *path.split("/")),
            shape=(N, *shape),
            logical_axes=("layers", *logical_axes),
        )

    yield ParameterSpec(
        path=("token_embedding", "embedding"), shape=(V, D), logical_axes=("vocab", "embed")
    )
    yield layer("attention_norm/scale", (D,), "norm")
    yield layer("attention/query/kernel", (D, H, C), "embed", "heads", "head_dim")
    yield layer("attention/key/kernel", (D, K, C), "embed", "kv_heads", "head_dim")
    yield layer("attention/value/kernel", (D, K, C), "embed", "kv_heads", "head_dim")
    yield layer("attention/out/kernel", (H, C, D), "heads", "head_dim", "embed")
    yield layer("mlp_norm/scale", (D,), "norm")
    yield layer("mlp/gate/kernel", (D, F), "embed", "mlp")
    yield layer("mlp/up/kernel", (D, F), "embed", "mlp")
    yield layer("mlp/down/kernel", (F, D), "mlp", "embed")
    yield ParameterSpec(path=("decoder", "final_norm", "scale"), shape=(D,), logical_axes=("norm",))
    if not c.tie_embeddings:
        yield ParameterSpec(path=("head", "kernel"), shape=(D, V), logical_axes=("embed", "vocab"))


def total_params(config: ModelConfig) -> int:
    """Every scalar of the model."""
    return sum(spec.size for spec in parameters(config))


def matmul_params(config: ModelConfig) -> int:
    """Scalars in matrix products: layers' kernels and the head, the look-up table not."""
    matrices = sum(spec.size for spec in parameters(config) if spec.is_matrix)
    table = config.vocab_size * config.emb_dim
    return matrices if config.tie_embeddings else matrices - table


@dataclass(frozen=True, kw_only=True)
class TrainingFlops:
    """Model FLOPs of training on one token, by component (forward and backward)."""

    attention_projections: float
    attention_scores: float
    mlp: float
    head: float

    @property
    def total(self) -> float:
        return self.attention_projections + self.attention_scores + self.mlp + self.head


def training_flops_per_token(
    config: ModelConfig, seq_len: int, *, causal: bool = True
) -> TrainingFlops:
    """6 per matmul parameter and 12·N·(H·C)·T for scores and weighted values, halved if causal.

    `causal=False` gives the PaLM variant. Rows are counted at full length: document boundaries
    inside a packed row, which mask more, are not credited.
    """
    a = config.attention
    by_part = {"attention": 0, "mlp": 0}
    for spec in parameters(config):
        if spec.is_matrix and spec.path[:2] == ("decoder", "layers"):
            by_part[spec.path[2]] += spec.size
    scores = 12 * config.num_layers * a.num_heads * a.head_dim * seq_len
    return TrainingFlops(
        attention_projections=6.0 * by_part["attention"],
        attention_scores=scores * (0.5 if causal else 1.0),
        mlp=6.0 * by_part["mlp"],
        head=6.0 * config.vocab_size * config.emb_dim,
    )


@dataclass(frozen=True, kw_only=True)
class TrainingBytes:
    """Bytes of device memory on the fullest device while a step runs."""

    params: int
    optimizer: int
    gradients: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.params + self.optimizer + self.gradients + self.activations + self.logits


def training_bytes(config: RunConfig) -> TrainingBytes:
    """What a train step holds at its peak, per device, to first order.

    State is exact: fp32 parameters, two fp32 moments, fp32 gradients (twice when accumulated:
    the running sum and the microbatch's own), each cut as the sharding rules say. Activations
    count what the backward pass keeps of a microbatch: per layer the tensors listed in
    `_activation_floats_per_token`, attention weights included, or with full rematerialisation
    only each layer's input plus one layer in flight. Logits count once in fp32 for the forward
    pass and once for their gradient.
    """
    sizes, rules = config.mesh.axis_sizes, config.mesh.rules
    elements = _elements_per_device(config.model, rules, sizes)
    row_shards = rules.shards("batch", sizes)
    rows = config.training.batch_size // config.training.num_microbatches // row_shards
    tokens = rows * config.data.seq_len
    item = 2 if config.model.compute_dtype == "bfloat16" else 4
    per_layer = _activation_floats_per_token(config) * item
    layers = config.model.num_layers
    if config.model.remat == "full":
        kept = layers * config.model.emb_dim * item + per_layer
    else:
        kept = layers * per_layer
    vocab = config.model.vocab_size // rules.shards("vocab", sizes)
    return TrainingBytes(
        params=4 * elements,
        optimizer=8 * elements,
        gradients=4 * elements * (1 if config.training.num_microbatches == 1 else 2),
        activations=int(tokens * kept),
        logits=2 * 4 * tokens * vocab,
    )


def _elements_per_device(
    config: ModelConfig, rules: ShardingRules, sizes: Mapping[str, int]
) -> int:
    elements = 0
    for spec in parameters(config):
        axes = resolve(rules, spec.logical_axes, spec.shape, sizes)
        elements += spec.size // math.prod(sizes[axis] for dim in axes for axis in dim)
    return elements


def _activation_floats_per_token(config: RunConfig) -> float:
    """Values a layer keeps per token for its backward pass.

    Two normed inputs and two residual inputs (4·D), queries and attention output (2·H·C), keys and
    values (2·K·C), scores and weights (2·H·T, the causal half skipped block by block where
    `causal_blocks` says so), gate, up and their product (3·F).
    """
    m, a, sizes = config.model, config.model.attention, config.mesh.axis_sizes
    shards = config.mesh.rules.shards
    blocks = a.causal_blocks
    visited = (blocks + 1) / (2 * blocks)
    heads = a.num_heads / shards("heads", sizes)
    kv_heads = a.num_kv_heads / shards("kv_heads", sizes)
    mlp = m.mlp.mlp_dim / shards("mlp", sizes)
    return (
        4 * m.emb_dim
        + 2 * (heads + kv_heads) * a.head_dim
        + 2 * heads * config.data.seq_len * visited
        + 3 * mlp
    )
