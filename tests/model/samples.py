"""Tiny models, packed rows, and gradients of a fixed random reading of the logits."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs.model_config import AttentionConfig, ModelConfig, SwiGLUConfig
from model.build import Params, abstract_params, build_model, forward

VOCAB_SIZE = 64

# Machine code need not be fast here: unoptimised it compiles in half the time.
QUICK_COMPILE: dict[str, Any] = {"xla_backend_optimization_level": 0}


class Rows(NamedTuple):
    """What a forward pass takes, int32 [B, L] each; segment 0 is padding."""

    tokens: np.ndarray
    positions: np.ndarray
    segment_ids: np.ndarray


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
    return ModelConfig(**(fields | changes))


def random_params(config: ModelConfig, seed: int = 0) -> Params:
    """Normal kernels of deviation 1/sqrt(emb_dim), norm scales about one; drawn by NumPy.

    Scales of exactly one and the small projections of a fresh model would hide a scale that is
    not applied or a layer that does little. (Compiling JAX's own generator takes seconds.)
    """
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        normal = rng.standard_normal(leaf.shape)
        is_scale = path[-1].key == "scale"
        drawn = 1 + 0.3 * normal if is_scale else config.emb_dim**-0.5 * normal
        return jnp.asarray(drawn, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(config))


def packed_rows(lengths: list[int], *, num_rows: int = 1, padding: int = 0) -> Rows:
    """Rows of random tokens: documents of `lengths`, then padding."""
    L = sum(lengths) + padding
    tokens = np.random.default_rng(L).integers(4, VOCAB_SIZE, (num_rows, L), dtype=np.int32)
    positions, segment_ids = np.zeros((2, num_rows, L), np.int32)
    begin = 0
    for number, length in enumerate(lengths, start=1):
        positions[:, begin : begin + length] = np.arange(length)
        segment_ids[:, begin : begin + length] = number
        begin += length
    return Rows(tokens, positions, segment_ids)


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
    tokens, positions, segment_ids = map(jnp.asarray, rows)
    model = build_model(config)
    return forward(model, params, tokens, positions=positions, segment_ids=segment_ids)


@cache
def _forward(config: ModelConfig):
    return jax.jit(partial(_logits, config), compiler_options=QUICK_COMPILE)


@cache
def _gradient(config: ModelConfig):
    def product(params: Params, rows: Rows, reading: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits_BLV = _logits(config, params, rows)
        return jnp.sum(logits_BLV * reading), logits_BLV

    return jax.jit(jax.grad(product, has_aux=True), compiler_options=QUICK_COMPILE)
