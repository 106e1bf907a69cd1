"""Attention against plain NumPy, and the ways of computing it against each other."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.model_config import AttentionConfig
from model.kernels import attention_weights, causal_attention, dot_product_attention
from tests.model.samples import assert_trees_close, logits_and_gradient, tiny_model

B, L, M, H, K, C = 2, 5, 7, 4, 2, 6
SCALE = C**-0.5


def random_heads(length: int, heads: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((B, length, heads, C)).astype(np.float32)


def as_taken(q, k, v, *rest):
    """Heads of keys and values first, as the kernels have them."""
    first = (q, np.swapaxes(k, 1, 2), np.swapaxes(v, 1, 2), *rest)
    return map(jnp.asarray, first)


def naive_attention(q, k, v, mask, *, scale=SCALE, softcap=0.0, bias=None):
    """One query, one head at a time, in double precision; rows without keys stay 0."""
    out = np.zeros(q.shape)
    for b, i, h in np.ndindex(q.shape[:3]):
        kv_head = h // (q.shape[2] // k.shape[2])
        keys = [j for j in range(k.shape[1]) if mask[b, i, j]]
        if not keys:
            continue
        scores = np.array([scale * q[b, i, h].astype(float) @ k[b, j, kv_head] for j in keys])
        if bias is not None:
            scores = scores + bias[h, i, keys]
        weights = np.exp(softcap * np.tanh(scores / softcap) if softcap else scores)
        values = [w * v[b, j, kv_head] for w, j in zip(weights / weights.sum(), keys, strict=True)]
        out[b, i, h] = np.sum(values, axis=0)
    return out


def test_reference_attention_equals_naive_numpy():
    q, k, v = random_heads(L, H, 0), random_heads(M, K, 1), random_heads(M, K, 2)
    mask = np.random.default_rng(3).random((B, L, M)) < 0.6
    mask[0, 2] = False
    out = dot_product_attention(*as_taken(q, k, v, mask), scale=SCALE)
    seen = mask.any(-1)
    np.testing.assert_allclose(
        np.asarray(out)[seen], naive_attention(q, k, v, mask)[seen], atol=1e-6
    )
    assert np.isfinite(out).all()


def test_attention_weights_are_what_the_output_is_made_of():
    q, k, v = random_heads(L, H, 0), random_heads(M, K, 1), random_heads(M, K, 2)
    mask = np.random.default_rng(3).random((B, L, M)) < 0.6
    mask[..., 0] = True
    q, k, v, mask = as_taken(q, k, v, mask)
    weights_BKGLM = attention_weights(q, k, mask, scale=SCALE)
    np.testing.assert_allclose(weights_BKGLM.sum(-1), 1.0, rtol=1e-6)
    assert not np.asarray(weights_BKGLM)[:, :, :, ~np.asarray(mask)[0]][0].any()
    out = np.einsum("bkglm,bkmc->blkgc", weights_BKGLM, v).reshape(B, L, H, C)
    np.testing.assert_allclose(dot_product_attention(q, k, v, mask, scale=SCALE), out, atol=1e-6)


@pytest.mark.parametrize(("scale", "softcap", "biased"), [(2.0, 0.0, True), (1.0, 1.5, False)])
def test_scores_are_scaled_then_biased_then_capped_then_masked(scale, softcap, biased):
    q, k, v = random_heads(L, H, 0), random_heads(M, K, 1), random_heads(M, K, 2)
    rng = np.random.default_rng(3)
    mask = rng.random((B, L, M)) < 0.6
    mask[..., 0] = True
    bias = rng.standard_normal((H, L, M)).astype(np.float32) if biased else None
    out = dot_product_attention(
        *as_taken(q, k, v, mask),
        scale=scale,
        softcap=softcap,
        bias_HLM=None if bias is None else jnp.asarray(bias),
    )
    expected = naive_attention(q, k, v, mask, scale=scale, softcap=softcap, bias=bias)
    # Scores of up to ten in fp32 leave weights 1e-6 off.
    np.testing.assert_allclose(out, expected, atol=5e-6)


def test_large_scores_do_not_overflow():
    q, k, v = 1e3 * random_heads(L, H, 0), 1e3 * random_heads(L, K, 1), random_heads(L, K, 2)
    mask = np.ones((B, L, L), bool)
    out = dot_product_attention(*as_taken(q, k, v, mask), scale=SCALE)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= np.abs(v).max() * (1 + 1e-6)  # a mean of values


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_attention_in_causal_blocks_equals_attention_at_once(num_blocks):
    q, k, v = random_heads(L, H, 0), random_heads(L, K, 1), random_heads(L, K, 2)
    mask = np.tile(np.tri(L, dtype=bool), (B, 1, 1))
    mask[1, 3:, :3] = False
    bias = np.random.default_rng(4).standard_normal((H, L, L)).astype(np.float32)
    q, k, v, mask, bias = as_taken(q, k, v, mask, bias)
    settings = {"scale": SCALE, "softcap": 2.0}
    blocked = causal_attention(q, k, v, mask, num_blocks=num_blocks, bias_HLL=bias, **settings)
    whole = dot_product_attention(q, k, v, mask, bias_HLM=bias, **settings)
    np.testing.assert_allclose(blocked, whole, atol=1e-6)


def test_weights_are_softmaxed_in_fp32_under_bf16():
    # 1000 equal scores: each weight is 1e-3, whose sum in bf16 would stall far below one.
    q = jnp.zeros((1, 1, 1, 2), jnp.bfloat16)
    k = jnp.zeros((1, 1, 1000, 2), jnp.bfloat16)
    v = jnp.ones((1, 1, 1000, 2), jnp.bfloat16)
    out = dot_product_attention(q, k, v, jnp.ones((1, 1, 1000), bool), scale=1.0)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), 1.0, rtol=2**-8)


@pytest.mark.parametrize("causal_blocks", [2, 4])
def test_causal_blocks_change_neither_logits_nor_gradients(baseline, causal_blocks):
    attention = replace(baseline.config.attention, causal_blocks=causal_blocks)
    config = tiny_model(attention=attention)
    logits, gradient = logits_and_gradient(config, baseline.params, baseline.rows)
    np.testing.assert_allclose(logits, baseline.logits, atol=1e-5)
    assert_trees_close(gradient, baseline.gradient, 1e-5)


def test_grouped_queries_equal_multi_head_with_repeated_key_and_value_kernels(baseline):
    def is_shared(path: tuple) -> bool:
        return path[-2].key in ("key", "value")

    def repeat(path: tuple, leaf: jax.Array) -> jax.Array:
        return jnp.repeat(leaf, 2, axis=2) if is_shared(path) else leaf

    def add_group(path: tuple, leaf: jax.Array) -> jax.Array:
        """Both query heads of a group add to their key/value head's gradient."""
        N, D, _, head_dim = leaf.shape if is_shared(path) else (0,) * 4
        return leaf.reshape(N, D, 2, 2, head_dim).sum(3) if is_shared(path) else leaf

    multi_head = tiny_model(attention=AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=8))
    params = jax.tree_util.tree_map_with_path(repeat, baseline.params)
    logits, gradient = logits_and_gradient(multi_head, params, baseline.rows)
    np.testing.assert_allclose(logits, baseline.logits, atol=1e-5)
    gradient = jax.tree_util.tree_map_with_path(add_group, gradient)
    assert_trees_close(gradient, baseline.gradient, 1e-5)
