"""How much of the held-out targets a model gets right, counted as an objective's paper does."""

from typing import TYPE_CHECKING

import numpy as np

from data.objectives.example import Context
from data.objectives.noise import is_sentinel
from data.tokenizer import EOS_ID

if TYPE_CHECKING:
    from data.batches import Batch


def token_accuracy(batch: "Batch", is_correct_BL: np.ndarray) -> float:
    """Share of the targets with a loss weight that are right; 0 where there are none."""
    counts = batch.loss_weights > 0
    return float(is_correct_BL[counts].sum() / max(np.count_nonzero(counts), 1))


def span_accuracy(batch: "Batch", is_correct_BL: np.ndarray, context: Context) -> float:
    """Share of the spans that are right in every token; 0 where there are none.

    A span is what follows a sentinel, up to the next one or </s>; a text without sentinels is
    one span.

    Before (90 is <extra_id_0>, 91 is <extra_id_1>, 3 is </s>):
        targets       [90, 20, 21, 91, 22, 3]
        is_correct    [1, 1, 0, 0, 1, 1]
    After:
        span_accuracy 0.5
    """
    in_loss = batch.loss_weights > 0
    is_start = is_sentinel(context.symbols)[batch.targets] & in_loss
    changes = np.ones_like(in_loss)
    changes[:, 1:] = batch.segment_ids[:, 1:] != batch.segment_ids[:, :-1]
    span = np.cumsum(is_start | changes) - 1
    is_text = (in_loss & ~is_start & (batch.targets != EOS_ID)).ravel()
    sizes = np.bincount(span[is_text])
    right = np.bincount(span[is_text], weights=is_correct_BL.ravel()[is_text])
    return float(np.count_nonzero((right == sizes) & (sizes > 0)) / max(np.sum(sizes > 0), 1))
