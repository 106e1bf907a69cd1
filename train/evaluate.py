"""Held-out loss and accuracy."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from configs.schema import RunConfig
from data.batches import Batch
from data.corpus import Corpus
from data.held_out import HeldOut, held_out_examples
from data.objectives import OBJECTIVES
from data.objectives.example import Context
from train.feed import put_batch
from train.losses import Scored


class Evaluation(NamedTuple):
    """Loss over held-out documents, each on its own.

    nats_per_token: mean over the targets. bits_per_byte: summed −log2 p of the documents' tokens
    over their UTF-8 bytes, </s> not counted; None where the objective does not predict every token
    once. tokens: targets. metrics: what else the objective counts, by name. corpora: the same for
    each corpus on its own, by name; empty where there is one.
    """

    nats_per_token: float
    bits_per_byte: float | None
    tokens: int
    bytes: int
    documents: int
    seconds: float
    metrics: dict[str, float]
    corpora: dict[str, dict[str, Any]]


class _Score(NamedTuple):
    """Of one corpus, or of several together."""

    nats: float
    held_out: HeldOut
    is_correct: np.ndarray

    def record(self, config: RunConfig, context: Context) -> dict[str, Any]:
        objective, held_out = OBJECTIVES[type(config.objective)], self.held_out
        bits = self.nats / math.log(2) / held_out.num_bytes
        return {
            "nats_per_token": self.nats / held_out.num_targets,
            "bits_per_byte": bits if objective.scores_text else None,
            "tokens": held_out.num_targets,
            "bytes": held_out.num_bytes,
            "documents": held_out.num_documents,
            "metrics": objective.metrics(
                config.objective, held_out.batch, self.is_correct, context
            ),
        }


def evaluate(
    eval_step: Callable[[Any, Any], Scored],
    params: Any,
    config: RunConfig,
    corpora: Mapping[str, Corpus],
    *,
    sharding: NamedSharding,
    max_tokens: int = 0,
    after_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Scores the held-out documents of all corpora.

    Args:
      max_tokens: whole documents up to about so many tokens, shared evenly by the corpora; 0: all.
      after_batch: called after each batch; what it raises ends the evaluation.
    """
    start = time.perf_counter()
    share = -(-max_tokens // len(corpora))
    first = next(iter(corpora.values()))
    context = Context(first.tokenizer.symbols, config.lengths)
    scores = {
        name: _score(eval_step, params, config, corpus, sharding, share, after_batch)
        for name, corpus in corpora.items()
    }
    total = _Score(
        sum(score.nats for score in scores.values()),
        _together([score.held_out for score in scores.values()]),
        np.concatenate([score.is_correct for score in scores.values()]),
    )
    records = {name: score.record(config, context) for name, score in scores.items()}
    return Evaluation(
        **total.record(config, context),
        seconds=time.perf_counter() - start,
        corpora=records if len(records) > 1 else {},
    )


def describe(evaluation: Evaluation) -> str:
    """The figures in one line."""
    parts = [f"{evaluation.nats_per_token:.4f} nats per token"]
    if evaluation.bits_per_byte is not None:
        parts.append(f"{evaluation.bits_per_byte:.4f} bits per byte")
    parts += [f"{name.replace('_', ' ')} {value:.3f}" for name, value in evaluation.metrics.items()]
    return ", ".join(parts)


def _score(
    eval_step: Callable[[Any, Any], Scored],
    params: Any,
    config: RunConfig,
    corpus: Corpus,
    sharding: NamedSharding,
    max_tokens: int,
    after_batch: Callable[[], None],
) -> _Score:
    held_out = held_out_examples(config, corpus, max_tokens=max_tokens)
    batch_size, num_rows = config.training.batch_size, len(held_out.batch.inputs)
    nats, is_correct = 0.0, []
    for first in range(0, num_rows, batch_size):
        batch = _rows(held_out.batch, first, batch_size)
        scored = eval_step(params, put_batch(batch, sharding))
        # Summed in double precision on the host: an fp32 running sum loses the last digits.
        nats += float(scored.sums.cross_entropy)
        is_correct.append(np.asarray(scored.is_correct_BL))
        after_batch()
    return _Score(nats, held_out, np.concatenate(is_correct)[:num_rows])


def _together(parts: list[HeldOut]) -> HeldOut:
    batch = jax.tree.map(lambda *rows: np.concatenate(rows), *(part.batch for part in parts))
    counts = zip(*(part[1:] for part in parts), strict=True)
    return HeldOut(batch, *map(sum, counts))


def _rows(batch: Batch, first: int, count: int) -> Batch:
    """`count` rows from `first` on, beyond the last filled up with zeros, which carry no weight."""

    def cut(field: np.ndarray) -> np.ndarray:
        rows = field[first : first + count]
        missing = count - len(rows)
        return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])

    return jax.tree.map(cut, batch)
