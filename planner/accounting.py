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
from dataclasses import asdict, dataclass

from configs.model_config import AttentionConfig, ModelConfig
from configs.optimizer_config import MuonConfig
from configs.schema import RunConfig
from configs.sharding import ShardingRules, resolve

Shape = tuple[int, ...]

_MUON_ITERATIONS = 5  # of optax.contrib.muon, unless told otherwise


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


def non_embedding_params(config: ModelConfig) -> int:
    """Every scalar but those of the token table and the head."""
    outside = ("token_embedding", "head")
    return sum(spec.size for spec in parameters(config) if spec.path[0] not in outside)


@dataclass(frozen=True, kw_only=True)
class TrainingFlops:
    """Model FLOPs of training on one token, by component (forward and backward).

    embedding: 0.0, since the look-up is a gather and its gradient a scatter; neither multiplies.
    """

    embedding: float = 0.0
    attention_projections: float
    attention_scores: float
    mlp: float
    head: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def training_flops_per_token(
    config: ModelConfig, seq_len: int, *, causal: bool = True
) -> TrainingFlops:
    """6 per matmul parameter and 12·N·(H·C)·T for scores and weighted values, halved if causal.

    `causal=False` gives the PaLM variant. Rows are counted at full length: document boundaries
    inside a packed row, which mask more, are not credited.
    """
    a = config.attention
    by_part = _layer_matrix_params(config)
    scores = 12 * config.num_layers * a.num_heads * a.head_dim * seq_len
    return TrainingFlops(
        attention_projections=6.0 * by_part["attention"],
        attention_scores=scores * (0.5 if causal else 1.0),
        mlp=6.0 * by_part["mlp"],
        head=6.0 * config.vocab_size * config.emb_dim,
    )


@dataclass(frozen=True, kw_only=True)
class ExecutedFlops:
    """FLOPs of the matrix products one optimizer step executes, over the global batch.

    The first four are forward and backward together. recomputation: forward products repeated
    during the backward pass (remat="full"). optimizer: Muon's orthogonalisation; AdamW has none.
    """

    attention_projections: float
    attention_scores: float
    mlp: float
    head: float
    recomputation: float
    optimizer: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def executed_flops_per_step(config: RunConfig) -> ExecutedFlops:
    """FLOPs of the matrix products that a compiled train step really executes.

    Against the model FLOPs of `training_flops_per_token`: attention is not halved for the mask
    but counts the (b+1)/2b of the square its b causal blocks visit, and what rematerialisation
    repeats and the optimizer multiplies is added. Backward is twice forward in every layer: the
    first one's input gradient is needed too, by the embedding table. The look-up is a gather and
    the loss compares ids, so neither multiplies. The number of microbatches and the mesh change
    nothing here: they cut the same rows (work a mesh repeats on several devices is not counted).

    With remat="full" the backward pass repeats each layer's forward products but the MLP's last,
    whose result no gradient needs.
    """
    m, a = config.model, config.model.attention
    D, V, L = m.emb_dim, m.vocab_size, config.data.seq_len
    tokens = config.batch_tokens
    by_part = _layer_matrix_params(m)
    projections = 2.0 * tokens * by_part["attention"]
    scores = 4.0 * tokens * m.num_layers * a.num_heads * a.head_dim * L * _visited_share(a)
    mlp = 2.0 * tokens * by_part["mlp"]
    down = 2.0 * tokens * m.num_layers * m.mlp.mlp_dim * D
    return ExecutedFlops(
        attention_projections=3 * projections,
        attention_scores=3 * scores,
        mlp=3 * mlp,
        head=3 * 2.0 * tokens * D * V,
        recomputation=projections + scores + mlp - down if m.remat == "full" else 0.0,
        optimizer=_muon_flops(m) if isinstance(config.optimizer, MuonConfig) else 0.0,
    )


