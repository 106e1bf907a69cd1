import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from configs.objective_config import MODE_R, MODE_S, MODE_X, UL2Config, span_counts
from data.objectives.ul2 import ul2
from tests.data.objectives.samples import (
    FIRST_SENTINEL,
    SYMBOLS,
    RowPlan,
    build_row,
    check_example,
    contents,
    docstring_is_true,
    filled,
    one_text,
    reconstruct,
    row_plans,
    transform,
)

CONFIG = UL2Config()
R, S, X = (SYMBOLS.ids[mode] for mode in (MODE_R, MODE_S, MODE_X))


def test_the_docstring_shows_what_happens():
    assert docstring_is_true(ul2, [(CONFIG, 10), (CONFIG, 10)])


@settings(deadline=None, max_examples=200)
@given(row_plans(max_size=90), st.sampled_from([5, 8, 16, 61, 100]))
def test_text_comes_back_and_both_sides_hold_any_row(plan, seq_len):
    row = build_row(plan, CONFIG.lengths(seq_len).tokens)
    example = transform(CONFIG, row, seq_len, plan.seed)
    check_example(CONFIG, example, seq_len)
    rebuilt, expected = reconstruct(CONFIG, example, seq_len), contents(row)
    assert sum(rebuilt, []) == sum(expected, [])
    assert rebuilt[:-1] == expected[: len(rebuilt) - 1]
    modes = {
        int(filled(example.encoder_inputs)[example.encoder_segment_ids == segment][0])
        for segment in set(example.segment_ids.tolist()) - {0}
    }
    assert len(modes) <= 1 and modes <= {R, S, X}


def _drawn(seed: int):
    """(mode, noise tokens, spans) of one text of 567 tokens, which fills a row of seq_len 512."""
    example = transform(CONFIG, one_text(567), 512, seed)
    targets = example.targets[example.loss_weights > 0]
    spans = int(np.count_nonzero((targets >= FIRST_SENTINEL) & (targets < FIRST_SENTINEL + 200)))
    return int(filled(example.encoder_inputs)[0]), len(targets) - 1 - spans, spans


def test_the_seven_denoisers_are_drawn_evenly():
    draws = [_drawn(seed) for seed in range(1400)]
    kinds = {
        (R, *span_counts(567, 0.15, 3)): 0,
        (R, *span_counts(567, 0.15, 8)): 0,
        S: 0,
        (X, *span_counts(567, 0.5, 3)): 0,
        (X, *span_counts(567, 0.5, 8)): 0,
        (X, *span_counts(567, 0.15, 64)): 0,
        (X, *span_counts(567, 0.5, 64)): 0,
    }
    assert len(kinds) == 7
    for draw in draws:
        kinds[S if draw[0] == S else draw] += 1
    assert stats.chisquare(list(kinds.values())).pvalue > 1e-3
    suffixes = np.array([noise for mode, noise, _ in draws if mode == S])
    # Even from what leaves the encoder room, 57, to as far above a quarter: 227.
    assert 57 <= suffixes.min() < 65 and 218 < suffixes.max() <= 227
    # The mean's deviation is 171 / sqrt(12 · 200) = 3.5; 3.3 of them are left once in 1,000 times.
    assert abs(suffixes.mean() - 0.25 * 567) < 12


@pytest.mark.parametrize("documents", [2, 5, 20])
def test_documents_stay_apart_and_each_has_something_to_predict(documents):
    size = 567 // documents - 2
    plan = RowPlan([size] * documents, [False] * documents, [False] * documents, False, 0)
    for seed in range(40):
        example = transform(CONFIG, build_row(plan, 567), 512, seed)
        counted = np.bincount(example.segment_ids[example.loss_weights > 0], minlength=1)
        assert (counted[1 : documents + 1] >= 2).all()
