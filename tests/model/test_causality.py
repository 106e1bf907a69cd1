"""Who can influence whom, shown by gradients rather than by reading the mask."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.model_config import ModelConfig
from model.build import build_model, forward
from tests.model.samples import (
    QUICK_COMPILE,
    Rows,
    attention,
    packed_rows,
    random_params,
    tiny_model,
)

LENGTHS, PADDING = [5, 1, 7], 3
ROWS = packed_rows(LENGTHS, padding=PADDING)
SEGMENTS = ROWS.segment_ids[0]
IS_TOKEN = SEGMENTS > 0
SAME_DOCUMENT = SEGMENTS[:, None] == SEGMENTS[None, :]
PLACES = np.arange(len(SEGMENTS))
PAST = PLACES[:, None] >= PLACES[None, :]


class Influence(NamedTuple):
    """Norms of d logits[t] / d embedding of token s, t the row, s the column.

    own: [L, L], of the decoder's own tokens (the encoder's, without a decoder). encoder: [L, M].
    """

    own: np.ndarray
    encoder: np.ndarray


def influence(config: ModelConfig, rows: Rows) -> Influence:
    """Every token of both rows is another id, so row s of the (untied) table is its embedding."""
    L = rows.tokens.shape[1]
    M = 0 if rows.encoder_tokens is None else rows.encoder_tokens.shape[1]
    assert not config.tie_embeddings and L + M <= config.vocab_size
    tokens = np.arange(L + M, dtype=np.int32)[None]
    rows = rows._replace(tokens=tokens[:, :L], encoder_tokens=tokens[:, L:] if M else None)
    params, model = random_params(config), build_model(config)
    reading_V = np.random.default_rng(0).standard_normal(config.vocab_size).astype(np.float32)
    run = partial(forward, model, tokens_BL=jnp.asarray(rows.tokens), **rows.fields)

    def read(table_VD: jax.Array) -> jax.Array:
        logits_BLV = run(params=params | {"token_embedding": {"embedding": table_VD}})
        return logits_BLV[0] @ reading_V

    jacobian = jax.jit(jax.jacrev(read), compiler_options=QUICK_COMPILE)
    jacobian_LVD = jacobian(params["token_embedding"]["embedding"])
    norms = np.linalg.norm(np.asarray(jacobian_LVD), axis=-1)
    return Influence(norms[:, :L], norms[:, L : L + M])


def assert_influence(norms: np.ndarray, expected: np.ndarray, is_token: np.ndarray) -> None:
    """Exactly zero, for logits of tokens, where not expected; above zero where expected."""
    assert (norms[is_token[:, None] & ~expected] == 0).all()
    assert (norms[is_token[:, None] & expected] > 0).all()


@pytest.mark.parametrize(
    "config",
    [
        tiny_model(),
        tiny_model(scan_layers=True),
        tiny_model(attention=attention(causal_blocks=4)),
        tiny_model(compute_dtype="bfloat16"),
    ],
    ids=["unrolled", "scanned", "in causal blocks", "bfloat16"],
)
def test_future_tokens_other_documents_and_padding_get_zero_gradient_all_others_some(config):
    assert_influence(influence(config, ROWS).own, PAST & SAME_DOCUMENT, IS_TOKEN)


def test_every_token_of_an_encoders_document_counts_before_and_after_and_no_other():
    config = tiny_model(architecture="encoder_only", num_layers=1)
    assert_influence(influence(config, ROWS).own, SAME_DOCUMENT, IS_TOKEN)


def test_a_decoder_reads_the_memory_of_its_own_segment_whole_and_its_own_past():
    # The encoder holds the same documents in another order, and padding between none of them.
    config = tiny_model(architecture="encoder_decoder", num_layers=1, num_encoder_layers=1)
    rows = packed_rows(LENGTHS, padding=PADDING, encoder_lengths=[4, 2, 3], encoder_padding=1)
    assert rows.encoder_segment_ids is not None
    encoder_segments = np.array([3, 3, 1, 1, 1, 1, 2, 2, 3, 0], np.int32)
    rows = rows._replace(encoder_segment_ids=encoder_segments[None])
    own, encoder = influence(config, rows)
    assert_influence(own, PAST & SAME_DOCUMENT, IS_TOKEN)
    assert_influence(encoder, SEGMENTS[:, None] == encoder_segments[None, :], IS_TOKEN)


def test_a_prefix_is_seen_by_all_of_its_document_and_sees_nothing_later():
    prefix = np.zeros_like(ROWS.tokens)
    prefix[0, :3] = prefix[0, 6:8] = 1
    norms = influence(tiny_model(num_layers=1), ROWS._replace(prefix=prefix)).own
    assert_influence(norms, (PAST | (prefix[0] > 0)[None, :]) & SAME_DOCUMENT, IS_TOKEN)


@pytest.mark.parametrize(
    ("architecture", "pattern", "reach"),
    [
        ("decoder_only", ("window",), 2),
        ("encoder_only", ("window", "window"), 4),
        ("decoder_only", ("window", "full"), 16),
    ],
)
def test_layers_with_a_window_of_three_reach_two_places_each_and_a_full_one_everything(
    architecture, pattern, reach
):
    a = attention(window=3, layer_pattern=pattern)
    config = tiny_model(architecture=architecture, attention=a, num_layers=len(pattern))
    allowed = SAME_DOCUMENT & (PAST | (architecture == "encoder_only"))
    distance = np.abs(PLACES[:, None] - PLACES[None, :])
    assert_influence(influence(config, ROWS).own, allowed & (distance <= reach), IS_TOKEN)
