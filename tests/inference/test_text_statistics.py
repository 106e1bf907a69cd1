"""Repetition, counted by hand."""

import numpy as np
import pytest

from inference.text_statistics import distinct_share, in_loops, quarters, repeated_share


@pytest.mark.parametrize(
    ("tokens", "n", "expected"),
    [
        ([7, 8, 7, 8, 7], 2, 0.5),  # 78 87 78 87
        ([1, 2, 3, 4, 5], 4, 0.0),
        ([1, 1, 1, 1, 1, 1, 1], 4, 0.75),  # four times 1111
        ([1, 2, 3], 4, None),
        ("abcabc", 3, 0.25),  # abc bca cab abc
    ],
)
def test_repeated_share_counts_ngrams_that_came_before(tokens, n, expected):
    assert repeated_share(tokens, n) == expected


def test_distinct_share_is_over_all_texts_together():
    assert distinct_share([[1, 2, 3], [1, 2, 4]], 1) == 4 / 6
    assert distinct_share([[1, 2, 3], [1, 2, 4]], 2) == 3 / 4
    assert distinct_share([[1], [2]], 2) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5121212 9".replace(" ", ""), "01111110"),
        ("aaa", "111"),
        ("aab", "000"),
        ("abab", "0000"),  # twice is not a loop
        ("xabcabcabcabyzz", "011111111111000"),  # with the begun fourth round
        ("", ""),
        ("aaabbbcab", "111111000"),
    ],
)
def test_a_passage_three_times_in_a_row_is_a_loop(text, expected):
    got = in_loops([ord(letter) for letter in text])
    assert "".join(str(int(looped)) for looped in got) == expected


def test_a_loop_of_a_longer_period_than_asked_for_is_none():
    tokens = list(range(10)) * 3
    assert in_loops(tokens).all()
    assert not in_loops(tokens, max_period=9).any()


def test_random_tokens_hardly_loop():
    tokens = np.random.default_rng(0).integers(0, 1000, 5000)
    assert in_loops(tokens.tolist()).mean() == 0


def test_quarters_cover_a_sequence_once():
    for length in (0, 3, 16, 17, 255):
        indices = np.concatenate([np.arange(length)[part] for part in quarters(length)])
        assert indices.tolist() == list(range(length))
    assert [part.stop - part.start for part in quarters(10)] == [2, 3, 2, 3]
