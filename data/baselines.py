"""What a model must beat: n-gram baselines on the held-out targets of a run's objective.

A unigram knows how often each token is a target; a bigram also sees the token before, as the model
sees it: under masked language modelling that may be <mask>. Both are counted on training rows of
the run and scored on the very targets that evaluation scores, in nats a target, so that they
compare with the model's loss.

p(t)     = (count(t) + 1) / (targets + V)
p(t | v) = w · count(v, t) / count(v) + (1 − w) · p(t)

The weight w depends on how often v was seen (Jelinek and Mercer 1980). It is fitted on every tenth
of the training rows with the counts of the others; then all rows are counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from configs.data_config import SingleCorpusConfig
from configs.errors import require
from configs.schema import RunConfig
from data.batches import Batch
from data.corpus import Corpus
from data.dataset import training_rows
from data.held_out import held_out_examples
from data.objectives import OBJECTIVES
from data.objectives.example import Example

TRAINING_TOKENS = 4_000_000
"""Tokens of training text to count at most: rows from the first on, an epoch at most."""

_FIT_EVERY = 10
_FIT_ROUNDS = 100


class Targets(NamedTuple):
    """Targets with a loss weight above 0, and the visible token before each.

    previous: int64 [n], V where the target's segment has no token before it. targets: int64 [n].
    """

    previous: np.ndarray
    targets: np.ndarray


class Counts(NamedTuple):
    """What was counted on n targets.

    unigrams: int64 [V], targets. contexts: int64 [V + 1], tokens before. pairs: int64 [m],
    before · V + target, sorted, each once; pair_counts: int64 [m].
    """

    unigrams: np.ndarray
    contexts: np.ndarray
    pairs: np.ndarray
    pair_counts: np.ndarray


def ngram_baselines(
    config: RunConfig,
    corpus: Corpus,
    *,
    max_tokens: int = 0,
    training_tokens: int = TRAINING_TOKENS,
) -> dict[str, float]:
    """Nats a held-out target of a unigram and of a bigram.

    Args:
        config: of the run; its objective, packing and data.seed make the rows.
        corpus: whose training rows are counted and whose held-out documents are scored.
        max_tokens: of held-out text, as for `held_out_examples`; 0: all.
        training_tokens: of training text at most.

    Returns:
        unigram_nats and bigram_nats.

    Raises:
        InputError: whatever `training_rows` and `held_out_examples` raise, or training rows
            without a target.
    """
    vocab_size = corpus.tokenizer.vocab_size
    previous = OBJECTIVES[type(config.objective)].previous
    rows = _rows(config, corpus, training_tokens)
    of_row = [targets_of(example, previous=previous, vocab_size=vocab_size) for example in rows]
    fitted_on = _joined(of_row[_FIT_EVERY - 1 :: _FIT_EVERY])
    kept = _joined([row for i, row in enumerate(of_row) if i % _FIT_EVERY != _FIT_EVERY - 1])
    require(len(kept.targets) > 0, "data.corpus", "training rows without a target", "some targets")
    weights = fit_weights(count(kept, vocab_size), fitted_on)
    counts = count(_joined(of_row), vocab_size)
    held_out = held_out_examples(config, corpus, max_tokens=max_tokens).batch
    scored = targets_of(held_out, previous=previous, vocab_size=vocab_size)
    return {
        "unigram_nats": float(-np.log(unigram(counts, scored)).mean()),
        "bigram_nats": float(-np.log(interpolated(counts, scored, weights)).mean()),
    }


def targets_of(example: Example | Batch, *, previous: int, vocab_size: int) -> Targets:
    """The targets that count, in order, and what is seen before each.

    Example: a masked <s> x y </s> where y is asked for (previous 1, V = 9):
        inputs [2, 7, 4, 3], targets [2, 7, 8, 3], loss_weights [0, 0, 1, 0] -> previous [7],
        targets [8]

    Args:
        example: fields [..., L].
        previous: places from a target back to the input before it.
        vocab_size: V.
    """
    seen = np.full(example.inputs.shape, vocab_size, np.int64)
    length = example.inputs.shape[-1]
    ids = example.segment_ids
    same_segment = ids[..., previous:] == ids[..., : length - previous]
    inputs = example.inputs[..., : length - previous]
    seen[..., previous:] = np.where(same_segment, inputs, vocab_size)
    counts = example.loss_weights > 0
    return Targets(seen[counts], example.targets[counts].astype(np.int64))


def count(of: Targets, vocab_size: int) -> Counts:
    """Counts of targets, of tokens before them, and of pairs."""
    pairs, pair_counts = np.unique(of.previous * vocab_size + of.targets, return_counts=True)
    return Counts(
        unigrams=np.bincount(of.targets, minlength=vocab_size),
        contexts=np.bincount(of.previous, minlength=vocab_size + 1),
        pairs=pairs,
        pair_counts=pair_counts,
    )


def unigram(counts: Counts, of: Targets) -> np.ndarray:
    """p(t) of each target, float64 [n]."""
    counted = counts.unigrams
    return (counted[of.targets] + 1) / (counted.sum() + len(counted))


def bigram(counts: Counts, of: Targets) -> np.ndarray:
    """count(v, t) / count(v) of each target, float64 [n]; 0 where v was never seen."""
    keys = of.previous * len(counts.unigrams) + of.targets
    places = np.minimum(np.searchsorted(counts.pairs, keys), len(counts.pairs) - 1)
    together = np.where(counts.pairs[places] == keys, counts.pair_counts[places], 0)
    return together / np.maximum(counts.contexts[of.previous], 1)


def interpolated(counts: Counts, of: Targets, weights: np.ndarray) -> np.ndarray:
    """p(t | v) of each target, float64 [n].

    Args:
        weights: w by the bit length of count(v), as `fit_weights` gives them.
    """
    w = np.where(counts.contexts[of.previous] > 0, weights[_buckets(counts, of)], 0.0)
    return w * bigram(counts, of) + (1 - w) * unigram(counts, of)


def fit_weights(counts: Counts, on: Targets) -> np.ndarray:
    """The weight of the bigram for tokens before that were seen 1, 2 to 3, 4 to 7, … times.

    Expectation maximisation, with one more observation that speaks for either side alike: so no
    weight is 0 or 1, and one that nothing speaks for is a half.

    Args:
        counts: without the targets the weights are fitted on.
        on: targets to fit on.

    Returns:
        float64 [64], by the bit length of count(v).
    """
    buckets, p_bigram, p_unigram = _buckets(counts, on), bigram(counts, on), unigram(counts, on)
    total = np.bincount(buckets, minlength=64) + 1.0
    weights = np.full(64, 0.5)
    for _ in range(_FIT_ROUNDS):
        share = weights[buckets] * p_bigram
        share /= share + (1 - weights[buckets]) * p_unigram
        weights = (np.bincount(buckets, share, minlength=64) + 0.5) / total
    return weights


def _buckets(counts: Counts, of: Targets) -> np.ndarray:
    # frexp's exponent of a whole number is its bit length.
    return np.frexp(counts.contexts[of.previous])[1]


def _rows(config: RunConfig, corpus: Corpus, training_tokens: int) -> Iterable[Example]:
    data = replace(config.data, corpus=str(corpus.path), mixture=SingleCorpusConfig())
    source = training_rows(replace(config, data=data), {corpus.path.name: corpus})
    num_rows = max(1, training_tokens // config.lengths.tokens)
    for number in range(min(num_rows, source.facts[0].rows_per_epoch)):
        yield source.row(number).example


def _joined(parts: Sequence[Targets]) -> Targets:
    if not parts:
        return Targets(np.zeros(0, np.int64), np.zeros(0, np.int64))
    return Targets(*map(np.concatenate, zip(*parts, strict=True)))
