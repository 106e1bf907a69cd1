"""Every parameter of a config, counted without building the model.

Letters: V vocabulary, D model width, N layers of a side, H heads, K kv heads, C head width, F MLP
width, E experts.

Definitions of a parameter count, always told apart:
  total: every scalar the checkpoint holds;
  active: total without the experts of a mixture that a token is not sent to;
  matmul: scalars that one token meets in matrix products: the kernels (of E experts as many as it
    is sent to) and the output head (the tied table counts once, as the head; the look-up itself
    is no product; norms, biases and tables that are added are none);
  non-embedding: total without what surrounds the layers: tables of tokens, positions and types,
    the norm of their sum, and the head.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from configs.mlp_config import GATED, MoEConfig
from configs.model_config import (
    ClassHeadConfig,
    LayerNormConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    NoHeadConfig,
    SequenceClassificationHeadConfig,
)
from configs.objective_config import ExampleLengths
from configs.position_config import LearnedPositionConfig, RelativeBiasConfig

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
    def is_kernel(self) -> bool:
        """Whether activations are multiplied by it: no vector, no table."""
        return self.path[-1] == "kernel"

    @property
    def is_matrix(self) -> bool:
        """Whether it is a kernel or a table: no norm's scale and no bias."""
        return self.path[-1] not in ("scale", "bias")

    @property
    def is_layer_kernel(self) -> bool:
        """Whether it is a kernel inside the layers."""
        return self.is_kernel and self.path[1] == "layers"

    @property
    def is_muons(self) -> bool:
        """Whether Muon orthogonalises it: the layers' kernels, routers excepted."""
        return self.is_layer_kernel and self.path[-2] != "router"

    @property
    def is_expert(self) -> bool:
        """Whether it belongs to a mixture's experts, not to the router."""
        return "experts" in self.path


class Side(NamedTuple):
    """A stack of layers: its name in the tree, how many, who sees whom.

    is_causal: no place sees a later one. reads_memory: layers have cross-attention.
    """

    name: str
    num_layers: int
    is_causal: bool
    reads_memory: bool = False

    def length(self, lengths: ExampleLengths) -> int:
        """Places of an example on this side."""
        has_own = self.name == "encoder" and lengths.encoder_length
        return lengths.encoder_length if has_own else lengths.length


def sides(config: ModelConfig) -> tuple[Side, ...]:
    """The stacks of an architecture, in the order in which they run."""
    match config.architecture:
        case "encoder_only":
            return (Side("encoder", config.num_layers, False),)
        case "decoder_only":
            return (Side("decoder", config.num_layers, True),)
        case "encoder_decoder":
            return (
                Side("encoder", config.num_encoder_layers, False),
                Side("decoder", config.num_layers, True, True),
            )


def parameters(config: ModelConfig) -> Iterator[ParameterSpec]:
    """Every parameter of the model, in the order of its story: table, sides, head."""
    D, V = config.emb_dim, config.vocab_size
    yield _spec("token_embedding/embedding", (V, D), "vocab", "embed")
    for side in sides(config):
        yield from _embedding(config, f"{side.name}_embedding")
        if isinstance(config.position, RelativeBiasConfig):
            size = (config.position.num_buckets, config.attention.num_heads)
            yield _spec(f"{side.name}/relative_bias/embedding", size, "buckets", "heads")
        for spec in _layer(config, side):
            yield replace(
                spec,
                path=(side.name, "layers", *spec.path),
                shape=(side.num_layers, *spec.shape),
                logical_axes=("layers", *spec.logical_axes),
            )
        if config.norm_placement != "post":
            yield from _norm(config, f"{side.name}/final_norm")
    yield from _head(config)


def total_params(config: ModelConfig) -> int:
    """Every scalar of the model."""
    return sum(spec.size for spec in parameters(config))


def active_params(config: ModelConfig) -> int:
    """Every scalar but those of the experts that a token is not sent to."""
    return sum(active_size(config, spec) for spec in parameters(config))


def matmul_params(config: ModelConfig) -> int:
    """Scalars one token meets in matrix products: kernels and the head, the look-up table not."""
    kernels = sum(active_size(config, spec) for spec in parameters(config) if spec.is_kernel)
    return kernels + (config.vocab_size * config.emb_dim if has_tied_head(config) else 0)


def non_embedding_params(config: ModelConfig) -> int:
    """Every scalar of the layers and the norms after them."""
    names = [side.name for side in sides(config)]
    return sum(spec.size for spec in parameters(config) if spec.path[0] in names)


def active_size(config: ModelConfig, spec: ParameterSpec) -> int:
    """How many of a parameter's scalars one token meets: all, or its share of the experts."""
    if spec.is_expert and isinstance(config.mlp, MoEConfig):
        return spec.size * config.mlp.experts_per_token // config.mlp.num_experts
    return spec.size


def has_tied_head(config: ModelConfig) -> bool:
    """Whether logits are products with the token table."""
    return config.tie_embeddings and config.has_vocab_head


