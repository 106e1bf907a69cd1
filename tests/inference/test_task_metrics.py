"""Metrics of classes and entities: by hand, and against counts made in another way."""

import random

import numpy as np
import pytest
from sklearn.metrics import f1_score

from data.token_spans import Span, spans_of
from inference.task_metrics import (
    accuracy,
    entity_scores,
    entity_scores_by_label,
    macro_f1,
    majority_accuracy,
)


def test_accuracy_and_the_majority_by_hand():
    assert accuracy(["a", "b", "a", "c"], ["a", "b", "b", "a"]) == 0.5
    assert majority_accuracy(["a", "b", "b", "c"]) == 0.5


def test_macro_f1_counts_every_class_alike():
    # a: 2 right of 3 named and 2 there: 0.8; b: 0 of 0 and 1: 0.
    assert macro_f1(["a", "a", "a"], ["a", "a", "b"]) == pytest.approx(0.4)


def test_macro_f1_is_scikit_learns():
    draw = random.Random(0)
    for size in (1, 5, 40):
        expected = draw.choices("abcd", k=size)
        predicted = draw.choices("abce", k=size)
        other = f1_score(expected, predicted, average="macro", zero_division=0)  # pyright: ignore[reportArgumentType]
        assert macro_f1(predicted, expected) == pytest.approx(other)


def test_an_entity_is_right_only_if_start_end_and_label_are():
    expected = [[Span(0, 4, "X"), Span(5, 9, "Y"), Span(10, 12, "X")], [Span(0, 2, "X")]]
    predicted = [[Span(0, 4, "X"), Span(5, 8, "Y"), Span(10, 12, "Y")], []]
    scores = entity_scores(predicted, expected)
    assert scores.precision == pytest.approx(1 / 3)
    assert scores.recall == pytest.approx(1 / 4)
    assert scores.f1 == pytest.approx(2 / 7)
    by_label = entity_scores_by_label(predicted, expected)
    assert by_label["X"].precision == 1 and by_label["X"].recall == pytest.approx(1 / 3)
    assert by_label["Y"].f1 == 0


def test_a_span_counts_only_in_its_own_text():
    assert entity_scores([[Span(0, 1, "X")], []], [[], [Span(0, 1, "X")]]).f1 == 0


def test_no_entities_at_all_score_zero():
    assert entity_scores([[]], [[]]) == (0, 0, 0)


def conlleval_counts(predicted: list[str], expected: list[str]) -> tuple[int, int, int]:
    """Right, predicted and expected chunks, counted as the conlleval script does: tag by tag, with
    a chunk open or not on either side."""
    right = in_predicted = in_expected = 0
    both_open = False
    before_p = before_e = "O"
    for tag_p, tag_e in [*zip(predicted, expected, strict=True), ("O", "O")]:
        ends_p, starts_p = borders(before_p, tag_p)
        ends_e, starts_e = borders(before_e, tag_e)
        if both_open:
            if ends_p and ends_e:
                right += 1
                both_open = False
            elif ends_p != ends_e or tag_p[2:] != tag_e[2:]:
                both_open = False
        if starts_p and starts_e and tag_p[2:] == tag_e[2:]:
            both_open = True
        in_predicted += starts_p
        in_expected += starts_e
        before_p, before_e = tag_p, tag_e
    return right, in_predicted, in_expected


def borders(before: str, tag: str) -> tuple[bool, bool]:
    """Whether a chunk ends before this tag, and whether one starts at it."""
    changes = before[2:] != tag[2:]
    ends = before != "O" and (tag[0] in "BO" or changes)
    starts = tag != "O" and (tag[0] == "B" or before == "O" or changes)
    return ends, starts


def test_entities_of_tags_are_counted_as_conlleval_counts_them():
    draw = random.Random(1)
    tags = ["O", "B-X", "I-X", "B-Y", "I-Y"]
    seen_right = 0
    for _ in range(300):
        expected = draw.choices(tags, k=12)
        predicted = [tag if draw.random() < 0.7 else draw.choice(tags) for tag in expected]
        tokens, text = np.arange(12), "abcdefghijkl"
        found = [spans_of(text, side, tokens, np.ones(12, int)) for side in (predicted, expected)]
        right, in_predicted, in_expected = conlleval_counts(predicted, expected)
        assert [len(spans) for spans in found] == [in_predicted, in_expected]
        scores = entity_scores([found[0]], [found[1]])
        assert scores.f1 == pytest.approx(2 * right / max(in_predicted + in_expected, 1))
        seen_right += right
    assert seen_right > 300
