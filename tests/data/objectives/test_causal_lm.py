import numpy as np
from hypothesis import given, settings

from configs.objective_config import CausalLMConfig
from data.objectives.causal_lm import causal_lm
from tests.data.objectives.samples import (
    build_row,
    check_example,
    contents,
    docstring_is_true,
    make_row,
    reconstruct,
    row_plans,
    transform,
)

CONFIG = CausalLMConfig()


def test_the_docstring_shows_what_happens():
    assert docstring_is_true(causal_lm, [(CONFIG, 5)])


def test_shifts_by_one_and_never_predicts_a_document_start():
    example = transform(CONFIG, make_row([7, 8, 3, 2, 9, 3], [1, 1, 1, 2, 2, 2]), 5)
    assert example.inputs.tolist() == [7, 8, 3, 2, 9]
    assert example.targets.tolist() == [8, 3, 2, 9, 3]
    assert example.loss_weights.tolist() == [1, 1, 0, 1, 1]
    assert example.positions.tolist() == [0, 1, 2, 0, 1]
    assert example.segment_ids.tolist() == [1, 1, 1, 2, 2]
    assert example.loss_weights.dtype == np.float32


def test_padding_has_no_weight():
    example = transform(CONFIG, make_row([7, 8, 0, 0], [1, 1, 0, 0]), 3)
    assert example.loss_weights.tolist() == [1, 0, 0]


@settings(deadline=None)
@given(row_plans(max_size=40))
def test_text_comes_back_but_for_a_last_token_that_begins_a_document(plan):
    row = build_row(plan, 33)
    example = transform(CONFIG, row, 32)
    check_example(CONFIG, example, 32)
    if row.segment_ids[-1] != row.segment_ids[-2]:
        row = make_row(row.tokens[:-1], row.segment_ids[:-1])
    assert reconstruct(CONFIG, example, 32) == contents(row)
