"""Position encodings. Rotary: each pair of a head's features is turned by an angle ∝ position."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from configs.position_config import RopeConfig


class Rotation(NamedTuple):
    """Cosine and sine of every angle, fp32 [B, L, C/2]; computed once, used by every layer."""

    cos_BLc: Float[Array, "B L c"]
    sin_BLc: Float[Array, "B L c"]


def rotation(config: RopeConfig, positions_BL: Int[Array, "B L"], head_dim: int) -> Rotation:
    """Angles position · theta^(−2j/C) for j in 0..C/2 (Su et al. 2021, equation 15)."""
    j_c = jnp.arange(head_dim // 2, dtype=jnp.float32)
    frequency_c = config.theta ** (-2.0 * j_c / head_dim)
    angle_BLc = positions_BL[..., None].astype(jnp.float32) * frequency_c[None, None, :]
    return Rotation(jnp.cos(angle_BLc), jnp.sin(angle_BLc))


def rotate(x_BLHC: Float[Array, "B L H C"], angles: Rotation) -> Float[Array, "B L H C"]:
    """Turns feature j with feature j + C/2, the pairing Llama's published weights use."""
    cos = angles.cos_BLc[:, :, None, :].astype(x_BLHC.dtype)
    sin = angles.sin_BLc[:, :, None, :].astype(x_BLHC.dtype)
    first, second = jnp.split(x_BLHC, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
