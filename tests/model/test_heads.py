"""Heads that name classes: their maths, which places they see, how they start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.model_config import (
    MuPInitConfig,
    SequenceClassificationHeadConfig,
    TokenClassificationHeadConfig,
)
from model.build import count_matmul_params, rate_multipliers
from tests.model.samples import Rows, logits_of, random_params, tiny_model

OF_TEXT = SequenceClassificationHeadConfig(num_labels=3)
OF_TOKENS = TokenClassificationHeadConfig(num_labels=5)
HEADS = pytest.mark.parametrize("head", [OF_TEXT, OF_TOKENS], ids=lambda head: head.kind)


def rows() -> Rows:
    tokens = np.arange(2 * 6, dtype=np.int32).reshape(2, 6) % 11
    places = np.tile(np.arange(6, dtype=np.int32), (2, 1))
    return Rows(tokens, places, np.ones_like(tokens))


@HEADS
@pytest.mark.parametrize("architecture", ["encoder_only", "decoder_only"])
def test_logits_are_the_heads_maths_on_the_last_activations(head, architecture):
    # The same stack with a head that leaves activations as they are gives what goes in.
    from configs.model_config import NoHeadConfig

    config = tiny_model(architecture=architecture, head=head, num_layers=1)
    params = random_params(config)
    bare = tiny_model(architecture=architecture, head=NoHeadConfig(), num_layers=1)
    x_BLD = logits_of(bare, {k: v for k, v in params.items() if k != "head"}, rows())
    part = jax.tree.map(np.asarray, params["head"]["classes"])
    if head is OF_TEXT:
        x_BLD = np.tanh(x_BLD @ part["dense"]["kernel"] + part["dense"]["bias"][None, None])
    expected = x_BLD @ part["out"]["kernel"] + part["out"]["bias"][None, None]
    logits = logits_of(config, params, rows())
    assert logits.shape == (2, 6, head.num_labels) and logits.dtype == np.float32
    # fp32 sums of 32 terms in another order.
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@HEADS
def test_no_token_table_is_multiplied(head):
    config = tiny_model(architecture="encoder_only", head=head, tie_embeddings=True)
    params = random_params(config)
    kernels = [
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key == "kernel"
    ]
    assert count_matmul_params(params, config) == sum(kernels)


def test_mup_divides_the_dense_layers_rate_but_not_the_classes():
    config = tiny_model(
        architecture="encoder_only", head=OF_TEXT, init=MuPInitConfig(base_emb_dim=16)
    )
    rates = rate_multipliers(config)
    assert rates is not None
    classes = rates["head"]["classes"]
    assert (classes["dense"]["kernel"], classes["out"]["kernel"]) == (0.5, 1.0)


def test_bfloat16_activations_still_give_fp32_logits():
    config = tiny_model(architecture="encoder_only", head=OF_TEXT, compute_dtype="bfloat16")
    assert logits_of(config, random_params(config), rows()).dtype == jnp.float32
