"""Whole models against a plain NumPy transformer: every variant of every block, in families."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.model_config import NoHeadConfig, RMSNormConfig
from configs.position_config import RopeConfig
from model.build import abstract_params, build_model, forward
from tests.model.numpy_transformer import numpy_logits
from tests.model.samples import (
    QUICK_COMPILE,
    VARIANTS,
    Rows,
    attention,
    logits_of,
    packed_rows,
    random_params,
    relative_difference,
    rows_for,
    tiny_model,
)

MODELS = VARIANTS | {
    "llama": tiny_model(),
    "tied, multi-query, heads wider than the model": tiny_model(
        tie_embeddings=True,
        attention=attention(num_heads=3, num_kv_heads=1, head_dim=12),
        position=RopeConfig(theta=300.0),
        norm=RMSNormConfig(epsilon=1e-2),
    ),
}


def assert_equals_numpy(config, rows: Rows) -> None:
    params = random_params(config)
    logits = logits_of(config, params, rows)
    assert logits.dtype == np.float32
    expected = numpy_logits(config, params, rows)
    is_token = rows.segment_ids > 0
    # Logits of order one (ten for the widest residuals), fp32 sums over up to 48 numbers.
    scale = max(1.0, float(np.abs(expected[is_token]).max()) / 4)
    np.testing.assert_allclose(logits[is_token], expected[is_token], atol=2e-5 * scale)


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_those_of_a_plain_numpy_transformer(name):
    assert_equals_numpy(MODELS[name], rows_for(MODELS[name]))


def test_a_prefix_is_read_in_both_directions_and_what_follows_is_not():
    rows = packed_rows([9, 5], num_rows=2, padding=2)
    prefix = np.zeros_like(rows.tokens)
    prefix[0, :4], prefix[1, 9:12] = 1, 1
    assert_equals_numpy(MODELS["llama"], rows._replace(prefix=prefix))


def test_token_types_choose_the_row_that_is_added():
    # Type 1 everywhere is type 0 everywhere with the table's two rows swapped.
    config = VARIANTS["bert"]
    params, rows = random_params(config), rows_for(config)
    table = params["encoder_embedding"]["token_type"]["embedding"]
    swapped = params["encoder_embedding"] | {"token_type": {"embedding": table[::-1]}}
    expected = logits_of(config, params | {"encoder_embedding": swapped}, rows)
    tokens = jnp.asarray(rows.tokens)
    typed = partial(forward, build_model(config), params, tokens, **rows.fields)
    ones = jax.jit(typed, compiler_options=QUICK_COMPILE)(token_types=jnp.ones_like(tokens))
    np.testing.assert_allclose(ones, expected, atol=1e-5)
    assert relative_difference(logits_of(config, params, rows), expected) > 1e-2


def test_without_a_head_a_model_returns_its_last_activations():
    config = tiny_model(architecture="encoder_only", head=NoHeadConfig(), num_layers=1)
    rows, params = rows_for(config), random_params(config)
    assert "head" not in params
    activations = logits_of(config, params, rows)
    assert activations.shape == (2, 16, config.emb_dim)
    assert activations.dtype == np.float32
    # The same with a head whose kernel is the identity.
    whole = tiny_model(architecture="encoder_only", num_layers=1, vocab_size=64, emb_dim=32)
    head = {"kernel": jnp.eye(32, 64)}
    logits = logits_of(whole, params | {"head": head}, rows)
    np.testing.assert_allclose(activations, logits[..., :32], atol=1e-5)


def test_bf16_compute_gives_finite_fp32_logits_close_to_fp32(baseline):
    config = tiny_model(compute_dtype="bfloat16")
    logits = logits_of(config, baseline.params, baseline.rows)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    # About ten roundings to 8 bits on the way: a few times 2^-9, and not exactly equal.
    assert 1e-4 < relative_difference(logits, baseline.logits) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "bart"])
def test_bf16_compute_of_other_architectures_stays_close_to_fp32(name):
    config = VARIANTS[name]
    rows, params = rows_for(config), random_params(config)
    logits = logits_of(replace(config, compute_dtype="bfloat16"), params, rows)
    is_token = rows.segment_ids > 0
    assert np.isfinite(logits).all() and logits.dtype == np.float32
    full = logits_of(config, params, rows)[is_token]
    # Twice as many sublayers as the two-layer decoder, and as many roundings more.
    assert 1e-4 < relative_difference(logits[is_token], full) < 0.06


def test_bf16_compute_keeps_parameters_in_fp32():
    for config in (tiny_model(compute_dtype="bfloat16"), VARIANTS["bart"]):
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(abstract_params(config))}
        assert dtypes == {jnp.dtype("float32")}


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
