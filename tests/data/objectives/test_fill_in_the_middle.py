import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from configs.objective_config import FillInTheMiddleConfig
from data.objectives.causal_lm import unshifted
from data.objectives.fill_in_the_middle import fill_in_the_middle
from tests.data.objectives.samples import (
    BOS,
    EOS,
    build_row,
    check_example,
    contents,
    docstring_is_true,
    make_row,
    one_text,
    reconstruct,
    row_plans,
    transform,
)

FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX = 5, 6, 7


def test_the_docstring_shows_what_happens():
    configs = [(FillInTheMiddleConfig(max_documents=1, spm_rate=rate), 9) for rate in (0, 1)]
    assert docstring_is_true(fill_in_the_middle, configs)


@settings(deadline=None)
@given(
    row_plans(max_size=40),
    st.sampled_from([0, 0.5, 1]),
    st.sampled_from([0, 0.5, 1]),
    st.integers(1, 5),
)
def test_text_comes_back(plan, rate, spm_rate, max_documents):
    config = FillInTheMiddleConfig(rate=rate, spm_rate=spm_rate, max_documents=max_documents)
    row = build_row(plan, config.lengths(48).tokens)
    example = transform(config, row, 48, plan.seed)
    check_example(config, example, 48)
    tokens, _ = unshifted(example)
    for marker in (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX):
        assert np.count_nonzero(tokens == marker) <= max_documents
    last = row.segment_ids[-1] != row.segment_ids[-2]
    if last and not example.loss_weights[-1]:
        # A last token that begins a document can only be the row's own where it has no padding.
        rebuilt = reconstruct(config, example, 48)
        expected = contents(row)
        assert rebuilt in (expected, contents(make_row(row.tokens[:-1], row.segment_ids[:-1])))
    else:
        assert reconstruct(config, example, 48) == contents(row)


def test_without_rearranging_a_row_is_causal_with_padding_after_it():
    config = FillInTheMiddleConfig(rate=0, max_documents=2)
    row = make_row([BOS, 20, 21, EOS, BOS, 22, 23], [1, 1, 1, 1, 2, 2, 2])
    example = transform(config, row, 12)
    assert example.inputs.tolist() == [BOS, 20, 21, EOS, BOS, 22, 23, 0, 0, 0, 0, 0]
    assert example.loss_weights.tolist() == [1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0]


def test_joined_documents_are_rearranged_each_on_its_own():
    config = FillInTheMiddleConfig(rate=1, spm_rate=0, max_documents=2)
    row = make_row([BOS, 20, 21, EOS, BOS, 22, 23], [1] * 7)
    for seed in range(20):
        tokens, segment_ids = unshifted(transform(config, row, 12, seed))
        assert tokens[[0, 1]].tolist() == [BOS, FIM_PREFIX]
        end = tokens.tolist().index(EOS)
        assert sorted(tokens[1:end]) == [FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX, 20, 21]
        assert sorted(tokens[end + 2 :]) == [FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX, 22, 23]
        assert segment_ids.tolist() == [1] * 13


def test_documents_are_rearranged_at_the_rate_and_orders_at_theirs():
    config = FillInTheMiddleConfig(rate=0.3, spm_rate=0.25, max_documents=8)
    row = make_row(np.arange(300, 308), np.arange(1, 9))
    rearranged = adjacent = 0
    for seed in range(500):
        tokens, _ = unshifted(transform(config, row, 31, seed))
        prefix = np.flatnonzero(tokens == FIM_PREFIX)
        rearranged += len(prefix)
        adjacent += np.count_nonzero(tokens[prefix + 1] == FIM_SUFFIX)
    # Two-sided binomial bounds, each false once in 1,000 times.
    assert _binomial(rearranged, 500 * 8, 0.3)
    # The one token is the prefix where both cuts follow it, 1 in 4; else PSM's prefix is empty,
    # SPM's always is.
    assert _binomial(adjacent, rearranged, 0.25 + 0.75 * 3 / 4)


def _binomial(count, draws, rate):
    return stats.binomtest(int(count), int(draws), rate).pvalue > 1e-3


def test_no_document_is_favoured_where_too_many_are_drawn():
    config = FillInTheMiddleConfig(rate=1, max_documents=1)
    row = make_row(np.arange(300, 306), np.arange(1, 7))
    chosen = np.zeros(7, int)
    for seed in range(600):
        tokens, segment_ids = unshifted(transform(config, row, 8, seed))
        chosen[segment_ids[tokens == FIM_MIDDLE]] += 1
    # 100 expected in each of 6 cells; chi-square of 5 degrees is above 20.5 once in 1,000 times.
    assert np.sum((chosen[1:] - 100) ** 2 / 100) < 20.5


@pytest.mark.parametrize("spm_rate", [0, 1])
def test_both_cuts_fall_evenly(spm_rate):
    """Each of the 6 suffix lengths 0 to 5 comes from the 6 x 6 cuts at its own known rate."""
    config = FillInTheMiddleConfig(rate=1, spm_rate=spm_rate, max_documents=1)
    row = one_text(5)
    lengths = np.zeros(6, int)
    for seed in range(1800):
        tokens, _ = unshifted(transform(config, row, 7, seed))
        suffix = np.flatnonzero(tokens == FIM_MIDDLE) - np.flatnonzero(tokens == FIM_SUFFIX) - 1
        lengths[suffix] += 1
    # The later of two even cuts is at k with probability (2k + 1) / 36, the suffix is what follows.
    expected = 1800 * (2 * np.arange(5, -1, -1) + 1) / 36
    # Chi-square of 5 degrees is above 20.5 once in 1,000 times.
    assert np.sum((lengths - expected) ** 2 / expected) < 20.5
