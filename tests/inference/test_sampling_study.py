"""Measures by hand; scores of continuations are those of the plain forward pass."""

import jax
import numpy as np
import pytest

from configs.errors import InputError
from inference.sampling_study import Written, measure, score_continuations, windows


def continuation(tokens, log_p=-1.0, **fields) -> Written:
    return Written(tokens=tuple(tokens), log_probabilities=(log_p,) * len(tokens), **fields)


def test_measures_are_means_over_continuations():
    loop, plain = [1, 2, 3, 4] * 8, list(range(10, 42))
    found = measure("x", [continuation(loop, -0.5), continuation(plain, -2.5, finished=True)])
    assert (found.name, found.texts, found.tokens, found.finished) == ("x", 2, 32, 0.5)
    assert found.repeated_4 == pytest.approx((1 - 4 / 29) / 2)  # 4 distinct of 29, and none twice
    assert found.repeated_4_error == pytest.approx((1 - 4 / 29) / 2)  # of two values 0 and x
    assert found.in_loops == 0.5
    assert found.distinct_1 == (4 + 32) / 64 and found.distinct_2 == (4 + 31) / 62
    assert found.log_probability == -1.5
    assert found.log_probability_by_quarter == (-1.5,) * 4
    # A quarter of the loop has 8 tokens: 5 4-grams, 4 of them distinct.
    assert found.repeated_4_by_quarter == pytest.approx((0.1,) * 4)


def test_drift_shows_in_the_quarters():
    log_p = np.repeat([-1.0, -2.0, -3.0, -4.0], 10)
    one = Written(tokens=tuple(range(40)), log_probabilities=tuple(log_p.tolist()))
    found = measure("x", [one])
    assert found.log_probability_by_quarter == (-1, -2, -3, -4)
    assert found.log_probability == -2.5 and found.log_probability_error is None


def test_what_is_too_short_is_not_measured():
    found = measure("x", [continuation([], finished=True), continuation([7, 8])])
    assert found.tokens == 1 and found.finished == 0.5
    assert found.repeated_4 is None and found.log_probability_by_quarter is None
    assert found.log_probability == -1 and found.distinct_2 == 1
    assert measure("x", [continuation([])]).log_probability is None


def test_scores_equal_those_of_the_plain_forward_pass(sample):
    prompts = [[2, 270, 271], [2], [2, 280, 281, 282, 283]]
    continuations = [[272, 273, 274], [275, 276, 277, 278], []]
    found = score_continuations(sample.config, sample.params, prompts, continuations)
    assert [list(one.tokens) for one in found] == continuations
    for prompt, continued, got in zip(prompts, continuations, found, strict=True):
        log_p = jax.nn.log_softmax(sample.logits([*prompt, *continued]), axis=-1)
        places = range(len(prompt) - 1, len(prompt) - 1 + len(continued))
        expected = [log_p[at, token] for at, token in zip(places, continued, strict=True)]
        np.testing.assert_allclose(
            got.log_probabilities, expected, atol=1e-5
        )  # rows padded to another length


def test_scores_of_a_prefix_see_it_both_ways(sample):
    prompts, continuations = [[2, 270, 271, 290]], [[272, 273]]
    plain = score_continuations(sample.config, sample.params, prompts, continuations)
    (found,) = score_continuations(
        sample.config, sample.params, prompts, continuations, prompt_is_prefix=True
    )
    log_p = jax.nn.log_softmax(sample.logits([*prompts[0], *continuations[0]], prefix=4), axis=-1)
    np.testing.assert_allclose(found.log_probabilities, [log_p[3, 272], log_p[4, 273]], atol=1e-5)
    assert abs(np.subtract(found.log_probabilities, plain[0].log_probabilities)).max() > 1e-3


def test_passages_do_not_overlap_and_are_drawn_by_seed():
    documents = [np.arange(100, 125), np.arange(200, 209), np.arange(300, 320)]
    every = windows(documents, prompt=4, continuation=6, count=99)
    assert sorted(prompt[0] for prompt, _ in every) == [100, 110, 300, 310]
    for prompt, continued in every:
        assert [*prompt, *continued] == list(range(prompt[0], prompt[0] + 10))
    few = windows(documents, prompt=4, continuation=6, count=2, seed=3)
    assert few == windows(documents, prompt=4, continuation=6, count=2, seed=3)
    assert len(few) == 2 and all(passage in every for passage in few)
    with pytest.raises(InputError, match="corpus: got 'only short documents'"):
        windows(documents, prompt=20, continuation=20, count=1)
