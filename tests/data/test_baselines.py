"""N-gram baselines: worked by hand on toys, and against each other on text with structure."""

import numpy as np
import pytest

from configs.data_config import BestFitConfig, DataConfig
from configs.objective_config import CausalLMConfig, MaskedLMConfig, SpanCorruptionConfig
from data.baselines import (
    Targets,
    bigram,
    count,
    fit_weights,
    interpolated,
    ngram_baselines,
    targets_of,
    unigram,
)
from data.batches import stack_examples
from data.dataset import training_rows
from data.objectives import Example
from data.prepare import Preparation, prepare_corpus
from tests.data.conftest import ALL_SYMBOLS, ListSource, objective_run, sentences


def targets(previous, of):
    return Targets(np.array(previous, np.int64), np.array(of, np.int64))


# V = 4; 4 stands for no token before.
COUNTED = targets([4, 0, 1, 0, 1, 1], [0, 1, 0, 1, 1, 2])


def test_counts_are_those_of_a_hand():
    counts = count(COUNTED, 4)
    assert counts.unigrams.tolist() == [2, 3, 1, 0]
    assert counts.contexts.tolist() == [2, 3, 0, 0, 1]
    pairs = zip(counts.pairs.tolist(), counts.pair_counts.tolist(), strict=True)
    assert {divmod(key, 4): n for key, n in pairs} == {
        (4, 0): 1, (0, 1): 2, (1, 0): 1, (1, 1): 1, (1, 2): 1,
    }  # fmt: skip


def test_probabilities_are_those_of_a_hand():
    counts = count(COUNTED, 4)
    asked = targets([0, 1, 1, 2, 4], [1, 2, 3, 0, 0])
    np.testing.assert_allclose(unigram(counts, asked), np.array([4, 2, 1, 3, 3]) / 10)
    np.testing.assert_allclose(bigram(counts, asked), [1, 1 / 3, 0, 0, 1])
    weights = np.full(64, 0.5)
    weights[1] = 0.25  # tokens before that were seen once: only "none" here
    np.testing.assert_allclose(
        interpolated(counts, asked, weights),
        [
            0.5 * 1 + 0.5 * 0.4,
            0.5 / 3 + 0.5 * 0.2,
            0.5 * 0 + 0.5 * 0.1,
            0.3,  # 2 was never seen before anything
            0.25 * 1 + 0.75 * 0.3,
        ],
    )


@pytest.mark.parametrize("seen", range(5))
def test_probabilities_add_up_to_one_over_the_vocabulary(seen):
    counts = count(COUNTED, 4)
    asked = targets([seen] * 4, range(4))
    assert unigram(counts, asked).sum() == pytest.approx(1)
    assert interpolated(counts, asked, fit_weights(counts, COUNTED)).sum() == pytest.approx(1)


def test_weights_are_the_likeliest_there_are():
    rng = np.random.default_rng(0)
    counted = targets(rng.integers(0, 5, 400), rng.integers(0, 5, 400) ** 2 % 5)
    fitted_on = targets(rng.integers(0, 5, 90), rng.integers(0, 5, 90))
    counts = count(counted, 5)
    p1, p2 = unigram(counts, fitted_on), bigram(counts, fitted_on)
    [bucket] = np.unique(np.frexp(counts.contexts[fitted_on.previous])[1])
    grid = np.linspace(0.0005, 0.9995, 1000)
    # The observation that speaks for either side alike is half a look at each.
    likelihood = np.log(grid[:, None] * p2 + (1 - grid[:, None]) * p1).sum(1)
    likelihood += 0.5 * np.log(grid) + 0.5 * np.log(1 - grid)
    # A grid of steps of 1e-3, and expectation maximisation that stops after 100 rounds.
    assert fit_weights(counts, fitted_on)[bucket] == pytest.approx(
        grid[likelihood.argmax()], abs=0.02
    )