def forward_flops_chinchilla(
    *,
    layers: int,
    d: int,
    f: int,
    heads: int,
    kv: int,
    vocab: int,
    seq_len: int,
    embeddings_and_logits: bool = True,
) -> float:
    """Forward FLOPs of one sequence as the Chinchilla paper counts them.

    Embeddings 2·s·V·d (as a one-hot product); per layer query, key and value 3·2·s·d·(h·k),
    scores 2·s²·(h·k), softmax 3·h·s², weighted values 2·s²·(h·k), output 2·s·(h·k)·d and an
    ungated feed-forward 2·s·(2·d·f); logits 2·s·d·V. Attention is not halved for the mask.
    Source: Hoffmann et al. 2022, arXiv 2203.15556, appendix F. Training is three times this.

    Args:
      d, f, kv: widths of the model, the feed-forward and one head (the paper's d_model, ffw_size
        and key_size).
      embeddings_and_logits: False leaves out the embedding and the logits.
    """
    s, hk = seq_len, heads * kv
    attention = 3 * 2 * s * d * hk + 2 * s**2 * hk + 3 * heads * s**2 + 2 * s**2 * hk
    per_layer = attention + 2 * s * hk * d + 2 * s * (2 * d * f)
    outside = 2 * s * vocab * d + 2 * s * d * vocab
    return float(layers * per_layer + (outside if embeddings_and_logits else 0))


def chinchilla_params(
    *, layers: int, d: int, f: int, heads: int, kv: int, vocab: int = 32_000
) -> int:
    """Parameters of a model of the Chinchilla paper: L·(5·d·h·k + 2·d·f) + V·d.

    Five attention matrices, the fifth of Transformer-XL's relative positions; one tied table.
    Reproduces the sizes printed in Hoffmann et al. 2022, arXiv 2203.15556, table A9.
    """
    return layers * (5 * d * heads * kv + 2 * d * f) + vocab * d


@dataclass(frozen=True, kw_only=True)
class TrainingBytes:
    """Bytes of device memory on the fullest device while a step runs.

    Each component is given at its own largest; `total` is held at the fullest moment, when not
    all of them are.

    activations: what all layers keep for the backward pass. layer: what one layer's backward pass
    adds. logits: fp32, with softmax and gradient. update: what the optimizer's update adds.
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

    - Loss: activations of every layer and three fp32 arrays of a microbatch's logits (themselves,
      their exponentials, their gradient); of the gradients only the running sum. Where a mesh
      cuts the model width, also the head gathered whole and its gradient before it is cut again.
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
    row_shards = rules.shards("batch", sizes)
    rows = config.training.batch_size // config.training.num_microbatches // row_shards
    tokens = rows * config.data.seq_len
    kept_per_layer = int(tokens * _activation_bytes_per_token(config))
    scores = int(tokens * 4 * _visited_scores_per_token(config))
    is_muon = isinstance(config.optimizer, MuonConfig)
    params = 4 * elements
    optimizer = 4 * (2 * elements - matrices if is_muon else 2 * elements)
    accumulated = 0 if config.training.num_microbatches == 1 else 4 * elements
    gradients = accumulated + 4 * elements
    if m.remat == "full":
        activations = m.num_layers * tokens * m.emb_dim * _compute_item_bytes(m)
        layer = kept_per_layer + scores
    else:
        activations, layer = m.num_layers * kept_per_layer, scores
    vocab = m.vocab_size // rules.shards("vocab", sizes)
    logits = 3 * 4 * tokens * vocab
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
    config: ModelConfig, batch_size: int, length: int, item_bytes: int | None = None
) -> int:
    """Bytes of the cache generation keeps for `batch_size` rows of `length` slots.

    Keys and values of every layer, one int32 segment id a slot and one int32 length: the arrays
    of `model.decoder_only.empty_cache`.

    Args:
      item_bytes: of one key or value scalar; None: of the config's compute dtype.
    """
    a, item = config.attention, item_bytes or _compute_item_bytes(config)
    per_slot = 2 * config.num_layers * a.num_kv_heads * a.head_dim * item + 4
    return per_slot * batch_size * length + 4


def _compute_item_bytes(config: ModelConfig) -> int:
    return 2 if config.compute_dtype == "bfloat16" else 4


def _layer_matrix_params(config: ModelConfig) -> dict[str, int]:
    """Scalars in the kernels of all layers, by part."""
    by_part = {"attention": 0, "mlp": 0}
    for spec in parameters(config):
        if _is_layer_matrix(spec):
            by_part[spec.path[2]] += spec.size
    return by_part


def _muon_flops(config: ModelConfig) -> float:
    """FLOPs of Muon's Newton–Schulz iterations on every layer's kernels.

    Each of the five iterations takes a matrix X [m, n], m <= n (transposed if need be), to
    c0·X + (c1·A + c2·A·A)·X with A = X·Xᵀ: products of m·m·n, m·m·m and m·m·n multiply-adds.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; optax.contrib.muon.
    """
    flops = 0.0
    for spec in parameters(config):
        if not _is_layer_matrix(spec):
            continue
        num_layers, *shape = spec.shape
        num_inputs = 2 if spec.path[3] == "out" else 1  # the output projection contracts (H, C)
        inputs, outputs = math.prod(shape[:num_inputs]), math.prod(shape[num_inputs:])
        m, n = min(inputs, outputs), max(inputs, outputs)
        flops += _MUON_ITERATIONS * num_layers * 2.0 * (2 * m * m * n + m**3)
    return flops


def _elements_per_device(
    config: ModelConfig, rules: ShardingRules, sizes: Mapping[str, int]
) -> tuple[int, int]:
    """Parameters one device holds: all of them, and of the layers' kernels."""
    elements, matrices = 0, 0
    for spec in parameters(config):
        axes = resolve(rules, spec.logical_axes, spec.shape, sizes)
        held = spec.size // math.prod(sizes[axis] for dim in axes for axis in dim)
        elements += held
        if _is_layer_matrix(spec):
            matrices += held
    return elements, matrices


