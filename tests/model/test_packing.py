"""Packing and padding leave no trace in a document's logits."""

import jax
import numpy as np

from configs.model_config import AttentionConfig
from configs.objective_config import CausalLMConfig
from data.objectives import OBJECTIVES
from data.packing import RowShape, slice_row
from tests.model.samples import (
    Rows,
    logits_and_gradient,
    logits_of,
    packed_rows,
    random_params,
    tiny_model,
)

# fp32 sums over other lengths round differently; logits are of order one.
TOLERANCE = 1e-5


def alone(document: np.ndarray) -> Rows:
    """A document [B, L] as the only one of its row."""
    positions = np.tile(np.arange(document.shape[1], dtype=np.int32), (len(document), 1))
    return Rows(document, positions, np.ones_like(document))


def test_a_packed_document_has_the_logits_it_has_alone():
    config, lengths = tiny_model(), [6, 1, 8]
    params, rows = random_params(config), packed_rows(lengths, num_rows=2, padding=1)
    packed = logits_of(config, params, rows)
    ends = np.cumsum(lengths)
    for begin, end in zip(ends - lengths, ends, strict=True):
        single = logits_of(config, params, alone(rows.tokens[:, begin:end]))
        np.testing.assert_allclose(packed[:, begin:end], single, atol=TOLERANCE)


def test_a_row_of_the_data_room_gives_documents_the_logits_they_have_alone():
    # Computed in causal blocks, whose borders lie within documents.
    blocks = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, causal_blocks=2)
    config, plain = tiny_model(attention=blocks), tiny_model()
    params = random_params(config)
    documents = [[2, 9, 8, 7, 6, 3], [2, 30, 31, 32, 33, 3], [2, 40, 41, 42, 43]]
    stream = np.array(sum(documents, []), np.int32)
    shape = RowShape(len(stream), overlap=1)
    row = slice_row(stream, stream == 2, shape=shape, documents="separate", epoch=0)
    example = OBJECTIVES[CausalLMConfig].transform(
        CausalLMConfig(), row, lambda: np.random.default_rng()
    )
    rows = Rows(example.inputs[None], example.positions[None], example.segment_ids[None])
    packed = logits_of(config, params, rows)
    for begin in (0, 6):
        single = logits_of(plain, params, alone(rows.tokens[:, begin : begin + 6]))
        np.testing.assert_allclose(packed[:, begin : begin + 6], single, atol=TOLERANCE)


def test_positions_count_by_differences():
    # A row may begin in the middle of a document, whose positions then start at 0 all the same.
    config = tiny_model()
    params, rows = random_params(config), packed_rows([16], num_rows=2)
    straight = logits_of(config, params, rows)
    later = logits_of(config, params, rows._replace(positions=rows.positions + 37))
    stretched = logits_of(config, params, rows._replace(positions=2 * rows.positions))
    # fp32 angles 37 radians larger carry up to 37 * 6e-8 of rounding into every score.
    np.testing.assert_allclose(later, straight, atol=5e-5)
    assert np.abs(stretched - straight)[:, 2:].max(axis=-1).min() > 1e-3


def test_padding_stays_finite_and_its_tokens_change_nothing():
    config = tiny_model()
    params, rows = random_params(config), packed_rows([9], num_rows=2, padding=7)
    logits, gradient = logits_and_gradient(config, params, rows)
    assert np.isfinite(logits).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    tokens = np.where(rows.segment_ids > 0, rows.tokens, 5)
    other_logits, other_gradient = logits_and_gradient(config, params, rows._replace(tokens=tokens))
    np.testing.assert_array_equal(other_logits[:, :9], logits[:, :9])
    jax.tree.map(np.testing.assert_array_equal, other_gradient, gradient)
