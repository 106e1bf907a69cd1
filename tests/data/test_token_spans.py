"""Spans to labels of tokens and back, whatever the tokens' borders."""

import numpy as np
import pytest

from data.token_spans import Span, character_places, spans_of, token_labels

LABELS = ("O", "B-X", "I-X", "B-Y", "I-Y")


def words(*texts):
    """A text, its tokens, and the bytes of each: token i is texts[i]."""
    return "".join(texts), np.arange(len(texts)), np.array([len(t.encode()) for t in texts])


def test_a_spans_first_token_is_b_and_the_others_are_i():
    text, tokens, piece_bytes = words("import", " os", ".pa", "th", " as", " p")
    spans = [{"start": 7, "end": 14, "label": "X"}, {"start": 18, "end": 19, "label": "Y"}]
    labels = token_labels(text, spans, LABELS, tokens, piece_bytes)
    assert labels.tolist() == [0, 1, 2, 2, 0, 3]
    back = spans_of(text, [LABELS[i] for i in labels], tokens, piece_bytes)
    assert back == [Span(7, 14, "X"), Span(18, 19, "Y")]


def test_a_token_with_parts_of_two_spans_is_the_firsts():
    text, tokens, piece_bytes = words("ab", "c,d", "e")
    spans = [{"start": 0, "end": 3, "label": "X"}, {"start": 4, "end": 6, "label": "Y"}]
    assert token_labels(text, spans, LABELS, tokens, piece_bytes).tolist() == [1, 2, 3]


def test_neighbours_of_one_label_stay_two():
    text, tokens, piece_bytes = words("a", " b", " c")
    tags = ["B-X", "B-X", "I-X"]
    assert spans_of(text, tags, tokens, piece_bytes) == [Span(0, 1, "X"), Span(2, 5, "X")]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["O", "I-X", "I-X"], [Span(2, 5, "X")]),
        (["B-X", "I-Y", "O"], [Span(0, 1, "X"), Span(2, 3, "Y")]),
        (["B-X", "O", "I-X"], [Span(0, 1, "X"), Span(4, 5, "X")]),
        (["O", "O", "O"], []),
    ],
)
def test_an_i_that_continues_nothing_begins_a_span(tags, expected):
    text, tokens, piece_bytes = words("a", " b", " c")
    assert spans_of(text, tags, tokens, piece_bytes) == expected


def test_what_is_no_word_is_trimmed_and_a_span_of_nothing_else_is_none():
    text, tokens, piece_bytes = words("(x", ") ", " *")
    assert spans_of(text, ["B-X", "I-X", "B-Y"], tokens, piece_bytes) == [Span(1, 2, "X")]


def test_places_are_characters_beyond_ascii_too(corpus):
    for text in (
        "naïve Straße = 数値",
        "日本語 العربية",
        "\U0001f469\u200d\U0001f4bb x",
        "a\u2581b",
    ):
        tokens = corpus.tokenizer.encode_array(text)
        starts, ends = character_places(text, tokens, corpus.tokenizer.piece_bytes)
        assert starts[0] == 0 and ends[-1] == len(text)
        assert (starts < ends).all() and (starts[1:] <= ends[:-1]).all()
        assert {*range(len(text))} == {
            c for s, e in zip(starts, ends, strict=True) for c in range(s, e)
        }
