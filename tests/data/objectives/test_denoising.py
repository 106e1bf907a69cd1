import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.objective_config import DenoisingConfig
from data.objectives.denoising import denoising, draw_spans, infilled, permuted_sentences
from tests.data.objectives.samples import (
    EOS,
    MASK_ID,
    SYMBOLS,
    build_row,
    check_example,
    contents,
    docstring_arrays,
    docstring_is_true,
    filled,
    one_text,
    reconstruct,
    row_plans,
    transform,
)


def test_the_docstring_shows_what_happens():
    assert docstring_is_true(denoising, [(DenoisingConfig(), 9)])


def test_infilling_is_what_its_docstring_shows():
    before, after = docstring_arrays(infilled)
    tokens, starts, lengths = (np.array(before[name]) for name in ("tokens", "starts", "lengths"))
    assert infilled(tokens, starts, lengths, mask_id=MASK_ID).tolist() == after["infilled"]


configs = st.builds(
    DenoisingConfig,
    mask_rate=st.sampled_from([0.01, 0.3, 0.6, 0.99]),
    mean_span=st.sampled_from([0.1, 1.0, 3.0, 20.0]),
    permute_sentences=st.booleans(),
)


@settings(deadline=None, max_examples=200)
@given(configs, row_plans(max_size=80))
def test_text_comes_back_and_the_encoder_holds_any_row(config, plan):
    row = build_row(plan, 63)
    example = transform(config, row, 64, plan.seed)
    check_example(config, example, 64)
    assert sum(reconstruct(config, example, 64), []) == sum(contents(row), [])
    for segment in set(example.segment_ids.tolist()) - {0}:
        encoder = filled(example.encoder_inputs)[example.encoder_segment_ids == segment].tolist()
        targets = example.targets[example.segment_ids == segment].tolist()
        assert encoder[-1] == targets[-1] == EOS and len(encoder) <= len(targets)
        kept = [token for token in encoder if token != MASK_ID]
        if config.permute_sentences:
            assert not set(kept) - set(targets)
        else:
            rest = iter(targets)
            assert all(token in rest for token in kept), "kept tokens stay in order"


def test_sentences_stay_whole_and_every_order_is_equally_likely():
    tokens = np.array([20, 21, 22, 23, 25, 26], np.int32)  # 22 and 25 end a sentence
    random = np.random.default_rng(0)
    counts = {}
    for _ in range(600):
        order = tuple(permuted_sentences(tokens, SYMBOLS.ends_sentence, random).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert set(counts) == {
        (20, 21, 22, 23, 25, 26),
        (20, 21, 22, 26, 23, 25),
        (23, 25, 20, 21, 22, 26),
        (23, 25, 26, 20, 21, 22),
        (26, 20, 21, 22, 23, 25),
        (26, 23, 25, 20, 21, 22),
    }
    # 100 expected in each of 6 cells; chi-square of 5 degrees is above 20.5 once in 1,000 times.
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 20.5


@settings(deadline=None)
@given(
    st.integers(0, 300),
    st.sampled_from([0.1, 0.3, 0.9]),
    st.sampled_from([1e-9, 0.5, 3.0, 40.0]),
    st.integers(0, 2**32 - 1),
)
def test_spans_mask_what_they_should_and_never_overlap(num_tokens, rate, mean_span, seed):
    config = DenoisingConfig(mask_rate=rate, mean_span=mean_span)
    starts, lengths = draw_spans(num_tokens, config, np.random.default_rng(seed))
    assert len(starts) == len(lengths) <= round(rate * num_tokens)
    assert lengths.sum() == round(rate * num_tokens)
    assert (lengths >= 0).all()
    ends = starts + lengths
    assert (starts[1:] >= ends[:-1]).all()
    assert ((starts >= 0) & (ends <= num_tokens)).all()


def test_as_many_tokens_are_masked_as_asked_in_spans_of_poisson_length():
    random = np.random.default_rng(0)
    lengths = []
    for _ in range(300):
        _, drawn = draw_spans(500, DenoisingConfig(), random)
        assert drawn.sum() == 150
        lengths += drawn[:-1].tolist()  # the last is cut to fit
    # 15,000 draws of deviation 1.73: the mean's is .014. Stopping at a sum favours short spans a
    # little (about mean / number of spans = .06), so the bound is that and 3.3 deviations.
    assert abs(np.mean(lengths) - 3) < 0.11
    # exp(-3) = .050 have no length, deviation .0018; 3.3 deviations and as much again for stopping.
    assert abs(np.mean(np.array(lengths) == 0) - np.exp(-3)) < 0.012


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_mask_may_be_inserted_anywhere(place):
    starts, lengths = np.array([place]), np.array([0])
    tokens = infilled(np.array([20, 21, 22]), starts, lengths, mask_id=MASK_ID).tolist()
    assert tokens.index(MASK_ID) == place and len(tokens) == 4


def test_touching_spans_stay_two_masks():
    tokens = infilled(np.arange(20, 25), np.array([1, 3]), np.array([2, 1]), mask_id=MASK_ID)
    assert tokens.tolist() == [20, MASK_ID, MASK_ID, 24]


def test_another_row_number_gives_other_noise():
    row = one_text(63)
    noises = {
        filled(transform(DenoisingConfig(), row, 64, seed).encoder_inputs).tobytes()
        for seed in range(20)
    }
    assert len(noises) == 20
