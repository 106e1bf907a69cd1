"""Weighted cross-entropy, the one loss of every objective."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class LossSums(NamedTuple):
    """Sums over the tokens of a batch, fp32 scalars; divide by `weight` for means.

    auxiliary: what the model adds to the loss itself (a mixture's balance), times the weight.

    Sums, not means, so that microbatches and hosts with different numbers of trained-on tokens
    add up to exactly the loss of the whole batch.
    """

    cross_entropy: Float[Array, ""]
    z_loss: Float[Array, ""]
    weight: Float[Array, ""]
    auxiliary: Float[Array, ""]

    @classmethod
    def zeros(cls) -> "LossSums":
        """Sums over nothing."""
        return cls(*(jnp.zeros(()) for _ in cls._fields))


def cross_entropy_sums(
    logits_BLV: Float[Array, "B L V"],
    targets_BL: Int[Array, "B L"],
    weights_BL: Float[Array, "B L"],
) -> LossSums:
    """Sums of weight · (−log p(target)) in nats and of weight · logsumexp²; auxiliary is 0.

    The second is the z-loss, which keeps the normaliser near one (PaLM, arXiv 2204.02311,
    section 5); the caller scales it.

    Args:
      logits_BLV: fp32.
      weights_BL: 0 for tokens not trained on.
    """
    log_normaliser_BL = jax.nn.logsumexp(logits_BLV, axis=-1)
    # A comparison instead of a gather: it fuses, and its gradient is no scatter.
    is_target_BLV = jnp.arange(logits_BLV.shape[-1])[None, None, :] == targets_BL[:, :, None]
    target_logit_BL = jnp.sum(jnp.where(is_target_BLV, logits_BLV, 0.0), axis=-1)
    nats_BL = log_normaliser_BL - target_logit_BL
    return LossSums(
        cross_entropy=jnp.sum(nats_BL * weights_BL),
        z_loss=jnp.sum(jnp.square(log_normaliser_BL) * weights_BL),
        weight=jnp.sum(weights_BL),
        auxiliary=jnp.zeros(()),
    )
