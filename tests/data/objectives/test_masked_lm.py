import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from configs.objective_config import MaskedLMConfig
from data.objectives.masked_lm import masked_lm, word_starts
from tests.data.objectives.samples import (
    BOS,
    EOS,
    MASK_ID,
    PLAIN_IDS,
    SYMBOLS,
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


def test_the_docstring_shows_what_happens():
    assert docstring_is_true(masked_lm, [(MaskedLMConfig(mask_rate=0.5), 5)])


configs = st.builds(
    MaskedLMConfig,
    mask_rate=st.sampled_from([0.01, 0.15, 0.4, 0.99]),
    whole_words=st.booleans(),
)


@settings(deadline=None)
@given(configs, row_plans(max_size=80))
def test_text_comes_back_and_specials_are_never_chosen(config, plan):
    row = build_row(plan, 64)
    example = transform(config, row, 64, plan.seed)
    check_example(config, example, 64)
    assert reconstruct(config, example, 64) == contents(row)
    chosen = example.loss_weights > 0
    assert not SYMBOLS.is_special[row.tokens[chosen]].any()
    assert (example.inputs[~chosen] == row.tokens[~chosen]).all()
    assert (example.targets == row.tokens).all()
    assert not SYMBOLS.is_special[example.inputs[chosen & (example.inputs != MASK_ID)]].any()


@settings(deadline=None)
@given(st.floats(0.001, 0.999), row_plans(max_size=80))
def test_as_many_tokens_are_chosen_as_the_rate_says(rate, plan):
    row = build_row(plan, 64)
    maskable = sum(map(len, contents(row)))
    example = transform(MaskedLMConfig(mask_rate=rate), row, 64, plan.seed)
    expected = min(max(round(rate * maskable), 1), maskable)
    assert np.count_nonzero(example.loss_weights) == expected


def test_eight_in_ten_are_masked_one_is_random_one_stays():
    config = MaskedLMConfig(mask_rate=0.9)
    row = one_text(500)
    masked = stay = total = 0
    counts = np.zeros(SYMBOLS.vocab_size, int)
    for seed in range(100):
        example = transform(config, row, 500, seed)
        chosen = example.loss_weights > 0
        inputs, targets = example.inputs[chosen], example.targets[chosen]
        masked += np.count_nonzero(inputs == MASK_ID)
        stay += np.count_nonzero(inputs == targets)
        total += len(inputs)
        is_random = (inputs != MASK_ID) & (inputs != targets)
        counts += np.bincount(inputs[is_random], minlength=len(counts))
    # Two-sided binomial bounds at a false-alarm rate of 1 in 1,000; a random token may be the
    # token itself.
    same = 1 / len(PLAIN_IDS)
    assert stats.binomtest(masked, total, 0.8).pvalue > 1e-3
    assert stats.binomtest(stay, total, 0.1 + 0.1 * same).pvalue > 1e-3
    assert stats.chisquare(counts[PLAIN_IDS]).pvalue > 1e-3
    assert counts.sum() == counts[PLAIN_IDS].sum()


@pytest.mark.parametrize("whole_words", [False, True])
def test_every_token_is_chosen_at_the_same_rate(whole_words):
    # Words of 2 tokens each: a multiple of 4 begins one.
    row = make_row(np.tile([400, 401], 20), [1] * 40)
    config = MaskedLMConfig(mask_rate=0.2, whole_words=whole_words)
    times = np.sum([transform(config, row, 40, s).loss_weights for s in range(1000)], axis=0)
    assert times.sum() == 8 * 1000
    # 200 expected of 1,000 with deviation 12.6; 5 deviations off happens once in 40,000 rows of 40.
    assert np.abs(times - 200).max() < 5 * 12.65


def test_what_a_word_is():
    #       [<s>, a, b, ␣c, d, e␣, f, </s>, <s>, g, h]; multiples of 4 begin with a space,
    # multiples of 7 end with one. The last token is of another segment.
    tokens = [BOS, 401, 402, 404, 405, 413, 409, EOS, BOS, 401, 402, 403]
    row = make_row(tokens, [1] * 11 + [2])
    maskable = np.flatnonzero(~SYMBOLS.is_special[row.tokens])
    starts = word_starts(row, maskable, SYMBOLS).astype(int)
    assert dict(zip(maskable.tolist(), starts.tolist(), strict=True)) == {
        1: 1, 2: 0, 3: 1, 4: 0, 5: 0, 6: 1, 9: 1, 10: 0, 11: 1
    }  # fmt: skip


@settings(deadline=None)
@given(row_plans(max_size=80), st.sampled_from([0.15, 0.5]))
def test_words_are_chosen_whole_and_do_not_overshoot_unless_one_does(plan, rate):
    row = build_row(plan, 64)
    example = transform(MaskedLMConfig(mask_rate=rate, whole_words=True), row, 64, plan.seed)
    maskable = np.flatnonzero(~SYMBOLS.is_special[row.tokens] & (row.segment_ids > 0))
    if len(maskable) == 0:
        assert not example.loss_weights.any()
        return
    word = np.cumsum(word_starts(row, maskable, SYMBOLS)) - 1
    sizes = np.bincount(word)
    chosen = np.bincount(word, weights=example.loss_weights[maskable])
    assert set((chosen / sizes).tolist()) <= {0, 1}
    number = max(round(rate * len(maskable)), 1)
    assert chosen.sum() <= number or np.count_nonzero(chosen) == 1
    # No word that is left out would have fitted.
    assert chosen.sum() >= number or sizes[chosen == 0].min() > number - chosen.sum()


def test_another_row_number_gives_another_mask():
    row = one_text(64)
    masks = {transform(MaskedLMConfig(), row, 64, s).loss_weights.tobytes() for s in range(20)}
    assert len(masks) == 20
    again = transform(MaskedLMConfig(), row, 64, 3)
    assert again.loss_weights.tobytes() in masks
