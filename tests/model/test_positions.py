"""Rotary embedding: the published rotation, and scores that see differences only."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs.position_config import RopeConfig
from model.positions import rotate, rotation

C = 8


def rotated(x: np.ndarray, positions: list[int], theta: float = 10_000.0) -> np.ndarray:
    """x [L, H, C] at the positions."""
    angles = rotation(RopeConfig(theta=theta), jnp.asarray([positions]), C)
    return np.asarray(rotate(jnp.asarray(x)[None], angles)[0])


def random_heads(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((length, 3, C)).astype(np.float32)


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
def test_rotation_is_the_published_half_rotation(theta):
    # Hugging Face's Llama: x·cos + rotate_half(x)·sin, with the frequencies written twice.
    x, positions = random_heads(6), [0, 1, 2, 9, 100, 1023]
    inverse_frequency = 1.0 / theta ** (np.arange(0, C, 2) / C)
    angles = np.array(positions)[:, None] * inverse_frequency
    angles = np.concatenate([angles, angles], axis=-1)[:, None, :]
    rotate_half = np.concatenate([-x[..., C // 2 :], x[..., : C // 2]], axis=-1)
    expected = x * np.cos(angles) + rotate_half * np.sin(angles)
    # fp32 angles of a thousand radians are off by 1000 * 6e-8.
    np.testing.assert_allclose(rotated(x, positions, theta), expected, atol=3e-4)
    np.testing.assert_allclose(rotated(x, positions, theta)[:4], expected[:4], atol=3e-6)


def test_scores_depend_on_the_difference_of_positions_alone():
    q, k = random_heads(1, seed=1), random_heads(1, seed=2)

    def score(query_position: int, key_position: int) -> np.ndarray:
        return np.sum(rotated(q, [query_position]) * rotated(k, [key_position]), axis=-1)

    for difference in (0, 1, 5, 40):
        near, far = score(difference, 0), score(difference + 60, 60)
        np.testing.assert_allclose(near, far, atol=1e-4)
    assert np.abs(score(5, 0) - score(0, 5)).max() > 1e-2
    assert np.abs(score(5, 0) - score(6, 0)).max() > 1e-2


def test_position_zero_turns_nothing_and_no_position_changes_lengths():
    x = random_heads(4)
    np.testing.assert_array_equal(rotated(x, [0] * 4), x)
    turned = rotated(x, [1, 10, 100, 1000])
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-6
    )
