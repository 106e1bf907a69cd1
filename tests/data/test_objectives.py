import numpy as np

from configs.objective_config import CausalLMConfig
from data.objectives import OBJECTIVES
from data.packing import Row, RowCounts


def _row(tokens, segment_ids, positions):
    return Row(
        np.array(tokens, np.int32),
        np.array(segment_ids, np.int32),
        np.array(positions, np.int32),
        RowCounts(0, 0, 0, 0, 0),
        0,
    )


def _causal_lm(row):
    return OBJECTIVES[CausalLMConfig].transform(CausalLMConfig(), row, np.random.default_rng)


def test_causal_lm_shifts_by_one_and_never_predicts_a_document_start():
    row = _row([7, 8, 3, 2, 9, 3], [1, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2])
    example = _causal_lm(row)
    assert example.inputs.tolist() == [7, 8, 3, 2, 9]
    assert example.targets.tolist() == [8, 3, 2, 9, 3]
    assert example.loss_weights.tolist() == [1, 1, 0, 1, 1]
    assert example.positions.tolist() == [0, 1, 2, 0, 1]
    assert example.segment_ids.tolist() == [1, 1, 1, 2, 2]
    assert example.loss_weights.dtype == np.float32


def test_causal_lm_gives_padding_no_weight():
    row = _row([7, 8, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0])
    example = _causal_lm(row)
    assert example.loss_weights.tolist() == [1, 0, 0]
