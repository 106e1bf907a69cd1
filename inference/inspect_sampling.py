"""What a sampler did at a step: the likeliest tokens before and after each of its stages.

Letters: B rows, V vocabulary, N tokens shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from inference.sampling import Sampling, SamplingValues, filtered_logits


class Distribution(NamedTuple):
    """The N likeliest tokens of each row under the model, and last the chosen one.

    model_BN: their probabilities under the model; scaled_BN: after repetition penalty and
    temperature; kept_BN: after the cuts, renormalised, 0 where cut off.
    """

    tokens_BN: Int[Array, "B N"]
    model_BN: Float[Array, "B N"]
    scaled_BN: Float[Array, "B N"]
    kept_BN: Float[Array, "B N"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A token that could have come: its id, how it reads, and its probability under the model,
    after repetition penalty and temperature (`scaled`), and after the cuts (`kept`; 0: cut off).
    """

    token: int
    text: str
    model: float
    scaled: float
    kept: float
    is_chosen: bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """The candidates for one token, likeliest first; the chosen one is always among them.

    others: what the model gave to all tokens not shown.
    """

    candidates: tuple[Candidate, ...]
    others: float

    @property
    def chosen(self) -> Candidate:
        return next(candidate for candidate in self.candidates if candidate.is_chosen)


def distribution(
    logits_BV: Float[Array, "B V"],
    values: SamplingValues,
    stages: Sequence[str],
    chosen_B: Int[Array, " B"],
    seen_BV: Bool[Array, "B V"] | None = None,
    *,
    num_candidates: int,
) -> Distribution:
    """The distribution before and after the stages of a sampler, at a few tokens.

    Greedy is shown as what it does: all probability on the likeliest token.
    """
    scaling = tuple(name for name in stages if name in ("repetition_penalty", "temperature"))
    scaled_BV = filtered_logits(logits_BV, values, scaling, seen_BV)
    kept_BV = filtered_logits(logits_BV, values, tuple(stages), seen_BV)
    if "temperature" not in stages:
        is_chosen_BV = jnp.arange(logits_BV.shape[-1])[None] == chosen_B[:, None]
        kept_BV = jnp.where(is_chosen_BV, 0.0, -jnp.inf)
    _, tokens_BN = jax.lax.top_k(logits_BV, num_candidates)
    tokens_BN = jnp.concatenate([tokens_BN.astype(jnp.int32), chosen_B[:, None]], axis=1)

    def at_tokens(logits_BV: jax.Array) -> jax.Array:
        probabilities_BV = jax.nn.softmax(logits_BV, axis=-1)
        return jnp.take_along_axis(probabilities_BV, tokens_BN, axis=-1)

    return Distribution(tokens_BN, at_tokens(logits_BV), at_tokens(scaled_BV), at_tokens(kept_BV))


def step_of(shown: Distribution, texts: Sequence[str]) -> Step:
    """One row's step.

    Args:
      shown: arrays [N] of one row.
      texts: how its N tokens read.
    """
    *likeliest, chosen = (
        Candidate(
            token=token,
            text=text,
            model=float(shown.model_BN[i]),
            scaled=float(shown.scaled_BN[i]),
            kept=float(shown.kept_BN[i]),
            is_chosen=token == int(shown.tokens_BN[-1]),
        )
        for i, (token, text) in enumerate(
            zip(np.asarray(shown.tokens_BN).tolist(), texts, strict=True)
        )
    )
    candidates = likeliest if any(c.is_chosen for c in likeliest) else [*likeliest, chosen]
    others = max(0.0, 1.0 - sum(candidate.model for candidate in candidates))
    return Step(candidates=tuple(candidates), others=others)


def settings_text(sampling: Sampling) -> str:
    """The settings that do something: "temperature 0.7, top_p 0.9", or "greedy"."""
    names = [] if sampling.is_greedy else ["temperature"]
    names += [name for name in sampling.stages if name != "temperature"]
    shown = ", ".join(f"{name} {getattr(sampling, name):g}" for name in names)
    return ("greedy" + (f", {shown}" if shown else "")) if sampling.is_greedy else shown
