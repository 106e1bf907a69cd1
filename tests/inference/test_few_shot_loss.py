"""Losses by place are the model's, and repeats are told apart from what any context is worth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.errors import InputError
from inference.few_shot_loss import (
    PlacewiseLoss,
    place_loss,
    repeated_loss,
    repeated_sequences,
    running_text,
)
from tests.model.samples import tiny_model


class FakeLoss(PlacewiseLoss):
    """`loss(row, place)` in place of a model's."""

    def __init__(self, loss):
        self._loss = loss

    def of(self, tokens_BL: np.ndarray) -> np.ndarray:
        return np.array([[self._loss(r, i) for i in range(len(r))] for r in tokens_BL], float)


def sequences(rows: int = 6, length: int = 20) -> np.ndarray:
    return np.random.default_rng(0).integers(1000, size=(rows, length))


def test_losses_are_those_of_the_forward_pass(sample):
    model = PlacewiseLoss(sample.config, sample.params, seq_len=64, bos_id=2)
    tokens_BL = np.random.default_rng(0).integers(4, 300, size=(3, 40))
    losses_BL = model.of(tokens_BL)
    for row, losses in zip(tokens_BL, losses_BL, strict=True):
        logits = sample.logits([2, *row[:-1].tolist()]).astype(np.float64)
        expected = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(row)), row]
        # fp32 logits and their softmax, against double precision.
        np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_a_uniform_model_gains_nothing(sample):
    zeros = jax.tree.map(jnp.zeros_like, sample.params)
    model = PlacewiseLoss(sample.config, zeros, seq_len=64, bos_id=2)
    found = repeated_loss(model, "text", np.random.default_rng(0).integers(4, 300, (3, 20)))
    uniform = pytest.approx(np.log(sample.config.vocab_size), rel=1e-5)
    assert (found.first[0], found.second[0], found.after_other[0]) == (uniform,) * 3
    assert found.gain[0] == pytest.approx(0, abs=1e-5)


def test_a_model_that_remembers_tokens_gains_on_the_second_copy():
    def loss(row, place):
        return 1.0 if row[place] in row[:place] else 5.0

    found = repeated_loss(FakeLoss(loss), "random", sequences())
    assert found.second == (1.0, 0.0)
    assert found.first[0] > 4.5 and found.after_other[0] > 4
    assert found.gain[0] == pytest.approx(found.after_other[0] - 1)
    assert len(found.by_place) == 40 and len(found.other_by_place) == 20
    assert found.by_place[20:] == (1.0,) * 20


def test_what_a_longer_context_is_worth_is_no_gain():
    found = repeated_loss(FakeLoss(lambda _, place: 5.0 - 0.1 * place), "text", sequences())
    assert found.first[0] - found.second[0] == pytest.approx(2)
    assert found.gain == (pytest.approx(0), pytest.approx(0))


def test_errors_are_over_rows():
    per_row = dict(zip(sequences()[:, 0].tolist(), [1, 2, 3, 4, 5, 6], strict=True))
    found = repeated_loss(FakeLoss(lambda row, _: per_row[int(row[0])]), "text", sequences())
    assert found.first == (3.5, pytest.approx(np.std([1, 2, 3, 4, 5, 6], ddof=1) / np.sqrt(6)))


def test_place_loss_is_late_less_early():
    found = place_loss(FakeLoss(lambda _, place: 4.0 if place < 32 else 3.0), sequences(4, 64))
    assert (found.early, found.late, found.score) == (4.0, 3.0, (-1.0, 0.0))
    assert found.by_place == (4.0,) * 32 + (3.0,) * 32


def test_sequences_are_seeded_and_of_the_texts_tokens():
    text = np.random.default_rng(1).integers(10, 60, size=500)
    found = dict(repeated_sequences(text, seq_len=65, rows=5, seed=3))
    again = dict(repeated_sequences(text, seq_len=65, rows=5, seed=3))
    other = dict(repeated_sequences(text, seq_len=65, rows=5, seed=4))
    assert list(found) == ["random tokens", "shuffled text", "text"]
    for kind, rows in found.items():
        assert rows.shape == (5, 32) and set(rows.ravel()) <= set(text)
        np.testing.assert_array_equal(rows, again[kind])
        assert (rows != other[kind]).any()
    joined = " ".join(map(str, text))
    assert all(" ".join(map(str, row)) in joined for row in found["text"])
    assert not any(" ".join(map(str, row)) in joined for row in found["shuffled text"])


def test_bad_input_is_named(sample):
    with pytest.raises(InputError, match="^model.architecture: got 'encoder_decoder'"):
        config = tiny_model(architecture="encoder_decoder")
        PlacewiseLoss(config, sample.params, seq_len=64, bos_id=2)
    with pytest.raises(InputError, match="^data.seq_len: got 16"):
        PlacewiseLoss(sample.config, sample.params, seq_len=16, bos_id=2)
    with pytest.raises(InputError, match="^text: got '10 tokens'"):
        running_text(np.arange(10), 10, rows=2, seed=0)
