import numpy as np
import pytest

from configs.objective_config import (
    CausalLMConfig,
    DenoisingConfig,
    FillInTheMiddleConfig,
    MaskedLMConfig,
    PrefixLMConfig,
    SpanCorruptionConfig,
    UL2Config,
)
from data.batches import Batch
from data.objectives import OBJECTIVES
from data.objectives.accuracy import span_accuracy
from tests.data.objectives.samples import EOS, SYMBOLS, context, docstring_arrays


def _batch(targets, segment_ids=None, loss_weights=None) -> Batch:
    targets = np.array(targets, np.int32)
    segments = np.array(segment_ids) if segment_ids else (targets > 0).astype(np.int32)
    weights = np.array(loss_weights) if loss_weights else (segments > 0).astype(np.float32)
    return Batch(targets, targets, weights, targets, segments)


def _metrics(config, batch, is_correct):
    objective = OBJECTIVES[type(config)]
    return objective.metrics(config, batch, np.array(is_correct, bool), context(config, 64))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (CausalLMConfig(), "token_accuracy"),
        (PrefixLMConfig(), "token_accuracy"),
        (FillInTheMiddleConfig(), "token_accuracy"),
        (DenoisingConfig(), "token_accuracy"),
        (MaskedLMConfig(), "masked_token_accuracy"),
    ],
)
def test_only_targets_that_count_are_counted(config, name):
    batch = _batch([[20, 21, 22, 23]], loss_weights=[[1, 0, 1, 0]])
    assert _metrics(config, batch, [[True, True, False, False]]) == {name: 0.5}


def test_span_accuracy_is_what_the_docstring_shows():
    before, after = docstring_arrays(span_accuracy)
    batch = _batch([before["targets"]])
    metrics = _metrics(SpanCorruptionConfig(), batch, [before["is_correct"]])
    assert metrics["span_accuracy"] == after["span_accuracy"]
    assert metrics["token_accuracy"] == pytest.approx(4 / 6)


def test_a_wrong_sentinel_or_end_spoils_no_span():
    batch = _batch([[90, 20, 91, 21, 22, EOS, 0]])
    metrics = _metrics(UL2Config(), batch, [[0, 1, 0, 1, 1, 0, 0]])
    assert metrics == {"token_accuracy": 0.5, "span_accuracy": 1.0}


def test_texts_without_sentinels_are_a_span_each():
    batch = _batch(
        [[20, 21, EOS, 22, EOS, 0], [20, EOS, EOS, 0, 0, 0]],
        [[1, 1, 1, 2, 2, 0], [1, 1, 2, 0, 0, 0]],
    )
    metrics = _metrics(UL2Config(), batch, [[1, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    assert metrics["span_accuracy"] == pytest.approx(2 / 3)  # the one of only </s> has none


def test_spans_end_with_the_row():
    batch = _batch([[90, 20], [21, 22]])
    assert _metrics(UL2Config(), batch, [[1, 1], [0, 1]])["span_accuracy"] == 0.5


def test_nothing_to_count_is_zero():
    batch = _batch([[0, 0]])
    assert _metrics(SpanCorruptionConfig(), batch, [[1, 1]]) == {
        "token_accuracy": 0.0,
        "span_accuracy": 0.0,
    }


def test_bits_per_byte_are_defined_where_each_token_is_a_target_once():
    scoring = {config for config, objective in OBJECTIVES.items() if objective.scores_text}
    assert scoring == {CausalLMConfig}


def test_the_token_before_a_target_is_visible_where_the_table_says():
    previous = {config: objective.previous for config, objective in OBJECTIVES.items()}
    assert previous.pop(MaskedLMConfig) == 1 and set(previous.values()) == {0}


def test_every_objective_asks_for_symbols_the_tests_have():
    for config in OBJECTIVES:
        assert set(config().symbols(256)) <= set(SYMBOLS.ids)