def _is_layer_matrix(spec: ParameterSpec) -> bool:
    """Whether it is a kernel inside the layers: what Muon orthogonalises."""
    return spec.is_matrix and spec.path[:2] == ("decoder", "layers")


def _activation_bytes_per_token(config: RunConfig) -> float:
    """Bytes a layer keeps per token for its backward pass: what JAX's autodiff stores of a scan.

    fp32: three arrays for each of the two norms' statistics (6·D), the attention weights.
    Compute dtype: every product's own input (5·D for query, key, value, gate and up, H·C for out,
    F for down), queries, keys and values (H·C, 2·K·C), the weights again as the second product
    reads them, and five more arrays of SwiGLU (5·F: gate, up, silu and its two factors). The
    causal half of the weights is skipped block by block where `causal_blocks` says so.
    """
    m, a, sizes = config.model, config.model.attention, config.mesh.axis_sizes
    shards = config.mesh.rules.shards
    item = _compute_item_bytes(m)
    heads = a.num_heads / shards("heads", sizes)
    kv_heads = a.num_kv_heads / shards("kv_heads", sizes)
    mlp = m.mlp.mlp_dim / shards("mlp", sizes)
    return (
        (6 * 4 + 5 * item) * m.emb_dim
        + 2 * item * (heads + kv_heads) * a.head_dim
        + (4 + item) * _visited_scores_per_token(config)
        + 6 * item * mlp
    )


def _visited_scores_per_token(config: RunConfig) -> float:
    """Attention scores of one layer and token on one device."""
    a = config.model.attention
    heads = a.num_heads / config.mesh.rules.shards("heads", config.mesh.axis_sizes)
    return heads * config.data.seq_len * _visited_share(a)


def _visited_share(config: AttentionConfig) -> float:
    """Share of the square of scores that the block-causal kernel computes."""
    return (config.causal_blocks + 1) / (2 * config.causal_blocks)
