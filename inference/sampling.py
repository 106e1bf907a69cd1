"""From logits to a chosen token."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from configs.errors import require

_EXCLUDED = -jnp.inf


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    temperature: divides the logits; 0 is greedy (the most likely token, the rest ignored).
    top_k: only the k most likely tokens; 0 keeps all.
    top_p: only the most likely tokens whose probabilities first add up to p (nucleus sampling,
      Holtzman et al. 2019, arXiv 1904.09751); 1 keeps all. Applied after temperature and top_k.
    seed: the same seed, prompts and settings give the same text.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self):
        require(self.temperature >= 0, "temperature", self.temperature, "0 (greedy) or more")
        require(self.top_k >= 0, "top_k", self.top_k, "0 (all tokens) or more")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")


def next_token_logits(logits_BV: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """Logits after temperature, top-k and top-p; excluded tokens are −inf. Not for greedy."""
    logits_BV = logits_BV / sampling.temperature
    if 0 < sampling.top_k < logits_BV.shape[-1]:
        kth_B1 = jax.lax.top_k(logits_BV, sampling.top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV >= kth_B1, logits_BV, _EXCLUDED)
    if sampling.top_p < 1:
        descending_BV = jnp.sort(logits_BV, axis=-1, descending=True)
        probabilities_BV = jax.nn.softmax(descending_BV, axis=-1)
        before_BV = jnp.cumsum(probabilities_BV, axis=-1) - probabilities_BV
        # A token stays if those likelier than it add up to less than p: the first always does.
        kept_BV = jnp.where(before_BV < sampling.top_p, descending_BV, jnp.inf)
        logits_BV = jnp.where(
            logits_BV >= jnp.min(kept_BV, axis=-1, keepdims=True), logits_BV, _EXCLUDED
        )
    return logits_BV


def choose(
    logits_BV: Float[Array, "B V"], sampling: Sampling, key: Key[Array, ""]
) -> Int[Array, " B"]:
    """One token per row. Rows draw independently: row b's draw depends on the key and b alone."""
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(logits_BV.shape[0]))
    filtered_BV = next_token_logits(logits_BV, sampling)
    return jax.vmap(jax.random.categorical)(keys_B, filtered_BV).astype(jnp.int32)
