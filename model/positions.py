"""Positions that are added: to the embedding (learned, sinusoidal) or to the scores (T5, ALiBi).

Rotary positions turn queries and keys instead: `model.rotary`. Biases depend on the distance of
two slots of a row, which within a document is the distance of its positions.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from configs.position_config import (
    AlibiConfig,
    LearnedPositionConfig,
    RelativeBiasConfig,
    SinusoidalPositionConfig,
)
from model.constrain import Constrain
from model.parameters import Initializer, normal, parameter


class Table(nn.Module):
    """A learned row per number: positions, token types."""

    num_rows: int
    emb_dim: int
    logical_axis: str
    start: Initializer
    dtype: jnp.dtype
    constrain: Constrain

    @nn.compact
    def __call__(self, rows_BL: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        table_PD = parameter(
            self,
            "embedding",
            self.start,
            (self.num_rows, self.emb_dim),
            (self.logical_axis, "embed"),
        )
        # Gathered over fsdp before the look-up: afterwards the rows are cut along that axis.
        table_PD = self.constrain(
            table_PD.astype(self.dtype), self.logical_axis, "activation_embed"
        )
        return self.constrain(
            jnp.take(table_PD, rows_BL, axis=0), "batch", "length", "activation_embed"
        )


def position_start(config: LearnedPositionConfig, stddev: float) -> Initializer:
    """How a position table begins, of standard deviation `stddev` either way."""
    if config.start == "normal":
        return normal(stddev)

    def start(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        del key
        positions_1P = jnp.arange(shape[0])[None, :] - config.offset
        table_PD = sinusoids(SinusoidalPositionConfig(), positions_1P, shape[1])[0]
        return (math.sqrt(2) * stddev * table_PD).astype(dtype)  # a sine's deviation is 1/sqrt(2)

    return start


def position_rows(
    config: LearnedPositionConfig, positions_BL: Int[Array, "B L"]
) -> Int[Array, "B L"]:
    """Rows of the table that positions take."""
    return positions_BL + config.offset


def sinusoids(
    config: SinusoidalPositionConfig, positions_BL: Int[Array, "B L"], emb_dim: int
) -> Float[Array, "B L D"]:
    """sin and cos of position · theta^(−2j/D) at features 2j and 2j + 1 (Vaswani et al. 2017)."""
    frequency_d = config.theta ** (-np.arange(0, emb_dim, 2) / emb_dim)
    angle_BLd = positions_BL[..., None].astype(jnp.float32) * jnp.asarray(
        frequency_d[None, None, :], jnp.float32
    )
    both_BLd2 = jnp.stack([jnp.sin(angle_BLd), jnp.cos(angle_BLd)], axis=-1)
    B, L = positions_BL.shape
    return jnp.reshape(both_BLd2, (B, L, 2 * len(frequency_d)))[..., :emb_dim]


class RelativeBias(nn.Module):
    """A learned number per head and distance bucket (T5), added to the scores of every layer."""

    config: RelativeBiasConfig
    num_heads: int
    bidirectional: bool
    stddev: float

    @nn.compact
    def __call__(self, distance_LM: Int[Array, "L M"]) -> Float[Array, "H L M"]:
        """Args:
        distance_LM: key slot minus query slot.
        """
        c = self.config
        table_RH = parameter(
            self,
            "embedding",
            normal(self.stddev),
            (c.num_buckets, self.num_heads),
            ("buckets", "heads"),
        )
        bucket_LM = distance_bucket(c, distance_LM, bidirectional=self.bidirectional)
        return jnp.transpose(jnp.take(table_RH, bucket_LM, axis=0), (2, 0, 1))


def distance_bucket(
    config: RelativeBiasConfig, distance_LM: Int[Array, "L M"], *, bidirectional: bool
) -> Int[Array, "L M"]:
    """The bucket of each distance (key minus query), as T5 has them.

    Both ways: half of the buckets for keys before (and at) the query, half for those after it;
    else later keys share bucket 0. Of a direction's buckets the first half hold one distance each,
    the rest grow logarithmically up to max_distance, and the last holds all beyond.
    """
    num_buckets, first = config.num_buckets, jnp.zeros_like(distance_LM)
    if bidirectional:
        num_buckets //= 2
        first = jnp.where(distance_LM > 0, num_buckets, 0)
        steps_LM = jnp.abs(distance_LM)
    else:
        steps_LM = jnp.maximum(-distance_LM, 0)
    exact = num_buckets // 2
    ratio_LM = jnp.maximum(steps_LM, 1).astype(jnp.float32) / exact
    log_LM = jnp.log(ratio_LM) / math.log(config.max_distance / exact)
    coarse_LM = exact + (log_LM * (num_buckets - exact)).astype(jnp.int32)
    coarse_LM = jnp.minimum(coarse_LM, num_buckets - 1)
    return first + jnp.where(steps_LM < exact, steps_LM, coarse_LM)


def alibi_bias(
    config: AlibiConfig, distance_LM: Int[Array, "L M"], num_heads: int
) -> Float[Array, "H L M"]:
    """−slope · |distance| (Press et al. 2022, arXiv 2108.12409)."""
    del config
    slope_H = jnp.asarray(alibi_slopes(num_heads), jnp.float32)
    return -slope_H[:, None, None] * jnp.abs(distance_LM)[None, :, :].astype(jnp.float32)


def alibi_slopes(num_heads: int) -> list[float]:
    """2^(−8h/H) for h = 1…H where H is a power of two.

    Otherwise those of the next lower power of two, then every other one of the power above.
    """
    lower = 2 ** math.floor(math.log2(num_heads))
    slopes = [2.0 ** (-8 * h / lower) for h in range(1, lower + 1)]
    between = [2.0 ** (-8 * h / (2 * lower)) for h in range(1, 2 * lower + 1, 2)]
    return slopes + between[: num_heads - lower]
