"""Held-out loss: nats per token and bits per byte."""

import math
import time
from collections.abc import Callable
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

    bits_per_byte: summed −log2 p of the tokens over the documents' UTF-8 bytes.
    """

    nats_per_token: float
    bits_per_byte: float
    tokens: int
    bytes: int
    documents: int
    seconds: float


def evaluate(
    eval_step: Callable[[Any, Any], LossSums],
    params: Any,
    corpus: Corpus,
    *,
    seq_len: int,
    batch_size: int,
    sharding: NamedSharding,
    max_tokens: int = 0,
) -> Evaluation:
    """Scores the held-out documents (whole ones, up to about `max_tokens`; 0: all of them)."""
    start = time.perf_counter()
    windows = held_out_windows(corpus, seq_len, max_tokens=max_tokens)
    nats = 0.0
    for first in range(0, len(windows.batch.inputs), batch_size):
        batch = Batch(*(_filled(x[first : first + batch_size], batch_size) for x in windows.batch))
        sums = eval_step(params, put_batch(batch, sharding))
        # Summed in double precision on the host: an fp32 running sum loses the last digits.
        nats += float(sums.cross_entropy)
    return Evaluation(
        nats_per_token=nats / windows.num_tokens,
        bits_per_byte=nats / math.log(2) / windows.num_bytes,
        tokens=windows.num_tokens,
        bytes=windows.num_bytes,
        documents=windows.num_documents,
        seconds=time.perf_counter() - start,
    )


def _filled(rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Fills the last batch up with rows of zeros, which carry no weight."""
    missing = batch_size - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
