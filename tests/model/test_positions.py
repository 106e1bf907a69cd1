"""Positions that are added, against formulas, brute force and published values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.position_config import (
    AlibiConfig,
    LearnedPositionConfig,
    RelativeBiasConfig,
    SinusoidalPositionConfig,
)
from model.positions import (
    alibi_bias,
    alibi_slopes,
    distance_bucket,
    position_rows,
    position_start,
    sinusoids,
)
from tests.model.numpy_transformer import bucket

T5 = RelativeBiasConfig(num_buckets=32, max_distance=128)


def buckets(config: RelativeBiasConfig, distances: np.ndarray, bidirectional: bool) -> np.ndarray:
    row = jnp.asarray(distances)[None]
    return np.asarray(distance_bucket(config, row, bidirectional=bidirectional))[0]


@pytest.mark.parametrize("bidirectional", [True, False], ids=["encoder", "decoder"])
@pytest.mark.parametrize(
    ("num_buckets", "max_distance"), [(32, 128), (8, 20), (16, 64), (64, 256), (4, 3)]
)
def test_buckets_are_those_counted_from_where_they_begin(num_buckets, max_distance, bidirectional):
    config = RelativeBiasConfig(num_buckets=num_buckets, max_distance=max_distance)
    distances = np.arange(-300, 301)
    expected = [
        bucket(d, num_buckets, max_distance, bidirectional=bidirectional)
        for d in distances.tolist()
    ]
    np.testing.assert_array_equal(buckets(config, distances, bidirectional), expected)


@pytest.mark.parametrize("bidirectional", [True, False], ids=["encoder", "decoder"])
def test_buckets_are_those_of_transformers(bidirectional):
    torch = pytest.importorskip("torch")
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distances = np.arange(-2000, 2001)
    theirs = t5.T5Attention._relative_position_bucket(
        torch.tensor(distances), bidirectional=bidirectional, num_buckets=32, max_distance=128
    )
    np.testing.assert_array_equal(buckets(T5, distances, bidirectional), theirs.numpy())


def test_buckets_of_an_encoder_and_a_decoder_written_out():
    distances = np.array([-200, -128, -64, -16, -8, -7, -1, 0, 1, 7, 8, 16, 127, 128])
    both = [15, 15, 14, 10, 8, 7, 1, 0, 17, 23, 24, 26, 31, 31]
    past = [31, 31, 26, 16, 8, 7, 1, 0, 0, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(buckets(T5, distances, True), both)
    np.testing.assert_array_equal(buckets(T5, distances, False), past)


def test_alibi_slopes_are_the_published_ones():
    assert alibi_slopes(8) == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert alibi_slopes(16)[:2] == [2**-0.5, 2**-1.0]
    assert alibi_slopes(1) == [2**-8]
    # Twelve heads: those of eight, then the first, third, … of sixteen.
    assert alibi_slopes(12) == alibi_slopes(8) + alibi_slopes(16)[0:8:2]


def test_alibi_falls_with_the_distance_on_both_sides():
    distance_LM = jnp.array([[-2, -1, 0, 3]])
    bias = np.asarray(alibi_bias(AlibiConfig(), distance_LM, 2))
    np.testing.assert_array_equal(
        bias[:, 0], [[-2 / 16, -1 / 16, 0, -3 / 16], [-2 / 256, -1 / 256, 0, -3 / 256]]
    )


def test_sinusoids_are_the_papers_formula():
    positions, theta, D = np.array([[0, 1, 7, 200]]), 10_000.0, 10
    ours = np.asarray(sinusoids(SinusoidalPositionConfig(theta=theta), jnp.asarray(positions), D))
    for (_, place, feature), value in np.ndenumerate(ours):
        wave = (np.sin, np.cos)[feature % 2]
        angle = positions[0, place] / theta ** (2 * (feature // 2) / D)
        # fp32 angles of up to 200 radians are off by 200 * 6e-8.
        assert value == pytest.approx(wave(angle), abs=2e-5)


def test_an_odd_width_drops_the_last_cosine():
    positions = jnp.array([[0, 3]])
    config = SinusoidalPositionConfig()
    assert sinusoids(config, positions, 7).shape == (1, 2, 7)


def test_positions_take_rows_from_the_offset_on():
    config = LearnedPositionConfig(num_positions=514, offset=2)
    np.testing.assert_array_equal(position_rows(config, jnp.array([[0, 1, 511]])), [[2, 3, 513]])


def test_a_table_begun_as_sines_has_the_wanted_deviation_and_position_0_at_the_offset():
    config = LearnedPositionConfig(num_positions=66, offset=2, start="sinusoidal")
    table_PD = np.asarray(position_start(config, 0.1)(jax.random.key(0), (66, 96), jnp.float32))
    # Exact in every row, since sin² + cos² = 1.
    np.testing.assert_allclose(np.square(table_PD).mean(axis=1), 0.1**2, rtol=1e-5)
    of_positions = np.asarray(sinusoids(SinusoidalPositionConfig(), jnp.arange(64)[None], 96))[0]
    np.testing.assert_allclose(table_PD[2:], np.sqrt(2) * 0.1 * of_positions, atol=1e-6)
    other_key = position_start(config, 0.1)(jax.random.key(1), (66, 96), jnp.float32)
    np.testing.assert_array_equal(table_PD, other_key)
