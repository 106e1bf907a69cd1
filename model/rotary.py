"""Rotary positions: each pair of a head's features is turned by an angle ∝ position."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from configs.position_config import (
    LinearScalingConfig,
    Llama3ScalingConfig,
    NoScalingConfig,
    RopeConfig,
    RopeScalingConfig,
    YarnScalingConfig,
)


class Rotation(NamedTuple):
    """Cosine and sine of every feature's angle, fp32 [B, L, C]; computed once, used by every layer.

    Feature j and feature j + C/2 have the same angle; the sine of the first is negated.
    """

    cos_BLC: Float[Array, "B L C"]
    sin_BLC: Float[Array, "B L C"]


def rotation(config: RopeConfig, positions_BL: Int[Array, "B L"], head_dim: int) -> Rotation:
    """Angles position · theta^(−2j/C) for j in 0..C/2 (Su et al. 2021, equation 15), scaled."""
    frequency_c = frequencies(config.theta, head_dim)
    frequency_c = _SCALINGS[type(config.scaling)](config.scaling, frequency_c, config.theta)
    return _rotation(frequency_c, positions_BL, _amplitude(config.scaling))


def local_rotation(config: RopeConfig, positions_BL: Int[Array, "B L"], head_dim: int) -> Rotation:
    """The rotation of layers with a window: as all others, or with their own base, unscaled."""
    if not config.local_theta:
        return rotation(config, positions_BL, head_dim)
    return _rotation(frequencies(config.local_theta, head_dim), positions_BL, 1.0)


def rotate(
    x_BLHC: Float[Array, "B L H C"], angles: Rotation, *, platform: str = "cpu"
) -> Float[Array, "B L H C"]:
    """Turns feature j with feature j + C/2, the pairing Llama's published weights use.

    Args:
      platform: of the program. A TPU swaps halves by a product with a permutation, exact and in
        whole registers: half a head fills half of one, and cutting and joining halves takes it as
        long as the projection before.
    """
    cos, sin = (angle[:, :, None, :].astype(x_BLHC.dtype) for angle in angles)
    half = x_BLHC.shape[-1] // 2
    if platform == "tpu":
        swap_CC = jnp.roll(jnp.eye(2 * half, dtype=x_BLHC.dtype), half, axis=1)
        precision = "highest" if x_BLHC.dtype == jnp.float32 else None
        return x_BLHC * cos + jnp.tensordot(x_BLHC, swap_CC, 1, precision=precision) * sin
    first, second = jnp.split(x_BLHC, 2, axis=-1)
    cos, sin = cos[..., :half], sin[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def frequencies(theta: float, head_dim: int) -> Float[Array, " c"]:
    """Radians per position of each pair, fp32, fastest first."""
    return theta ** (-2.0 * jnp.arange(head_dim // 2, dtype=jnp.float32) / head_dim)


def _rotation(
    frequency_c: Float[Array, " c"], positions_BL: Int[Array, "B L"], amplitude: float
) -> Rotation:
    angle_BLc = positions_BL[..., None].astype(jnp.float32) * frequency_c[None, None, :]
    cos_BLc, sin_BLc = jnp.cos(angle_BLc) * amplitude, jnp.sin(angle_BLc) * amplitude
    return Rotation(
        jnp.concatenate([cos_BLc, cos_BLc], axis=-1), jnp.concatenate([-sin_BLc, sin_BLc], axis=-1)
    )


def _amplitude(scaling: RopeScalingConfig) -> float:
    if not isinstance(scaling, YarnScalingConfig):
        return 1.0
    return scaling.attention_factor or max(1.0, 0.1 * math.log(scaling.factor) + 1.0)


def _unscaled(scaling: NoScalingConfig, frequency_c: jax.Array, theta: float) -> jax.Array:
    del scaling, theta
    return frequency_c


def _linear(scaling: LinearScalingConfig, frequency_c: jax.Array, theta: float) -> jax.Array:
    del theta
    return frequency_c / scaling.factor


def _llama3(scaling: Llama3ScalingConfig, frequency_c: jax.Array, theta: float) -> jax.Array:
    """Kept where a wavelength fits high_frequency_factor times into the original length, divided
    where it fits less than low_frequency_factor times, in between by how often it fits."""
    del theta
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    turns_c = scaling.original_length * frequency_c / (2 * math.pi)
    kept_c = jnp.clip((turns_c - low) / (high - low), 0.0, 1.0)
    return frequency_c * (kept_c + (1 - kept_c) / scaling.factor)


def _yarn(scaling: YarnScalingConfig, frequency_c: jax.Array, theta: float) -> jax.Array:
    """Kept below the pair that turns beta_fast times over the original length, divided above the
    one that turns beta_slow times, a linear ramp over the pairs between (YaRN, section 3.2)."""
    half = len(frequency_c)

    def pair_turning(times: float) -> float:
        return half * math.log(scaling.original_length / (times * 2 * math.pi)) / math.log(theta)

    first = max(math.floor(pair_turning(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_turning(scaling.beta_slow)), 2 * half - 1)
    width = last - first or 0.001
    divided_c = jnp.clip((jnp.arange(half) - first) / width, 0.0, 1.0)
    return frequency_c * (1 - divided_c + divided_c / scaling.factor)


_SCALINGS: dict[type, Callable[[Any, jax.Array, float], jax.Array]] = {
    NoScalingConfig: _unscaled,
    LinearScalingConfig: _linear,
    Llama3ScalingConfig: _llama3,
    YarnScalingConfig: _yarn,
}
