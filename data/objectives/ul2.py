"""UL2's mixture of denoisers: a mode token says which one made an example.

Source: Tay et al. 2022, arXiv 2205.05131, section 3.1.
"""

from collections.abc import Callable

import numpy as np

from configs.objective_config import UL2_DENOISERS, ExampleLengths, UL2Config
from data.objectives.documents import Side, Texts, join_last, texts_of
from data.objectives.example import Context, Example
from data.objectives.noise import (
    apportion,
    fill_spans,
    is_sentinel,
    replace_spans,
    share_noise,
    span_noise,
    texts_that_fit,
)
from data.objectives.two_sides import put_before, sides_of, split_ends, two_sided
from data.packing import Row

_MODE_TOKENS = 1


def ul2(
    config: UL2Config,
    row: Row,
    generator: Callable[[], np.random.Generator],
    context: Context,
) -> Example:
    """Corrupts a row as one of `UL2_DENOISERS` does, drawn evenly; its mode token goes ahead.

    R and X replace spans as span_corruption does, S has the text's end in the decoder.

    Before (2 is <s>, 3 is </s>, 9 is <S>, 8 is <R>, 90 is <extra_id_0>):
        tokens                [2, 20, 21, 22, 23, 24, 25, 3]
        segment_ids           [1, 1, 1, 1, 1, 1, 1, 1]
    After, by S, with seq_len 10:
        encoder_inputs        [9, 20, 21, 22, 23, 3, 0, 0, 0, 0]
        encoder_segment_ids   [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
        inputs                [2, 24, 25, 0, 0, 0]
        targets               [24, 25, 3, 0, 0, 0]
        loss_weights          [1, 1, 1, 0, 0, 0]
    After, by R:
        encoder_inputs        [8, 20, 21, 22, 23, 24, 90, 3, 0, 0]
        encoder_segment_ids   [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
        inputs                [2, 90, 25, 0, 0, 0]
        targets               [90, 25, 3, 0, 0, 0]
        loss_weights          [1, 1, 1, 0, 0, 0]

    Args:
        config: has no settings.
        row: [context.lengths.tokens].
        generator: called once.
        context: of the row.

    Returns:
        The example. Each document begins with the mode token in the encoder. More documents than
        `texts_that_fit` are read as one.
    """
    del config
    random = generator()
    denoiser = UL2_DENOISERS[random.integers(len(UL2_DENOISERS))]
    lengths = context.lengths
    texts = texts_of(row, context.symbols)
    most = texts_that_fit(lengths, len(texts.tokens), extra=_MODE_TOKENS)
    texts = join_last(texts, most)
    if denoiser.mean_span:
        shares = share_noise(
            texts.sizes, denoiser.density, denoiser.mean_span, lengths, extra=_MODE_TOKENS
        )
        is_noise = span_noise(texts.sizes, shares, random)
        encoder, targets = replace_spans(texts, is_noise, context.symbols)
    else:
        encoder, targets = _sequential(texts, denoiser.density, lengths, random)
    encoder = put_before(context.symbols.id_of(denoiser.mode), encoder, texts.segments)
    return two_sided(encoder, targets, texts.segments, lengths)


def _sequential(
    texts: Texts, density: float, lengths: ExampleLengths, generator: np.random.Generator
) -> tuple[Side, Side]:
    """The end of each text in the decoder: `density` of it on average, drawn once a row.

    The row's share is drawn evenly around `density`, from the least that leaves the rest room in
    the encoder. Each text gets one token and its part of what remains.
    """
    num_tokens, num_texts = len(texts.tokens), len(texts.segments)
    at_least = num_tokens + num_texts * (1 + _MODE_TOKENS) - lengths.encoder_length
    low = max(num_texts, at_least)
    high = max(low, round(2 * density * num_tokens) - low)
    high = max(low, min(high, lengths.length - num_texts))
    drawn = generator.integers(low, high, endpoint=True)
    return split_ends(texts, 1 + apportion(int(drawn) - num_texts, texts.sizes - 1))


def reconstruct(config: UL2Config, example: Example, context: Context) -> list[np.ndarray]:
    """The content of each document."""
    del config
    sentinels = is_sentinel(context.symbols)
    return [
        fill_spans(encoder[_MODE_TOKENS:], targets, sentinels)
        for encoder, targets in sides_of(example)
    ]
