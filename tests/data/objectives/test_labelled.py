"""Objectives on labelled documents: what their docstrings show, and rows of whole and cut ones."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.labelled_config import (
    InstructionTuningConfig,
    SequenceClassificationConfig,
    SequenceToSequenceConfig,
    TokenClassificationConfig,
)
from data.objectives.instruction_tuning import instruction_tuning
from data.objectives.labelled import FIRST_LABEL_ID, labelled_of, one_sided
from data.objectives.sequence_classification import sequence_classification
from data.objectives.sequence_to_sequence import sequence_to_sequence
from data.objectives.token_classification import token_classification
from tests.data.objectives.samples import (
    BOS,
    EOS,
    PLAIN_IDS,
    docstring_arrays,
    docstring_is_true,
    filled,
    make_row,
    reconstruct,
    transform,
)

OF_TEXT = SequenceClassificationConfig()
BY_DECODER = SequenceClassificationConfig(architecture="decoder_only")
OF_TOKENS = TokenClassificationConfig()
TWO_TEXTS = SequenceToSequenceConfig(target_tokens=20)
PROMPTS = InstructionTuningConfig()
ALL = [OF_TEXT, BY_DECODER, OF_TOKENS, TWO_TEXTS, PROMPTS]
SEQ_LEN = 48


@pytest.mark.parametrize(
    ("function", "cases"),
    [
        (sequence_classification, [(OF_TEXT, 12), (BY_DECODER, 12)]),
        (token_classification, [(OF_TOKENS, 8)]),
        (sequence_to_sequence, [(SequenceToSequenceConfig(target_tokens=6), 12)]),
        (instruction_tuning, [(PROMPTS, 11)]),
    ],
)
def test_the_docstring_shows_what_happens(function, cases):
    assert docstring_is_true(function, cases)


def test_documents_are_found_as_the_docstring_shows():
    before, after = docstring_arrays(labelled_of)
    [found] = labelled_of(make_row(before["tokens"], before["segment_ids"]))
    assert found.text.tolist() == after["text"] and found.answer.tolist() == after["answer"]


def test_a_row_that_is_one_segment_has_the_same_documents():
    tokens = [21, EOS, 5, EOS, BOS, 22, 23, EOS, 6, EOS, BOS, 24, EOS, 7, EOS, BOS, 25]
    found = labelled_of(make_row(tokens, [1] * len(tokens)))
    assert [(d.text.tolist(), d.answer.tolist()) for d in found] == [([22, 23], [6]), ([24], [7])]


def test_pieces_beyond_the_row_are_left_out():
    pieces = [np.array([2, 20, 3]), np.array([2, 21, 22, 3]), np.array([2, 3])]
    weights = [np.ones(len(piece)) for piece in pieces]
    example = one_sided(pieces, pieces, weights, 6)
    assert example.inputs.tolist() == [2, 20, 3, 0, 0, 0]
    assert example.segment_ids.tolist() == [1, 1, 1, 0, 0, 0]
    assert example.loss_weights.tolist() == [1, 1, 1, 0, 0, 0]


class Documents(NamedTuple):
    """Sizes of texts and answers, and how many tokens are cut from the ends of the row."""

    sizes: list[tuple[int, int]]
    cut_begin: int
    cut_end: int
    seed: int


documents = st.builds(
    Documents,
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=12),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
)


def labelled_row(config, plan: Documents):
    """A row of the config's length, and the whole documents in it as (text, answer)."""
    random = np.random.default_rng(plan.seed)
    size = config.lengths(SEQ_LEN).tokens
    tokens, segments, contents = [], [], []
    for number, (length, answer_length) in enumerate(plan.sizes, start=1):
        text = random.choice(PLAIN_IDS, length).tolist()
        if config in (TWO_TEXTS, PROMPTS):
            answer = random.choice(PLAIN_IDS, answer_length).tolist()
        else:
            count = length if config is OF_TOKENS else 1
            answer = (FIRST_LABEL_ID + random.integers(0, 3, count)).tolist()
        document = [BOS, *text, EOS, *answer, EOS]
        if len(tokens) + len(document) > size:
            break
        contents.append((len(tokens), len(tokens) + len(document), text, answer))
        tokens += document
        segments += [number] * len(document)
    end = max(0, len(tokens) - plan.cut_end)
    begin = min(plan.cut_begin, end)
    whole = [(t, a) for first, last, t, a in contents if begin <= first and last <= end]
    padding = [0] * (size - (end - begin))
    row = make_row(tokens[begin:end] + padding, segments[begin:end] + padding)
    return row, whole


@pytest.mark.parametrize("config", ALL, ids=lambda c: f"{c.kind}-{c.architectures[0]}")
@settings(deadline=None)
@given(documents)
def test_whole_documents_come_back_and_cut_ones_carry_no_loss(config, plan):
    row, whole = labelled_row(config, plan)
    example = transform(config, row, SEQ_LEN)
    lengths = config.lengths(SEQ_LEN)
    assert len(example.inputs) == lengths.length
    assert not example.loss_weights[example.segment_ids == 0].any()
    expected_positions = make_row(example.inputs, example.segment_ids).positions
    np.testing.assert_array_equal(example.positions, expected_positions)
    if config is TWO_TEXTS:
        assert len(filled(example.encoder_inputs)) == lengths.encoder_length
        whole = fitting(whole, lengths.length)
    if config is OF_TOKENS:
        whole = fitting_pieces(whole, lengths.length)
    contents = [text + answer for text, answer in whole if config is OF_TEXT or text + answer]
    assert reconstruct(config, example, SEQ_LEN) == contents
    weighted = {
        "sequence_classification": len(whole),
        "token_classification": sum(len(text) for text, _ in whole),
    }.get(config.kind, sum(len(answer) + 1 for _, answer in whole))
    assert example.loss_weights.sum() == weighted


def fitting(whole, room):
    kept = []
    for text, answer in whole:
        if len(answer) + 1 <= room:
            room -= len(answer) + 1
            kept.append((text, answer))
    return kept


def fitting_pieces(whole, room):
    kept = []
    for text, answer in whole:
        room -= len(text) + 2
        if room < 0:
            break
        kept.append((text, answer))
    return kept


@pytest.mark.parametrize("config", ALL, ids=lambda c: f"{c.kind}-{c.architectures[0]}")
def test_a_document_as_long_as_the_limits_allow_is_whole_in_its_row(config):
    # labelled_corpus.token_limits cuts records to this.
    room = config.lengths(SEQ_LEN).tokens - 3
    if config is OF_TOKENS:
        text, answer = [20] * (room // 2), [FIRST_LABEL_ID] * (room // 2)
    elif config in (OF_TEXT, BY_DECODER):
        text, answer = [20] * (room - 1), [FIRST_LABEL_ID]
    else:
        answer = [30] * 19
        text = [20] * (room - 19)
    tokens = [BOS, *text, EOS, *answer, EOS]
    padding = [0] * (config.lengths(SEQ_LEN).tokens - len(tokens))
    row = make_row(tokens + padding, [1] * len(tokens) + padding)
    assert reconstruct(config, transform(config, row, SEQ_LEN), SEQ_LEN) == [text + answer]


def test_a_decoder_answers_after_the_text_and_sees_no_label():
    row = make_row([BOS, 20, 21, EOS, 6, EOS, 0, 0], [1] * 6 + [0, 0])
    example = transform(BY_DECODER, row, 8)
    place = int(np.flatnonzero(example.loss_weights)[0])
    assert example.inputs[: place + 1].tolist() == [BOS, 20, 21, EOS]
    assert 6 not in example.inputs
