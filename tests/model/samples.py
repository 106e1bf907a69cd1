"""Tiny models of every kind, packed rows, and gradients of a fixed random reading of the logits."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.mlp_config import GEGLUConfig, GELUConfig, ReLUConfig, SquaredReLUConfig, SwiGLUConfig
from configs.model_config import (
    AttentionConfig,
    EmbeddingConfig,
    LayerNormConfig,
    LinearHeadConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    RMSNormConfig,
)
from configs.position_config import (
    AlibiConfig,
    LearnedPositionConfig,
    LinearScalingConfig,
    NoPositionConfig,
    RelativeBiasConfig,
    RopeConfig,
    SinusoidalPositionConfig,
)
from model.build import Params, abstract_params, build_model, forward

VOCAB_SIZE = 64

# Machine code need not be fast here: unoptimised it compiles in half the time.
QUICK_COMPILE: dict[str, Any] = {"xla_backend_optimization_level": 0}

POSITIONS = {
    "rope": RopeConfig(),
    "learned": LearnedPositionConfig(num_positions=64, offset=2),
    "sinusoidal": SinusoidalPositionConfig(theta=100.0),
    "relative bias": RelativeBiasConfig(num_buckets=8, max_distance=12),
    "alibi": AlibiConfig(),
    "none": NoPositionConfig(),
}


class Rows(NamedTuple):
    """What a forward pass takes, int32 [B, L] each; segment 0 is padding.

    Encoder fields [B, M] of an encoder-decoder, None otherwise.
    """

    tokens: np.ndarray
    positions: np.ndarray
    segment_ids: np.ndarray
    prefix: np.ndarray | None = None
    encoder_tokens: np.ndarray | None = None
    encoder_positions: np.ndarray | None = None
    encoder_segment_ids: np.ndarray | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What `forward` takes beside tokens."""
        fields = self._asdict()
        del fields["tokens"]
        return {name: None if x is None else jnp.asarray(x) for name, x in fields.items()}


def tiny_model(**changes: Any) -> ModelConfig:
    """Two unrolled layers of width 32 in fp32, grouped queries, untied."""
    fields = {
        "vocab_size": VOCAB_SIZE,
        "emb_dim": 32,
        "num_layers": 2,
        "attention": AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8),
        "mlp": SwiGLUConfig(mlp_dim=48),
        "tie_embeddings": False,
        "scan_layers": False,
    }
    if changes.get("architecture") == "encoder_decoder":
        fields["num_encoder_layers"] = 2
    return ModelConfig(**(fields | changes))


def attention(**changes: Any) -> AttentionConfig:
    """Four heads of eight, two of keys and values."""
    fields: dict[str, Any] = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
    return AttentionConfig(**(fields | changes))


_BIASED = attention(num_kv_heads=4, use_qkv_bias=True, use_out_bias=True)

# One model in the manner of each published family: together every member of every union.
VARIANTS = {
    "gpt2": tiny_model(
        attention=_BIASED,
        position=POSITIONS["learned"],
        norm=LayerNormConfig(),
        mlp=GELUConfig(mlp_dim=48, gelu="tanh"),
        tie_embeddings=True,
    ),
    "gemma2": tiny_model(
        attention=attention(
            window=4, layer_pattern=("window", "full"), logit_softcap=2.0, query_scale=0.5
        ),
        norm=RMSNormConfig(epsilon=1e-3, scale_offset=1.0),
        norm_placement="sandwich",
        mlp=GEGLUConfig(mlp_dim=48),
        embedding=EmbeddingConfig(scale_by_width=True),
        head=LinearHeadConfig(logit_softcap=3.0),
        tie_embeddings=True,
    ),
    "gemma3": tiny_model(
        num_layers=3,
        attention=attention(window=3, layer_pattern=("window", "window", "full"), qk_norm=True),
        position=RopeConfig(
            theta=1000.0, local_theta=100.0, scaling=LinearScalingConfig(factor=4.0)
        ),
        norm=RMSNormConfig(scale_offset=1.0),
    ),
    "alibi": tiny_model(
        attention=attention(num_heads=3, num_kv_heads=1),
        position=AlibiConfig(),
        mlp=SquaredReLUConfig(mlp_dim=48, use_bias=True),
    ),
    "bert": tiny_model(
        architecture="encoder_only",
        attention=_BIASED,
        position=POSITIONS["learned"],
        norm=LayerNormConfig(epsilon=1e-3),
        norm_placement="post",
        mlp=GELUConfig(mlp_dim=48, gelu="exact"),
        embedding=EmbeddingConfig(num_token_types=2, use_norm=True),
        head=MaskedLMHeadConfig(),
        tie_embeddings=True,
    ),
    "modernbert": tiny_model(
        architecture="encoder_only",
        num_layers=3,
        attention=attention(window=3, layer_pattern=("full", "window", "window"), qk_norm=True),
        position=RopeConfig(theta=1000.0, local_theta=100.0),
        norm=LayerNormConfig(use_bias=False),
        skip_first_norm=True,
        mlp=GEGLUConfig(mlp_dim=48, gelu="exact", use_bias=True),
        embedding=EmbeddingConfig(use_norm=True),
        head=MaskedLMHeadConfig(use_dense_bias=False),
    ),
    "t5": tiny_model(
        architecture="encoder_decoder",
        num_encoder_layers=1,
        attention=attention(query_scale=1.0),
        position=POSITIONS["relative bias"],
        mlp=ReLUConfig(mlp_dim=48),
        head=LinearHeadConfig(logit_scale=32**-0.5),
        tie_embeddings=True,
    ),
    "bart": tiny_model(
        architecture="encoder_decoder",
        num_encoder_layers=1,
        attention=_BIASED,
        position=POSITIONS["learned"],
        norm=LayerNormConfig(),
        norm_placement="post",
        mlp=GELUConfig(mlp_dim=48, gelu="exact"),
        embedding=EmbeddingConfig(use_norm=True, scale_by_width=True),
        head=LinearHeadConfig(use_bias=True),
        tie_embeddings=True,
    ),
    "sinusoidal": tiny_model(
        architecture="encoder_decoder",
        num_layers=1,
        num_encoder_layers=2,
        attention=attention(qk_norm=True),
        position=POSITIONS["sinusoidal"],
        norm_placement="sandwich",
    ),
}