def test_weights_nothing_speaks_for_are_a_half():
    assert fit_weights(count(COUNTED, 4), targets([], [])).tolist() == [0.5] * 64


def example(inputs, of, weights, segments):
    return Example(
        inputs=np.array(inputs, np.int32),
        targets=np.array(of, np.int32),
        loss_weights=np.array(weights, np.float32),
        positions=np.zeros(len(inputs), np.int32),
        segment_ids=np.array(segments, np.int32),
    )


def test_a_decoder_sees_the_input_beside_the_target():
    one = example([2, 7, 8, 2], [7, 8, 2, 9], [1, 1, 0, 1], [1, 1, 1, 2])
    found = targets_of(one, previous=0, vocab_size=10)
    assert (found.previous.tolist(), found.targets.tolist()) == ([2, 7, 2], [7, 8, 9])


def test_an_encoder_sees_the_input_before_the_target_in_its_own_segment():
    one = example([2, 4, 4, 4, 8], [2, 7, 7, 9, 8], [0, 1, 1, 1, 0], [1, 1, 1, 2, 2])
    found = targets_of(one, previous=1, vocab_size=10)
    assert (found.previous.tolist(), found.targets.tolist()) == ([2, 4, 10], [7, 7, 9])
    two = targets_of(stack_examples([one, one]), previous=1, vocab_size=10)
    assert two.previous.tolist() == [2, 4, 10, 2, 4, 10]


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """Held-out text of the same kind as the training text."""
    documents = [(f"train/{i}", sentences(60, seed=i)) for i in range(30)]
    documents += [(f"held/{i}", sentences(20, seed=100 + i)) for i in range(4)]
    preparation = Preparation(vocab_size=400, symbols=ALL_SYMBOLS)
    return prepare_corpus(ListSource(documents), tmp_path_factory.mktemp("prose"), preparation)


def nats(corpus, objective, **changes):
    run = objective_run(objective, DataConfig(seq_len=48, packing=BestFitConfig()), corpus)
    return ngram_baselines(run, corpus, **changes)


@pytest.mark.parametrize(
    "objective",
    [CausalLMConfig(), MaskedLMConfig(), SpanCorruptionConfig()],
    ids=lambda objective: objective.kind,
)
def test_the_token_before_helps_on_text_with_structure(prose, objective):
    found = nats(prose, objective)
    assert 0 < found["bigram_nats"] < found["unigram_nats"] < np.log(400)
    assert found == nats(prose, objective)


def test_the_unigram_is_that_of_the_training_rows(prose):
    data = DataConfig(seq_len=48)
    run = objective_run(CausalLMConfig(), data, prose)
    source = training_rows(run, {"one": prose})
    counts = np.zeros(400)
    for number in range(source.facts[0].rows_per_epoch):
        row = source.row(number).example
        np.add.at(counts, row.targets[row.loss_weights > 0], 1)
    held_out = np.concatenate([d.tokens for d in prose.documents("held_out")])
    expected = -np.log((counts[held_out] + 1) / (counts.sum() + 400)).mean()
    # Sums in another order.
    assert ngram_baselines(run, prose)["unigram_nats"] == pytest.approx(expected, 1e-12)


def test_a_cap_on_training_text_takes_the_first_rows(prose):
    less, more = (nats(prose, CausalLMConfig(), training_tokens=n) for n in (500, 10**9))
    assert more["unigram_nats"] < less["unigram_nats"]
    assert more["bigram_nats"] < less["bigram_nats"]


def test_a_text_that_repeats_itself_is_nearly_certain(tmp_path):
    texts = [
        (f"{part}/{i}", "abcdefgh" * 80)
        for part, n in (("train", 40), ("held", 2))
        for i in range(n)
    ]
    made = prepare_corpus(
        ListSource(texts), tmp_path / "c", Preparation(vocab_size=270, keep_duplicates=True)
    )
    found = nats(made, CausalLMConfig())
    assert found["bigram_nats"] < 0.1 < found["unigram_nats"]
