"""Metrics give what their definitions give on pairs worked out by hand."""

import math

import numpy as np
import pytest

from configs.errors import InputError
from inference.text_metrics import (
    METRICS,
    bleu,
    exact_match,
    rouge_1,
    rouge_2,
    rouge_l,
    token_f1,
)


def test_exact_match_ignores_spaces_around_and_nothing_else():
    answers, targets = [" os.path\n", "OS.path", "os", ""], ["os.path", "os.path", "os.path", ""]
    np.testing.assert_array_equal(exact_match(answers, targets), [1, 0, 0, 1])


def test_f1_over_words_without_articles_punctuation_and_case():
    # {return, list} against {return, new, list}: precision 1, recall 2/3.
    scores = token_f1(["Return the list.", "", "", "x"], ["return a new list", "", "list", "a"])
    np.testing.assert_allclose(scores, [0.8, 1, 0, 0])


def test_f1_counts_a_repeated_word_as_often_as_the_target_has_it():
    np.testing.assert_allclose(token_f1(["go go go"], ["go"]), [2 * 1 / (3 + 1)])


def test_rouge_over_words_pairs_and_the_longest_common_subsequence():
    answer, target = ["open a file quickly now"], ["open the file now"]
    # 3 of 5 words, 3 of 4; no pair in common; "open file now" in order.
    np.testing.assert_allclose(rouge_1(answer, target), [2 * 3 / (5 + 4)])
    np.testing.assert_allclose(rouge_2(answer, target), [0])
    np.testing.assert_allclose(rouge_l(answer, target), [2 * 3 / (5 + 4)])
    np.testing.assert_allclose(rouge_2(["open the file"], ["open the file now"]), [2 * 2 / (2 + 3)])


def test_rouge_l_respects_order_where_rouge_1_does_not():
    answer, target = ["c b a"], ["a b c"]
    np.testing.assert_allclose(rouge_1(answer, target), [1])
    np.testing.assert_allclose(rouge_l(answer, target), [1 / 3])


def test_bleu_of_one_wrong_word_and_a_short_answer():
    assert bleu(["one two three four five"], ["one two three four five"]) == pytest.approx(100)
    # n-gram precisions 5/5, 4/4, 3/3, 2/2 and a brevity penalty of exp(1 - 6/5).
    short = bleu(["one two three four five"], ["one two three four five six"])
    assert short == pytest.approx(100 * math.exp(1 - 6 / 5))
    # 5/6, 4/5, 3/4, 2/3 for the last of six words wrong.
    wrong = bleu(["one two three four five none"], ["one two three four five six"])
    assert wrong == pytest.approx(100 * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)


@pytest.mark.parametrize("metric", [*METRICS.values(), bleu], ids=lambda metric: metric.__name__)
def test_pairs_must_match_up(metric):
    with pytest.raises(InputError, match="^answers: "):
        metric(["one", "two"], ["one"])
    with pytest.raises(InputError, match="^answers: "):
        metric([], [])