def _spec(path: str, shape: Shape, *logical_axes: str) -> ParameterSpec:
    return ParameterSpec(path=tuple(path.split("/")), shape=shape, logical_axes=logical_axes)


def _norm(config: ModelConfig, path: str) -> Iterator[ParameterSpec]:
    yield _spec(f"{path}/scale", (config.emb_dim,), "norm")
    if isinstance(config.norm, LayerNormConfig) and config.norm.use_bias:
        yield _spec(f"{path}/bias", (config.emb_dim,), "norm")


def _linear(
    path: str, shape: Shape, axes: Sequence[str], num_inputs: int, bias_axes: Sequence[str] | None
) -> Iterator[ParameterSpec]:
    """A kernel, and where `bias_axes` names its axes a bias of the produced ones."""
    yield _spec(f"{path}/kernel", shape, *axes)
    if bias_axes is not None:
        yield _spec(f"{path}/bias", shape[num_inputs:], *bias_axes)


def _embedding(config: ModelConfig, path: str) -> Iterator[ParameterSpec]:
    D, num_types = config.emb_dim, config.embedding.num_token_types
    if isinstance(config.position, LearnedPositionConfig):
        size = (config.position.num_positions, D)
        yield _spec(f"{path}/position/embedding", size, "positions", "embed")
    if num_types:
        yield _spec(f"{path}/token_type/embedding", (num_types, D), "token_types", "embed")
    if config.embedding.use_norm:
        yield from _norm(config, f"{path}/norm")


def _layer(config: ModelConfig, side: Side) -> Iterator[ParameterSpec]:
    """One layer's parameters, without the layer axis."""
    sublayers = ("attention", "cross_attention") if side.reads_memory else ("attention",)
    for name in (*sublayers, "mlp"):
        yield from _norm(config, f"{name}_norm")
        if name == "mlp":
            yield from _mlp(config)
        else:
            yield from _attention(config, name)
        if config.norm_placement == "sandwich":
            yield from _norm(config, f"{name}_post_norm")


def _attention(config: ModelConfig, path: str) -> Iterator[ParameterSpec]:
    a, D = config.attention, config.emb_dim
    H, K, C = a.num_heads, a.num_kv_heads, a.head_dim
    for name, heads, axis in (
        ("query", H, "heads"),
        ("key", K, "kv_heads"),
        ("value", K, "kv_heads"),
    ):
        bias_axes = (axis, "head_dim") if a.use_qkv_bias else None
        axes = ("embed", axis, "head_dim")
        yield from _linear(f"{path}/{name}", (D, heads, C), axes, 1, bias_axes)
    if a.qk_norm:
        yield _spec(f"{path}/query_norm/scale", (C,), "head_dim")
        yield _spec(f"{path}/key_norm/scale", (C,), "head_dim")
    out_axes = ("heads", "head_dim", "embed")
    yield from _linear(f"{path}/out", (H, C, D), out_axes, 2, ("norm",) if a.use_out_bias else None)


def _mlp(config: ModelConfig) -> Iterator[ParameterSpec]:
    mlp, D, F = config.mlp, config.emb_dim, config.mlp.mlp_dim
    if isinstance(mlp, MoEConfig):
        E = mlp.num_experts
        yield _spec("mlp/router/kernel", (D, E), "embed", "router")
        for name in ("gate", "up"):
            yield _spec(f"mlp/experts/{name}/kernel", (E, D, F), "experts", "embed", "mlp")
        yield _spec("mlp/experts/down/kernel", (E, F, D), "experts", "mlp", "embed")
        return
    for name in ("gate", "up") if isinstance(mlp, GATED) else ("up",):
        bias_axes = ("mlp",) if mlp.use_bias else None
        yield from _linear(f"mlp/{name}", (D, F), ("embed", "mlp"), 1, bias_axes)
    yield from _linear("mlp/down", (F, D), ("mlp", "embed"), 1, ("norm",) if mlp.use_bias else None)


def _head(config: ModelConfig) -> Iterator[ParameterSpec]:
    head, D, V = config.head, config.emb_dim, config.vocab_size
    if isinstance(head, NoHeadConfig):
        return
    if isinstance(head, ClassHeadConfig):
        if isinstance(head, SequenceClassificationHeadConfig):
            yield from _linear("head/classes/dense", (D, D), ("embed", "norm"), 1, ("norm",))
        yield from _linear(
            "head/classes/out", (D, head.num_labels), ("embed", "norm"), 1, ("norm",)
        )
        return
    if isinstance(head, MaskedLMHeadConfig):
        bias_axes = ("norm",) if head.use_dense_bias else None
        yield from _linear("head/dense", (D, D), ("embed", "norm"), 1, bias_axes)
        yield from _norm(config, "head/norm")
    if not config.tie_embeddings:
        yield _spec("head/kernel", (D, V), "embed", "vocab")
    if head.use_bias:
        yield _spec("head/bias", (V,), "vocab")