def random_params(config: ModelConfig, seed: int = 0) -> Params:
    """Normal kernels of deviation 1/sqrt(emb_dim), norm scales about one; drawn by NumPy.

    Scales of exactly one, biases of zero and the small projections of a fresh model would hide
    one that is not applied or a layer that does little. (Compiling JAX's own generator takes
    seconds.)
    """
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        normal = rng.standard_normal(leaf.shape)
        is_scale = path[-1].key == "scale"
        drawn = 1 + 0.3 * normal if is_scale else config.emb_dim**-0.5 * normal
        return jnp.asarray(drawn, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, _shapes(config))


def packed_rows(
    lengths: list[int],
    *,
    num_rows: int = 1,
    padding: int = 0,
    encoder_lengths: list[int] | None = None,
    encoder_padding: int = 0,
) -> Rows:
    """Rows of random tokens: documents of `lengths`, then padding; likewise the encoder's side."""
    own = Rows(*_one_side(lengths, num_rows, padding))
    if encoder_lengths is None:
        return own
    return with_encoder(own, *_one_side(encoder_lengths, num_rows, encoder_padding))


def with_encoder(
    rows: Rows, tokens: np.ndarray, positions: np.ndarray, segment_ids: np.ndarray
) -> Rows:
    """Rows with an encoder's beside them."""
    return rows._replace(
        encoder_tokens=tokens, encoder_positions=positions, encoder_segment_ids=segment_ids
    )


def rows_for(config: ModelConfig, *, num_rows: int = 2) -> Rows:
    """Rows of 16 places, two documents and padding; an encoder's rows of other lengths."""
    both = config.architecture == "encoder_decoder"
    return packed_rows(
        [9, 5],
        num_rows=num_rows,
        padding=2,
        encoder_lengths=[4, 7] if both else None,
        encoder_padding=1,
    )


def _one_side(lengths: list[int], num_rows: int, padding: int) -> tuple[np.ndarray, ...]:
    L = sum(lengths) + padding
    tokens = np.random.default_rng(L).integers(4, VOCAB_SIZE, (num_rows, L), dtype=np.int32)
    positions, segment_ids = np.zeros((2, num_rows, L), np.int32)
    begin = 0
    for number, length in enumerate(lengths, start=1):
        positions[:, begin : begin + length] = np.arange(length)
        segment_ids[:, begin : begin + length] = number
        begin += length
    return tokens, positions, segment_ids


def logits_of(config: ModelConfig, params: Params, rows: Rows) -> np.ndarray:
    """Logits [B, L, V]."""
    return np.asarray(_forward(config)(params, rows))


def logits_and_gradient(
    config: ModelConfig, params: Params, rows: Rows
) -> tuple[np.ndarray, Params]:
    """Logits, and the gradient of their product with a fixed random array, 0 on padding."""
    shape = (*rows.tokens.shape, config.vocab_size)
    reading = np.random.default_rng(7).standard_normal(shape).astype(np.float32)
    gradient, logits = _gradient(config)(params, rows, reading * (rows.segment_ids > 0)[..., None])
    return np.asarray(logits), gradient


def relative_difference(a: Any, b: Any) -> float:
    """|a - b| / |b| in the Euclidean norm of the whole array, in double precision."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30))


def assert_trees_close(a: Any, b: Any, tolerance: float) -> None:
    """Same structure, and every leaf of `a` within `tolerance` of `b`, relative to its norm."""
    differences = jax.tree.map(relative_difference, a, b)
    path, worst = max(jax.tree_util.tree_leaves_with_path(differences), key=lambda leaf: leaf[1])
    assert worst <= tolerance, f"{jax.tree_util.keystr(path)} differs by {worst:.2e}"


def _logits(config: ModelConfig, params: Params, rows: Rows) -> jax.Array:
    return forward(build_model(config), params, jnp.asarray(rows.tokens), **rows.fields)


@cache
def _shapes(config: ModelConfig) -> Params:
    return abstract_params(config)


@cache
def _forward(config: ModelConfig):
    return jax.jit(partial(_logits, config), compiler_options=QUICK_COMPILE)


@cache
def _gradient(config: ModelConfig):
    def product(params: Params, rows: Rows, reading: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits_BLV = _logits(config, params, rows)
        return jnp.sum(logits_BLV * reading), logits_BLV

    return jax.jit(jax.grad(product, has_aux=True), compiler_options=QUICK_COMPILE)
