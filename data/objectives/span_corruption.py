"""Span corruption, T5's pretraining: the decoder writes the spans that the encoder lacks."""

from collections.abc import Callable

import numpy as np

from configs.objective_config import SpanCorruptionConfig
from data.objectives.documents import join_last, texts_of
from data.objectives.example import Context, Example
from data.objectives.noise import (
    fill_spans,
    is_sentinel,
    replace_spans,
    share_noise,
    span_noise,
    texts_that_fit,
)
from data.objectives.two_sides import sides_of, two_sided
from data.packing import Row


def span_corruption(
    config: SpanCorruptionConfig,
    row: Row,
    generator: Callable[[], np.random.Generator],
    context: Context,
) -> Example:
    """Replaces spans of each document by sentinels, of which the targets give the meaning.

    Before, density .25 and mean_span 1 (2 is <s>, 3 is </s>, 90 is <extra_id_0>, 91 <extra_id_1>):
        tokens                [2, 20, 21, 22, 23, 24, 25, 26, 3]
        segment_ids           [1, 1, 1, 1, 1, 1, 1, 1, 1]
    After, with 22 and 26 as noise and seq_len 10:
        encoder_inputs        [20, 21, 90, 23, 24, 25, 91, 3, 0, 0]
        encoder_segment_ids   [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
        encoder_positions     [0, 1, 2, 3, 4, 5, 6, 7, 0, 0]
        inputs                [2, 90, 22, 91, 26]
        targets               [90, 22, 91, 26, 3]
        loss_weights          [1, 1, 1, 1, 1]
        segment_ids           [1, 1, 1, 1, 1]
        positions             [0, 1, 2, 3, 4]

    Args:
        config: how much is noise, and how long its spans are on average.
        row: [context.lengths.tokens].
        generator: called once.
        context: of the row.

    Returns:
        The example. Sentinels begin with <extra_id_0> in each document. A row of one text without
        <s> and </s> is T5's and fills both sides; of more, see `share_noise`. More documents than
        `texts_that_fit` are read as one. A document of one token has no noise, only a </s> to
        predict.
    """
    texts = texts_of(row, context.symbols)
    texts = join_last(texts, texts_that_fit(context.lengths, len(texts.tokens)))
    shares = share_noise(texts.sizes, config.density, config.mean_span, context.lengths)
    is_noise = span_noise(texts.sizes, shares, generator())
    encoder, targets = replace_spans(texts, is_noise, context.symbols)
    return two_sided(encoder, targets, texts.segments, context.lengths)


def reconstruct(
    config: SpanCorruptionConfig, example: Example, context: Context
) -> list[np.ndarray]:
    """The content of each document."""
    del config
    sentinels = is_sentinel(context.symbols)
    return [fill_spans(encoder, targets, sentinels) for encoder, targets in sides_of(example)]
