"""Packing and padding leave no trace in a document's logits."""

import jax
import numpy as np
import pytest

from configs.model_config import ModelConfig
from configs.objective_config import CausalLMConfig
from data.objectives import OBJECTIVES
from data.objectives.example import Context
from data.objectives.symbols import Symbols
from data.packing import RowShape, slice_row
from tests.model.samples import (
    POSITIONS,
    Rows,
    attention,
    logits_and_gradient,
    logits_of,
    packed_rows,
    random_params,
    tiny_model,
    with_encoder,
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


DOCUMENTS, MEMORIES = [6, 1, 8], [3, 5, 2]


def together_and_alone(config: ModelConfig) -> Rows:
    """Row 0 holds three documents and padding; rows 1 to 3 one of them each, and more padding."""
    both = config.architecture == "encoder_decoder"
    packed = packed_rows(
        DOCUMENTS,
        padding=1,
        encoder_lengths=MEMORIES if both else None,
        encoder_padding=2 if both else 0,
    )

    def with_alone(tokens: np.ndarray, lengths: list[int]) -> tuple[np.ndarray, ...]:
        rows = np.zeros((3, 1 + len(lengths), tokens.shape[1]), np.int32)
        rows[0, 0], rows[1, 0], rows[2, 0] = tokens[0], *_sides(lengths, tokens.shape[1])
        begin = 0
        for number, length in enumerate(lengths, start=1):
            rows[0, number, :length] = tokens[0, begin : begin + length]
            rows[0, number, length:] = 5  # padding of another token than the packed row's
            rows[1, number, :length] = np.arange(length)
            rows[2, number, :length] = 1
            begin += length
        return tuple(rows)

    own = with_alone(packed.tokens, DOCUMENTS)
    if packed.encoder_tokens is None:
        return Rows(*own)
    return with_encoder(Rows(*own), *with_alone(packed.encoder_tokens, MEMORIES))


def _sides(lengths: list[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and segment ids [size] of documents in a row."""
    positions = np.concatenate([np.arange(length) for length in lengths])
    segments = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    pad = (0, size - len(positions))
    return np.pad(positions, pad), np.pad(segments, pad)


PATTERN = attention(window=3, layer_pattern=("window", "full"))


BY_DEFAULT = {
    *(("decoder_only", position) for position in POSITIONS),
    *(("encoder_only", position) for position in ("rope", "learned", "relative bias", "alibi")),
    *(("encoder_decoder", position) for position in ("rope", "relative bias")),
}


@pytest.mark.parametrize(
    ("architecture", "position"),
    [
        pytest.param(a, p, marks=() if (a, p) in BY_DEFAULT else pytest.mark.slow)
        for a in ("decoder_only", "encoder_only", "encoder_decoder")
        for p in POSITIONS
    ],
)
def test_packed_documents_have_the_logits_they_have_alone_and_padded(architecture, position):
    is_rope = position == "rope"
    config = tiny_model(
        architecture=architecture,
        position=POSITIONS[position],
        num_layers=2 if is_rope else 1,
        num_encoder_layers=int(architecture == "encoder_decoder"),
        attention=PATTERN if is_rope else attention(),
    )
    logits = logits_of(config, random_params(config), together_and_alone(config))
    begin = 0
    for number, length in enumerate(DOCUMENTS, start=1):
        packed, single = logits[0, begin : begin + length], logits[number, :length]
        np.testing.assert_allclose(packed, single, atol=TOLERANCE)
        begin += length
    # The numbers differ from one document to the next, so equality says something.
    assert np.abs(logits[1, 0] - logits[3, 0]).max() > 1e-2


@pytest.mark.parametrize("position", ["rope", "sinusoidal"])
def test_order_matters_to_an_encoder_but_for_one_without_positions(position):
    def of_reversed(kind: str) -> tuple[np.ndarray, np.ndarray]:
        config = tiny_model(architecture="encoder_only", position=POSITIONS[kind], num_layers=1)
        rows, params = together_and_alone(config), random_params(config)
        backwards = rows.tokens.copy()
        backwards[3, :8] = rows.tokens[3, 7::-1]
        there, back = (
            logits_of(config, params, rows._replace(tokens=t)) for t in (rows.tokens, backwards)
        )
        return there[3, :8], back[3, 7::-1]

    there, back = of_reversed("none")
    np.testing.assert_allclose(there, back, atol=TOLERANCE)
    there, back = of_reversed(position)
    assert np.abs(there - back).max() > 1e-2


def test_a_row_of_the_data_room_gives_documents_the_logits_they_have_alone():
    # Computed in causal blocks, whose borders lie within documents.
    config, plain = tiny_model(attention=attention(causal_blocks=2)), tiny_model()
    params = random_params(config)
    documents = [[2, 9, 8, 7, 6, 3], [2, 30, 31, 32, 33, 3], [2, 40, 41, 42, 43]]
    stream = np.array(sum(documents, []), np.int32)
    shape = RowShape(len(stream), overlap=1)
    row = slice_row(stream, stream == 2, shape=shape, documents="separate", epoch=0)
    symbols = Symbols(64, *np.zeros((4, 64), bool), ids={})
    context = Context(symbols, CausalLMConfig().lengths(len(stream) - 1))
    example = OBJECTIVES[CausalLMConfig].transform(
        CausalLMConfig(), row, lambda: np.random.default_rng(), context
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
