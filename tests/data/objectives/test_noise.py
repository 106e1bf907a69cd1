from bisect import bisect_left
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.objective_config import ExampleLengths, SpanCorruptionConfig, span_counts
from data.objectives.noise import apportion, random_segmentation, share_noise, texts_that_fit


def _half_even(value: Fraction) -> int:
    below = value.numerator // value.denominator
    rest = value - below
    return below + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1))


def _t5_counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """T5's formulas in exact arithmetic on the double-precision products."""
    noise = _half_even(Fraction(length * density))
    noise = length - 1 if noise > length - 1 else max(noise, 1)
    return noise, max(_half_even(Fraction(noise / mean_span)), 1)


@pytest.mark.parametrize("density", [0.1, 0.15, 0.25, 0.3, 0.5])
@pytest.mark.parametrize("mean_span", [1.5, 2, 3, 8, 64])
def test_counts_are_those_of_t5(density, mean_span):
    for length in range(2, 1200):
        assert span_counts(length, density, mean_span) == _t5_counts(length, density, mean_span)


def test_counts_round_half_to_even():
    assert span_counts(10, 0.25, 1).noise == 2  # 2.5
    assert span_counts(14, 0.25, 1).noise == 4  # 3.5
    assert span_counts(50, 0.1, 2).spans == 2  # 5 / 2 = 2.5
    assert span_counts(70, 0.1, 2).spans == 4  # 7 / 2 = 3.5


def test_lengths_are_those_of_t5_for_512():
    assert SpanCorruptionConfig().lengths(512) == ExampleLengths(568, 0, 114, encoder_length=512)


@settings(deadline=None)
@given(
    st.integers(4, 2000),
    st.sampled_from([0.1, 0.15, 0.3, 0.5, 0.8]),
    st.sampled_from([1, 1.5, 3, 10, 64]),
)
def test_tokens_are_the_most_that_fit_the_encoder(seq_len, density, mean_span):
    config = SpanCorruptionConfig(density=density, mean_span=mean_span)
    tokens, _, length, encoder_length, _ = config.lengths(seq_len)

    def sides(size):
        noise, spans = span_counts(size, density, mean_span)
        return size - noise + spans + 1, noise + spans + 1

    assert encoder_length == seq_len
    assert sides(tokens)[0] <= seq_len and sides(tokens)[1] <= length
    one_less = density == 0.5 and sides(tokens + 1)[1] > sides(tokens + 1)[0]
    assert sides(tokens + 1)[0] > seq_len or one_less


def test_every_segmentation_is_equally_likely():
    random = np.random.default_rng(0)
    items, segments, draws = 7, 3, 6000
    ways = {}
    for cuts in combinations(range(1, items), segments - 1):
        ways[tuple(np.diff([0, *cuts, items]).tolist())] = 0
    for _ in range(draws):
        ways[tuple(random_segmentation(random, items, segments).tolist())] += 1
    expected = draws / len(ways)
    assert len(ways) == 15
    # Chi-square of 14 degrees is above 36.1 once in 1,000 times.
    assert sum((count - expected) ** 2 / expected for count in ways.values()) < 36.1


@settings(deadline=None)
@given(st.integers(0, 200), st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_apportioned_shares_sum_up_within_one_of_their_part(total, weights):
    weights = np.array(weights)
    found = apportion(total, weights)
    if weights.sum() == 0:
        return
    exact = total * weights / weights.sum()
    assert found.sum() == total and (np.abs(found - exact) < 1).all()
    if total <= weights.sum():
        assert (found <= weights).all()
    if total == weights.sum():
        assert (found == weights).all()


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=40),
    st.sampled_from([0.05, 0.15, 0.3, 0.5, 0.7, 0.9]),
    st.sampled_from([1, 2, 3, 8, 64]),
    st.integers(0, 12),
)
def test_shared_noise_fits_both_sides_and_every_text(sizes, density, mean_span, slack):
    """The row is as full as can be: nothing but content, or hardly anything else."""
    config = SpanCorruptionConfig(density=density, mean_span=mean_span)
    seq_len = 5 + bisect_left(
        range(5, 20_000), sum(sizes) + slack, key=lambda places: config.lengths(places).tokens
    )
    lengths = config.lengths(seq_len)
    sizes = np.array(sizes)
    at_most = texts_that_fit(lengths, int(sizes.sum()))
    sizes = np.append(sizes[: at_most - 1], sizes[at_most - 1 :].sum())
    sizes = sizes[sizes > 0]
    noise, spans = share_noise(sizes, density, mean_span, lengths)
    assert (spans >= (sizes > 1)).all()
    assert (noise >= spans).all() and (sizes - noise >= spans).all()
    assert ((noise > 0) == (spans > 0)).all()
    assert (sizes - noise + spans + 1).sum() <= lengths.encoder_length
    assert (noise + spans + 1).sum() <= lengths.length
    assert spans.max() <= len(config.symbols(seq_len))


@pytest.mark.parametrize("size", [2, 3, 17, 100, 567, 568])
def test_one_text_gets_what_t5_gives_it(size):
    config = SpanCorruptionConfig()
    shares = share_noise(np.array([size]), 0.15, 3.0, config.lengths(512))
    assert (int(shares.noise[0]), int(shares.spans[0])) == _t5_counts(size, 0.15, 3.0)


def test_a_few_whole_documents_lose_little_noise():
    """Of 540 content tokens in 6 documents, T5 alone would mask 81 in 27 spans."""
    config = SpanCorruptionConfig()
    sizes = np.array([90] * 6)
    wanted = [span_counts(size, 0.15, 3.0) for size in sizes]
    noise, spans = share_noise(sizes, 0.15, 3.0, config.lengths(512))
    assert sum(w.noise for w in wanted) - noise.sum() <= 6
    assert sum(w.spans for w in wanted) == spans.sum()
