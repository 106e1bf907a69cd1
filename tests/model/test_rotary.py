"""Rotary embedding: the published rotation and scalings, and scores that see differences only."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs.position_config import (
    LinearScalingConfig,
    Llama3ScalingConfig,
    RopeConfig,
    RopeScalingConfig,
    YarnScalingConfig,
)
from model.rotary import Rotation, local_rotation, rotate, rotation

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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_tpu_turns_alike_without_halves(dtype):
    x_BLHC = jnp.asarray(random_heads(6)[None], dtype)
    angles = rotation(RopeConfig(), jnp.asarray([[0, 1, 2, 9, 100, 1023]]), C)
    by_product = rotate(x_BLHC, angles, platform="tpu")
    assert by_product.dtype == dtype
    np.testing.assert_array_equal(by_product, rotate(x_BLHC, angles))


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


def frequencies(angles: Rotation, *, amplitude: float = 1.0) -> np.ndarray:
    """Radians per position, from the angles of position 1, which are below pi."""
    (cos, again), (negated, sin) = (np.split(np.asarray(angle)[0, 1], 2) for angle in angles)
    np.testing.assert_array_equal(again, cos)
    np.testing.assert_array_equal(negated, -sin)
    np.testing.assert_allclose(np.hypot(cos, sin), amplitude, rtol=1e-6)
    return np.arctan2(sin, cos)


TWO_POSITIONS = jnp.array([[0, 1]])
LLAMA3 = Llama3ScalingConfig(factor=32.0, original_length=8192)  # Llama 3.2


@pytest.mark.parametrize(
    ("scaling", "theirs", "theta"),
    [
        (LinearScalingConfig(factor=8.0), {"rope_type": "linear", "factor": 8.0}, 1e6),
        (
            LLAMA3,
            {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            5e5,
        ),
        (
            YarnScalingConfig(factor=4.0, original_length=4096),
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
            1e4,
        ),
        (
            YarnScalingConfig(
                factor=16.0,
                beta_fast=20.0,
                beta_slow=2.0,
                original_length=1024,
                attention_factor=0.9,
            ),
            {
                "rope_type": "yarn",
                "factor": 16.0,
                "beta_fast": 20.0,
                "beta_slow": 2.0,
                "attention_factor": 0.9,
                "original_max_position_embeddings": 1024,
            },
            1e4,
        ),
    ],
    ids=["linear", "llama3", "yarn", "yarn, other parts"],
)
def test_scaled_frequencies_are_those_of_transformers(
    scaling: RopeScalingConfig, theirs: dict, theta: float
):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    head_dim = 64
    their_config = transformers.LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        max_position_embeddings=131_072,
        rope_parameters={"rope_theta": theta} | theirs,
    )
    their_frequency, amplitude = ROPE_INIT_FUNCTIONS[theirs["rope_type"]](their_config, "cpu")
    ours = rotation(RopeConfig(theta=theta, scaling=scaling), TWO_POSITIONS, head_dim)
    # A power, a division and an arc tangent in fp32 each: a few units of the last place (6e-8).
    np.testing.assert_allclose(
        frequencies(ours, amplitude=amplitude), their_frequency.numpy(), rtol=1e-6
    )


def test_llama_3_keeps_fast_features_and_slows_slow_ones_down():
    plain = frequencies(rotation(RopeConfig(theta=5e5), TWO_POSITIONS, 64))
    scaled = frequencies(rotation(RopeConfig(theta=5e5, scaling=LLAMA3), TWO_POSITIONS, 64))
    wavelength = 2 * np.pi / plain
    fast, slow = wavelength < 8192 / 4, wavelength > 8192
    np.testing.assert_allclose(scaled[fast], plain[fast], rtol=1e-6)
    np.testing.assert_allclose(scaled[slow], plain[slow] / 32, rtol=1e-6)
    between = scaled[~fast & ~slow] / plain[~fast & ~slow]
    assert len(between) > 1 and (between < 1).all() and (between > 1 / 32).all()


def test_yarns_amplitude_follows_from_the_factor():
    scaled = rotation(RopeConfig(scaling=YarnScalingConfig(factor=4.0)), TWO_POSITIONS, C)
    amplitude = np.hypot(scaled.cos_BLC, scaled.sin_BLC)
    np.testing.assert_allclose(amplitude, 0.1 * np.log(4.0) + 1, rtol=1e-6)


def test_layers_with_a_window_have_their_own_unscaled_base_or_turn_as_the_others():
    scaling = LinearScalingConfig(factor=8.0)
    local = RopeConfig(theta=1e6, local_theta=1e4, scaling=scaling)
    expected = frequencies(rotation(RopeConfig(theta=1e4), TWO_POSITIONS, C))
    np.testing.assert_array_equal(frequencies(local_rotation(local, TWO_POSITIONS, C)), expected)
    shared = RopeConfig(theta=1e6, scaling=scaling)
    np.testing.assert_array_equal(
        frequencies(local_rotation(shared, TWO_POSITIONS, C)),
        frequencies(rotation(shared, TWO_POSITIONS, C)),
    )
