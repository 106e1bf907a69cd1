import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.objective_config import SpanCorruptionConfig, span_counts
from data.objectives.span_corruption import span_corruption
from tests.data.objectives.samples import (
    BOS,
    EOS,
    FIRST_SENTINEL,
    SYMBOLS,
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

CONFIG = SpanCorruptionConfig()


def test_the_docstring_shows_what_happens():
    assert docstring_is_true(
        span_corruption, [(SpanCorruptionConfig(density=0.25, mean_span=1), 10)]
    )


@settings(deadline=None, max_examples=200)
@given(
    row_plans(max_size=90),
    st.sampled_from([8, 16, 61, 100]),
    st.sampled_from([0.05, 0.15, 0.3, 0.5, 0.8]),
    st.sampled_from([1, 1.7, 3, 8]),
)
def test_text_comes_back_and_both_sides_hold_any_row(plan, seq_len, density, mean_span):
    config = SpanCorruptionConfig(density=density, mean_span=mean_span)
    row = build_row(plan, config.lengths(seq_len).tokens)
    example = transform(config, row, seq_len, plan.seed)
    check_example(config, example, seq_len)
    rebuilt, expected = reconstruct(config, example, seq_len), contents(row)
    assert sum(rebuilt, []) == sum(expected, [])
    assert rebuilt[:-1] == expected[: len(rebuilt) - 1]


@pytest.mark.parametrize("seq_len", [64, 128, 512])
def test_one_uncut_text_fills_both_sides(seq_len):
    lengths = CONFIG.lengths(seq_len)
    for seed in range(5):
        example = transform(CONFIG, one_text(lengths.tokens, seed), seq_len, seed)
        assert (filled(example.encoder_segment_ids) == 1).all() and (example.segment_ids == 1).all()
        assert (example.loss_weights == 1).all()
        assert filled(example.encoder_inputs)[-1] == example.targets[-1] == EOS
        assert example.inputs[0] == BOS and (example.inputs[1:] == example.targets[:-1]).all()


def test_sentinels_are_in_order_and_on_both_sides():
    _, spans = span_counts(568, 0.15, 3.0)
    example = transform(CONFIG, one_text(568), 512)
    expected = [FIRST_SENTINEL + i for i in range(spans)]
    for tokens in (filled(example.encoder_inputs), example.targets):
        is_sentinel = SYMBOLS.is_special[tokens] & (tokens != EOS)
        assert tokens[is_sentinel].tolist() == expected


def test_each_document_counts_its_sentinels_from_zero_and_keeps_its_number():
    row = make_row(
        [20, 21, 22, 23, 24, EOS, BOS, EOS, BOS, *range(300, 306), EOS, 0],
        [1] * 6 + [2] * 2 + [3] * 8 + [0],
    )
    example = transform(CONFIG, row, 16)
    assert set(example.segment_ids.tolist()) - {0} == {1}  # 5 places are too few for two
    example = transform(SpanCorruptionConfig(density=0.3), row._replace(), 16)
    segments = set(example.segment_ids.tolist()) - {0}
    assert segments == {1, 3}
    for segment in segments:
        assert example.targets[example.segment_ids == segment][0] == FIRST_SENTINEL


@pytest.mark.parametrize("documents", [1, 4, 12])
def test_density_and_span_length_hold_for_a_row_of_documents(documents):
    size = 568 // documents - 2
    row = make_row(
        np.concatenate([np.r_[BOS, np.full(size, 20), EOS] for _ in range(documents)]),
        np.repeat(np.arange(documents) + 1, size + 2),
    )
    row = make_row(
        np.pad(row.tokens, (0, 568 - len(row.tokens))),
        np.pad(row.segment_ids, (0, 568 - len(row.tokens))),
    )
    example = transform(CONFIG, row, 512)
    targets = example.targets[example.loss_weights > 0]
    noise = np.count_nonzero(targets == 20)
    spans = np.count_nonzero(targets >= FIRST_SENTINEL)
    assert len(set(example.segment_ids.tolist()) - {0}) == documents
    # Exact counts, no chance: T5's rounding of a document (of 45 tokens, 7 in 2 spans), and room
    # for the </s> of each.
    assert 0.13 < noise / (size * documents) < 0.16
    assert 2.4 < noise / spans < 3.6


def test_spans_lie_anywhere():
    """Each token but the first is noise in about `density` of the rows, the last in all."""
    row = one_text(40)
    times = np.zeros(40)
    row = row._replace(tokens=np.arange(300, 340, dtype=np.int32))
    for seed in range(600):
        example = transform(CONFIG, row, 37, seed)
        times[example.targets[example.targets >= 300] - 300] += 1
    noise, _ = span_counts(40, 0.15, 3.0)
    assert times.sum() == 600 * noise
    assert times[0] == 0 and times[-1] == 600
    assert (times[1:] > 0).all()


def test_a_document_of_one_token_has_only_its_end_to_predict():
    row = make_row([BOS, 20, EOS, *[0] * 14], [1, 1, 1, *[0] * 14])
    example = transform(CONFIG, row, 16)
    assert filled(example.encoder_inputs)[:3].tolist() == [20, EOS, 0]
    assert example.targets.tolist() == [EOS, 0, 0, 0, 0]
    assert example.loss_weights.tolist() == [1, 0, 0, 0, 0]


def test_another_row_number_gives_other_noise():
    row = one_text(568)
    noises = {transform(CONFIG, row, 512, seed).targets.tobytes() for seed in range(20)}
    assert len(noises) == 20
