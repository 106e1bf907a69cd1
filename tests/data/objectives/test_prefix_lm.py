import numpy as np
import pytest
from hypothesis import given, settings

from configs.objective_config import PrefixLMConfig
from data.objectives.prefix_lm import prefix_lm
from tests.data.objectives.samples import (
    BOS,
    EOS,
    build_row,
    check_example,
    contents,
    docstring_is_true,
    filled,
    make_row,
    one_text,
    reconstruct,
    row_plans,
    transform,
)

ONE_SIDE = PrefixLMConfig()
TWO_SIDES = PrefixLMConfig(architecture="encoder_decoder")


def test_the_docstring_shows_what_happens():
    assert docstring_is_true(prefix_lm, [(ONE_SIDE, 7), (TWO_SIDES, 9)])


@settings(deadline=None)
@given(row_plans(max_size=40))
def test_text_comes_back_from_one_side(plan):
    row = build_row(plan, 33)
    example = transform(ONE_SIDE, row, 32, plan.seed)
    check_example(ONE_SIDE, example, 32)
    if row.segment_ids[-1] != row.segment_ids[-2]:
        row = make_row(row.tokens[:-1], row.segment_ids[:-1])
    assert reconstruct(ONE_SIDE, example, 32) == contents(row)


@settings(deadline=None)
@given(row_plans(max_size=40))
def test_text_comes_back_from_two_sides(plan):
    row = build_row(plan, 31)
    example = transform(TWO_SIDES, row, 32, plan.seed)
    check_example(TWO_SIDES, example, 32)
    assert sum(reconstruct(TWO_SIDES, example, 32), []) == sum(contents(row), [])


@settings(deadline=None)
@given(row_plans(max_size=40, joined=False))
def test_no_target_is_visible_and_every_other_token_of_a_document_is_a_target(plan):
    row = build_row(plan, 33)
    example = transform(ONE_SIDE, row, 32, plan.seed)
    for segment in set(row.segment_ids.tolist()) - {0}:
        here = example.segment_ids == segment
        prefix, weights = filled(example.prefix)[here].tolist(), example.loss_weights[here].tolist()
        places = np.count_nonzero(row.segment_ids == segment)
        cut = sum(prefix)
        assert prefix == [1] * cut + [0] * (len(prefix) - cut)
        assert sum(weights) == max(places - max(cut, 1), 0)
        # Input i predicts token i + 1, which must be outside of the prefix.
        assert not any(weights[: cut - 1]) or cut == 0
        assert min(places - 1, 1) <= cut <= max(places - 1, 0)


@pytest.mark.parametrize("config", [ONE_SIDE, TWO_SIDES])
def test_every_cut_is_equally_likely(config):
    seq_len = 12 if config is ONE_SIDE else 14
    row = one_text(13)
    cuts = np.zeros(14, int)
    for seed in range(2400):
        example = transform(config, row, seq_len, seed)
        weighted = int(example.loss_weights.sum())
        cuts[13 - weighted + (config is TWO_SIDES)] += 1
    assert cuts[0] == cuts[13] == 0
    # 200 expected in each of 12 cells; chi-square of 11 degrees is above 31.3 once in 1,000 times.
    assert np.sum((cuts[1:13] - 200) ** 2 / 200) < 31.3


def test_a_document_of_one_token_is_a_target():
    example = transform(TWO_SIDES, make_row([BOS, 20, EOS, 0], [1, 1, 1, 0]), 5)
    assert filled(example.encoder_inputs).tolist() == [EOS, 0, 0, 0, 0]
    assert example.targets.tolist() == [20, EOS, 0, 0, 0]
