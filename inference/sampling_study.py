"""What sampling does to text: the same prompts continued in many ways, measured and compared with
what people wrote.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from configs.errors import require
from configs.model_config import ModelConfig
from inference.score_rows import continuation_row, score_rows
from inference.text_statistics import distinct_share, in_loops, quarters, repeated_share
from model.build import Params

_SHORTEST_IN_QUARTERS = 32


@runtime_checkable
class Continuation(Protocol):
    """What followed a prompt, such as a `TokenGeneration`: token ids, and log p of each after those
    before it, nats. finished: it ended itself, with a token that is not among them."""

    @property
    def tokens(self) -> tuple[int, ...]: ...
    @property
    def log_probabilities(self) -> tuple[float, ...]: ...
    @property
    def finished(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Written:
    """A `Continuation` that a person wrote."""

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class TextMeasures:
    """Means over continuations, each of which counts alike.

    tokens: length. finished: share that ended by themselves. repeated_4: share of 4-grams the
    continuation holds already; repeated_4_error: standard error of that mean. distinct_1,
    distinct_2: over all continuations together. in_loops: share of tokens in a passage that comes
    three times or more in a row. log_probability: of a token under the model at temperature 1, with
    its standard error. The quarters, from first to last, are of continuations of 32 tokens or more.
    What cannot be measured, for want of tokens, is None.
    """

    name: str
    texts: int
    tokens: float
    finished: float
    repeated_4: float | None
    repeated_4_error: float | None
    distinct_1: float | None
    distinct_2: float | None
    in_loops: float | None
    log_probability: float | None
    log_probability_error: float | None
    log_probability_by_quarter: tuple[float, ...] | None
    repeated_4_by_quarter: tuple[float, ...] | None


def measure(name: str, continuations: Sequence[Continuation]) -> TextMeasures:
    """The measures of one way to continue."""
    texts = [one.tokens for one in continuations]
    begun = [one for one in continuations if one.tokens]
    repeated, repeated_error = _mean([repeated_share(text, 4) for text in texts])
    log_probability, log_probability_error = _mean(
        [float(np.mean(one.log_probabilities)) for one in begun]
    )
    return TextMeasures(
        name=name,
        texts=len(texts),
        tokens=float(np.mean([len(text) for text in texts])),
        finished=float(np.mean([one.finished for one in continuations])),
        repeated_4=repeated,
        repeated_4_error=repeated_error,
        distinct_1=distinct_share(texts, 1),
        distinct_2=distinct_share(texts, 2),
        in_loops=_mean([float(in_loops(one.tokens).mean()) for one in begun])[0],
        log_probability=log_probability,
        log_probability_error=log_probability_error,
        **_by_quarter(begun),
    )


def score_continuations(
    config: ModelConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    *,
    prompt_is_prefix: bool = False,
) -> list[Written]:
    """What the model makes of continuations: log p of every token, by a pass over the whole text.

    Args:
      prompts: with what stands before a text (start of sequence).
      prompt_is_prefix: the prompt's tokens see one another both ways.
    """
    require(all(prompts), "prompts", "an empty one", "a start of sequence at least")
    found = [Written(tokens=tuple(one), log_probabilities=()) for one in continuations]
    written = [number for number, one in enumerate(continuations) if one]
    rows = [
        continuation_row(prompts[i], continuations[i], context_is_prefix=prompt_is_prefix)
        for i in written
    ]
    for i, score in zip(written, score_rows(config, params, rows), strict=True):
        found[i] = replace(found[i], log_probabilities=tuple(score.log_probabilities.tolist()))
    return found


def windows(
    documents: Sequence[np.ndarray], *, prompt: int, continuation: int, count: int, seed: int = 0
) -> list[tuple[list[int], list[int]]]:
    """Passages of documents, each a prompt and what follows it there.

    Documents are cut into passages that do not overlap, `count` of which are drawn.

    Raises:
      InputError: no document is as long as one passage.
    """
    size = prompt + continuation
    passages = [
        document[begin : begin + size]
        for document in documents
        for begin in range(0, len(document) - size + 1, size)
    ]
    require(bool(passages), "corpus", "only short documents", f"one of {size} tokens or more")
    order = np.random.default_rng(seed).permutation(len(passages))[:count]
    return [(passages[i][:prompt].tolist(), passages[i][prompt:].tolist()) for i in order]


def _by_quarter(begun: Sequence[Continuation]) -> dict[str, Any]:
    """Means of each quarter: a text that drifts ends otherwise than it began."""
    long = [one for one in begun if len(one.tokens) >= _SHORTEST_IN_QUARTERS]
    if not long:
        return {"log_probability_by_quarter": None, "repeated_4_by_quarter": None}
    parts = [(one, quarters(len(one.tokens))) for one in long]

    def means(of_part: Callable[[Continuation, slice], Any]) -> tuple[float, ...]:
        return tuple(float(np.mean([of_part(one, cut[q]) for one, cut in parts])) for q in range(4))

    return {
        "log_probability_by_quarter": means(lambda one, part: np.mean(one.log_probabilities[part])),
        "repeated_4_by_quarter": means(lambda one, part: repeated_share(one.tokens[part], 4)),
    }


def _mean(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean of what was measured, and its standard error."""
    known = [value for value in values if value is not None]
    if not known:
        return None, None
    error = float(np.std(known, ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else None
    return float(np.mean(known)), error
