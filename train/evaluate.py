"""Held-out loss: nats per token and bits per byte."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import NamedSharding

from data.batches import Batch
from data.corpus import Corpus
from data.held_out import held_out_windows
from train.feed import put_batch
from train.losses import LossSums


class Evaluation(NamedTuple):
    """Loss over held-out documents, each on its own after <s>, </s> not counted.

    bits_per_byte: summed −log2 p of the tokens over the documents' UTF-8 bytes. corpora: the same
    for each corpus on its own, by name; empty where there is one.
    """

    nats_per_token: float
    bits_per_byte: float
    tokens: int
    bytes: int
    documents: int
    seconds: float
    corpora: dict[str, dict[str, float]]


class _Score(NamedTuple):
    nats: float
    tokens: int
    bytes: int
    documents: int

    @property
    def rates(self) -> dict[str, float]:
        return {
            "nats_per_token": self.nats / self.tokens,
            "bits_per_byte": self.nats / math.log(2) / self.bytes,
        }


def evaluate(
    eval_step: Callable[[Any, Any], LossSums],
    params: Any,
    corpora: Mapping[str, Corpus],
    *,
    seq_len: int,
    batch_size: int,
    sharding: NamedSharding,
    max_tokens: int = 0,
) -> Evaluation:
    """Scores the held-out documents of all corpora.

    Args:
      max_tokens: whole documents up to about so many tokens, shared evenly by the corpora; 0: all.
    """
    start = time.perf_counter()
    share = -(-max_tokens // len(corpora))
    scores = {}
    for name, corpus in corpora.items():
        windows = held_out_windows(corpus, seq_len, max_tokens=share)
        nats = 0.0
        for first in range(0, len(windows.batch.inputs), batch_size):
            fields = (_filled(x[first : first + batch_size], batch_size) for x in windows.batch)
            sums = eval_step(params, put_batch(Batch(*fields), sharding))
            # Summed in double precision on the host: an fp32 running sum loses the last digits.
            nats += float(sums.cross_entropy)
        scores[name] = _Score(nats, windows.num_tokens, windows.num_bytes, windows.num_documents)
    total = _Score(*(sum(counts) for counts in zip(*scores.values(), strict=True)))
    return Evaluation(
        **total.rates,
        tokens=total.tokens,
        bytes=total.bytes,
        documents=total.documents,
        seconds=time.perf_counter() - start,
        corpora={
            name: s.rates | {"tokens": s.tokens, "bytes": s.bytes} for name, s in scores.items()
        }
        if len(scores) > 1
        else {},
    )


def _filled(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Fills the last batch up with rows of zeros, which carry no weight."""
    missing = batch_size - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
