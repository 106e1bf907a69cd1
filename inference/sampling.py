"""From logits to a chosen token: a chain of stages, each of them on only where it is asked for.

Letters: B rows, V vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from configs.errors import require

Stages = tuple[str, ...]
_EXCLUDED = -jnp.inf
_BITS_OF_ONE = 0x3F800000  # of the fp32 number 1.0


class SamplingValues(NamedTuple):
    """The numbers of a `Sampling` as a program takes them: other numbers, the same program."""

    temperature: Float[Array, ""]
    top_k: Int[Array, ""]
    top_p: Float[Array, ""]
    min_p: Float[Array, ""]
    repetition_penalty: Float[Array, ""]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen; stages apply in this order, as in `transformers`.

    repetition_penalty: divides the logits above 0 of tokens that stand in the prompt or the text
      already, multiplies those below (Keskar et al. 2019, arXiv 1909.05858); 1 changes nothing.
    temperature: divides the logits; 0 is greedy (the most likely token; what follows is ignored).
    top_k: only the k most likely tokens; 0 keeps all.
    top_p: only the most likely tokens whose probabilities first add up to p (nucleus sampling,
      Holtzman et al. 2019, arXiv 1904.09751); 1 keeps all.
    min_p: only tokens at least so likely as this share of the likeliest (Nguyen et al. 2024,
      arXiv 2407.01082); 0 keeps all.
    seed: the same seed, prompts and settings give the same text.

    Tokens that tie with the last one kept are kept too.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self):
        penalty = self.repetition_penalty
        require(0 <= self.temperature < math.inf, "temperature", self.temperature, "0 or more")
        require(self.top_k >= 0, "top_k", self.top_k, "0 (all tokens) or more")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        require(0 <= self.min_p < 1, "min_p", self.min_p, "0 or more and below 1")
        require(0 < penalty < math.inf, "repetition_penalty", penalty, "a number above 0")
        require(0 <= self.seed < 2**32, "seed", self.seed, f"0 to {2**32 - 1}")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def stages(self) -> Stages:
        """Names of the stages that do something, in order; without "temperature" greedy."""
        on = {
            "repetition_penalty": self.repetition_penalty != 1,
            "temperature": not self.is_greedy,
            "top_k": self.top_k > 0 and not self.is_greedy,
            "top_p": self.top_p < 1 and not self.is_greedy,
            "min_p": self.min_p > 0 and not self.is_greedy,
        }
        return tuple(name for name, is_on in on.items() if is_on)

    @property
    def values(self) -> SamplingValues:
        return SamplingValues(
            jnp.float32(self.temperature),
            jnp.int32(self.top_k),
            jnp.float32(self.top_p),
            jnp.float32(self.min_p),
            jnp.float32(self.repetition_penalty),
        )


DEFAULT_SAMPLING = Sampling()


def filtered_logits(
    logits_BV: Float[Array, "B V"],
    values: SamplingValues,
    stages: Stages,
    seen_BV: Bool[Array, "B V"] | None = None,
) -> Float[Array, "B V"]:
    """Logits after the stages named; those of tokens cut off are −inf.

    Args:
      seen_BV: tokens in the prompt or the text; needed for "repetition_penalty" alone.
    """
    if "repetition_penalty" in stages:
        assert seen_BV is not None
        logits_BV = penalised(logits_BV, seen_BV, values.repetition_penalty)
    for name in stages:
        if name in _FILTERS:
            logits_BV = _FILTERS[name](logits_BV, values)
    return logits_BV


def choose(
    logits_BV: Float[Array, "B V"],
    values: SamplingValues,
    stages: Stages,
    keys_B: Key[Array, " B"],
    seen_BV: Bool[Array, "B V"] | None = None,
) -> Int[Array, " B"]:
    """One token a row: the likeliest, or a draw that depends on the row's key alone."""
    filtered_BV = filtered_logits(logits_BV, values, stages, seen_BV)
    if "temperature" not in stages:
        return likeliest(filtered_BV)
    return jax.vmap(_draw)(keys_B, filtered_BV)


def likeliest(logits_BV: Float[Array, "B V"]) -> Int[Array, " B"]:
    """The first of a row's largest logits: argmax, which XLA's CPU code is six times slower at."""
    return jax.lax.top_k(logits_BV, 1)[1][:, 0]


def penalised(
    logits_BV: Float[Array, "B V"], seen_BV: Bool[Array, "B V"], penalty: Float[Array, ""]
) -> Float[Array, "B V"]:
    """Logits with those of seen tokens lowered by a repetition penalty above 1."""
    lowered_BV = jnp.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return jnp.where(seen_BV, lowered_BV, logits_BV)


def _draw(key: jax.Array, logits_V: jax.Array) -> jax.Array:
    # The Gumbel-max trick: the largest of logits plus Gumbel noise is a draw from their softmax.
    noisy_V = logits_V + jax.random.gumbel(key, logits_V.shape)
    return likeliest(noisy_V[None])[0]


def _temperature(logits_BV: jax.Array, values: SamplingValues) -> jax.Array:
    return logits_BV / values.temperature


def _top_k(logits_BV: jax.Array, values: SamplingValues) -> jax.Array:
    probabilities_BV = jax.nn.softmax(logits_BV, axis=-1)
    ones_BV = jnp.ones_like(probabilities_BV)
    return _cut(logits_BV, probabilities_BV, ones_BV, values.top_k.astype(jnp.float32))


def _top_p(logits_BV: jax.Array, values: SamplingValues) -> jax.Array:
    probabilities_BV = jax.nn.softmax(logits_BV, axis=-1)
    return _cut(logits_BV, probabilities_BV, probabilities_BV, values.top_p)


def _min_p(logits_BV: jax.Array, values: SamplingValues) -> jax.Array:
    floor_B1 = jnp.max(logits_BV, axis=-1, keepdims=True) + jnp.log(values.min_p)
    return jnp.where(logits_BV >= floor_B1, logits_BV, _EXCLUDED)


_FILTERS: dict[str, Callable[[jax.Array, SamplingValues], jax.Array]] = {
    "temperature": _temperature,
    "top_k": _top_k,
    "top_p": _top_p,
    "min_p": _min_p,
}


def _cut(
    logits_BV: jax.Array, probabilities_BV: jax.Array, weights_BV: jax.Array, limit: jax.Array
) -> jax.Array:
    """Keeps tokens while the weights of those likelier add up to less than the limit: with ones
    the top k, with probabilities the top p; the likeliest always stays.

    The cut is found by bisection over the bits of the probabilities, which sort as they do: exact,
    and ten to forty times as fast on a CPU as sorting the vocabulary.
    """
    bits_BV = jax.lax.bitcast_convert_type(probabilities_BV, jnp.int32)

    def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_B1, high_B1 = bounds  # the lowest cut that keeps little enough is among low..high
        middle_B1 = (low_B1 + high_B1) // 2
        likelier_B1 = jnp.sum(jnp.where(bits_BV > middle_B1, weights_BV, 0), axis=-1, keepdims=True)
        fits_B1 = likelier_B1 < limit
        return jnp.where(fits_B1, low_B1, middle_B1 + 1), jnp.where(fits_B1, middle_B1, high_B1)

    shape = (logits_BV.shape[0], 1)
    bounds = (jnp.zeros(shape, jnp.int32), jnp.full(shape, _BITS_OF_ONE, jnp.int32))
    cut_B1, _ = jax.lax.fori_loop(0, _BITS_OF_ONE.bit_length(), halve, bounds)
    return jnp.where(bits_BV >= cut_B1, logits_BV, _EXCLUDED)
