"""The whole model against a plain NumPy transformer, and cached decoding against all at once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.model_config import AttentionConfig, ModelConfig, RMSNormConfig
from configs.position_config import RopeConfig
from model.build import Params, abstract_params, build_model, extend, forward
from model.decoder_only import empty_cache
from tests.model.samples import (
    QUICK_COMPILE,
    Rows,
    logits_of,
    packed_rows,
    random_params,
    relative_difference,
    tiny_model,
)


def numpy_transformer(config: ModelConfig, params: Params, rows: Rows) -> np.ndarray:
    """Llama as its paper describes it, in double precision, a row and a head at a time."""
    c, p = config.attention, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    layers = p["decoder"]["layers"]

    def rms_norm(x_LD, scale_D):
        mean_square = np.mean(x_LD**2, axis=-1, keepdims=True)
        return x_LD / np.sqrt(mean_square + config.norm.epsilon) * scale_D

    def rotate(x_LHC, positions_L):
        half = c.head_dim // 2
        frequency = config.position.theta ** (-np.arange(half) / half)
        angle = (positions_L[:, None] * frequency)[:, None, :]
        first, second = x_LHC[..., :half], x_LHC[..., half:]
        return np.concatenate(
            [
                first * np.cos(angle) - second * np.sin(angle),
                second * np.cos(angle) + first * np.sin(angle),
            ],
            axis=-1,
        )

    def attend(x_LD, n, positions_L, segments_L):
        w = {name: kernel["kernel"][n] for name, kernel in layers["attention"].items()}
        q_LHC = rotate(np.einsum("ld,dhc->lhc", x_LD, w["query"]), positions_L)
        k_LKC = rotate(np.einsum("ld,dkc->lkc", x_LD, w["key"]), positions_L)
        v_LKC = np.einsum("ld,dkc->lkc", x_LD, w["value"])
        allowed = np.tri(len(x_LD), dtype=bool) & (segments_L[:, None] == segments_L[None, :])
        out_LHC = np.zeros_like(q_LHC)
        for h in range(c.num_heads):
            kv_head = h * c.num_kv_heads // c.num_heads
            scores = q_LHC[:, h] @ k_LKC[:, kv_head].T / np.sqrt(c.head_dim)
            weights = np.exp(np.where(allowed, scores, -np.inf))
            out_LHC[:, h] = weights / weights.sum(-1, keepdims=True) @ v_LKC[:, kv_head]
        return np.einsum("lhc,hcd->ld", out_LHC, w["out"])

    def feed_forward(x_LD, n):
        w = {name: kernel["kernel"][n] for name, kernel in layers["mlp"].items()}
        gate_LF = x_LD @ w["gate"]
        return (gate_LF / (1 + np.exp(-gate_LF)) * (x_LD @ w["up"])) @ w["down"]

    logits = []
    for tokens_L, positions_L, segments_L in zip(*rows, strict=True):
        x_LD = p["token_embedding"]["embedding"][tokens_L]
        for n in range(config.num_layers):
            h_LD = rms_norm(x_LD, layers["attention_norm"]["scale"][n])
            x_LD = x_LD + attend(h_LD, n, positions_L, segments_L)
            x_LD = x_LD + feed_forward(rms_norm(x_LD, layers["mlp_norm"]["scale"][n]), n)
        x_LD = rms_norm(x_LD, p["decoder"]["final_norm"]["scale"])
        tied = p["token_embedding"]["embedding"].T
        logits.append(x_LD @ (tied if config.tie_embeddings else p["head"]["kernel"]))
    return np.stack(logits)


@pytest.mark.parametrize(
    "config",
    [
        tiny_model(),
        tiny_model(
            tie_embeddings=True,
            attention=AttentionConfig(num_heads=3, num_kv_heads=1, head_dim=12),
            position=RopeConfig(theta=300.0),
            norm=RMSNormConfig(epsilon=1e-2),
        ),
    ],
    ids=["untied", "tied, multi-query, heads wider than the model"],
)
def test_logits_equal_those_of_a_plain_numpy_transformer(config):
    params, rows = random_params(config), packed_rows([9, 7], num_rows=2)
    logits = logits_of(config, params, rows)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, numpy_transformer(config, params, rows), atol=2e-5)


def test_bf16_compute_gives_finite_fp32_logits_close_to_fp32(baseline):
    config = tiny_model(compute_dtype="bfloat16")
    logits = logits_of(config, baseline.params, baseline.rows)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    # About ten roundings to 8 bits on the way: a few times 2^-9, and not exactly equal.
    assert 1e-4 < relative_difference(logits, baseline.logits) < 0.03


def test_bf16_compute_keeps_parameters_in_fp32():
    params = abstract_params(tiny_model(compute_dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("scan_layers", [False, True])
def test_cached_decoding_equals_the_full_forward_pass(scan_layers):
    # The second row is two tokens shorter: padded on the left, in slots that nobody sees.
    config = tiny_model(scan_layers=scan_layers)
    params, (tokens, positions, segment_ids) = random_params(config), packed_rows([16], num_rows=2)
    positions[1], segment_ids[1] = np.maximum(positions[1] - 2, 0), positions[1] >= 2
    full = logits_of(config, params, Rows(tokens, positions, segment_ids))
    model = build_model(config)

    @partial(jax.jit, compiler_options=QUICK_COMPILE)
    def step(params, cache, tokens, positions, segment_ids):
        return extend(model, params, tokens, cache, positions=positions, segment_ids=segment_ids)

    cache, cached, begin = empty_cache(config, 2, num_slots=19), [], 0
    for length in [12, 1, 1, 1, 1]:
        part = slice(begin, begin + length)
        logits, cache = step(
            params, cache, tokens[:, part], positions[:, part], segment_ids[:, part]
        )
        cached.append(logits)
        begin += length
    assert int(cache.length) == 16
    assert (cache.segments_BS[:, 16:] == 0).all()
    cached = np.concatenate(cached, axis=1)
    np.testing.assert_allclose(cached[0], full[0], atol=1e-5)
    np.testing.assert_allclose(cached[1, 2:], full[1, 2:], atol=1e-5)


def test_shapes_are_checked_at_run_time():
    config = tiny_model()
    tokens = jnp.zeros((2, 4), jnp.int32)
    with pytest.raises(Exception, match="Type-check error"):
        forward(
            build_model(config),
            random_params(config),
            tokens,
            positions=tokens[:, :3],
            segment_ids=tokens,
        )
