"""T5's noise: spans of random lengths at random places, and how a row's documents share it.

Source: Raffel et al. 2020, arXiv 1910.10683, section 3.1.4; the released random_spans_noise_mask.
Letters: C content tokens of a row, G texts.
"""

from typing import NamedTuple

import numpy as np

from configs.objective_config import ExampleLengths, sentinel, span_counts
from data.objectives.documents import Side, Texts, first_places, inserted
from data.objectives.symbols import Symbols


class Shares(NamedTuple):
    """Noise tokens and spans of each text, int64 [G]."""

    noise: np.ndarray
    spans: np.ndarray


def texts_that_fit(lengths: ExampleLengths, num_tokens: int, *, extra: int = 0) -> int:
    """How many texts of together `num_tokens` tokens can have a span each, at least 1.

    With G texts the encoder has C − noise + spans + G·(1 + extra) places, the decoder
    noise + spans + G. Noise for G spans fits both where G·(4 + extra) is at most
    length + encoder_length − C, G·3 at most length, and G·(3 + extra) at most encoder_length.

    Args:
        extra: tokens beside </s> that each text has in the encoder.
    """
    room = lengths.length + lengths.encoder_length - num_tokens
    bounds = (room // (4 + extra), lengths.length // 3, lengths.encoder_length // (3 + extra))
    return max(1, min(bounds))


def share_noise(
    sizes: np.ndarray, density: float, mean_span: float, lengths: ExampleLengths, *, extra: int = 0
) -> Shares:
    """How much noise each text of a row has, such that the row's two sides fit.

    Every text wants what T5 gives a text of its size. A row cut for one text has little room for
    the </s> of more: then there are as many spans as fit, shared out by what was wanted but one
    for each, and as near the wanted noise as fits besides.
    One text of `lengths.tokens` tokens gets T5's counts and fills both sides.

    Args:
        sizes: tokens of each text, int64 [G]; G at most `texts_that_fit`.
        extra: tokens beside </s> that each text has in the encoder.
    """
    wanted = np.array([span_counts(int(size), density, mean_span) for size in sizes], np.int64)
    noise, spans = wanted.reshape(-1, 2).T
    has_noise = spans > 0
    # noise + spans is at most what the decoder has room for and the texts have tokens for;
    # noise − spans is at least what the encoder has no room for.
    most = min(lengths.length - len(sizes), int(sizes[has_noise].sum()))
    least = max(0, int(sizes.sum()) + len(sizes) * (1 + extra) - lengths.encoder_length)
    num_spans = min(int(spans.sum()), (most - least) // 2)
    num_noise = min(max(int(noise.sum()), num_spans + least), most - num_spans)
    spans = has_noise + apportion(num_spans - int(has_noise.sum()), spans - has_noise)
    room = np.where(has_noise, sizes - 2 * spans, 0)
    return Shares(spans + apportion(num_noise - num_spans, room), spans)


def apportion(total: int, weights: np.ndarray) -> np.ndarray:
    """Whole numbers in proportion to weights, by largest remainders; of equal ones the first.

    Where `total` is at most their sum, no share is larger than its weight.
    Example: 5 by [4, 2, 2] gives [3, 1, 1].

    Returns:
        int64 [G] of sum `total`; zeros where all weights are 0.
    """
    weight = max(int(weights.sum()), 1)
    whole, rest = np.divmod(total * weights, weight)
    missing = int(rest.sum()) // weight
    whole[np.argsort(-rest, kind="stable")[:missing]] += 1
    return whole


def random_segmentation(
    generator: np.random.Generator, num_items: int, num_segments: int
) -> np.ndarray:
    """Lengths of consecutive non-empty parts, int64 [num_segments]; each way is equally likely.

    Example: 4 items in 2 parts are [1, 3], [2, 2] or [3, 1].
    """
    ends = np.full(num_segments + 1, num_items)
    ends[0] = 0
    cuts = generator.choice(num_items - 1, num_segments - 1, replace=False, shuffle=False)
    ends[1:-1] = 1 + np.sort(cuts)
    return ends[1:] - ends[:-1]


def span_noise(sizes: np.ndarray, shares: Shares, generator: np.random.Generator) -> np.ndarray:
    """Which tokens of consecutive texts are noise, bool [C].

    Kept and noisy tokens are segmented at random into as many parts as there are spans, which
    take turns; kept ones begin. So spans are never empty and never touch, and, as in T5, the last
    one is at the text's end.
    """
    runs: list = [np.zeros(0, np.int64)]
    for size, noise, spans in zip(sizes.tolist(), *map(np.ndarray.tolist, shares), strict=True):
        if spans == 0:
            runs.append([size, 0])
            continue
        text_runs = np.empty(2 * spans, np.int64)
        text_runs[::2] = random_segmentation(generator, size - noise, spans)
        text_runs[1::2] = random_segmentation(generator, noise, spans)
        runs.append(text_runs)
    lengths = np.concatenate(runs)
    return np.repeat(np.tile(np.array([False, True]), len(lengths) // 2), lengths)


def replace_spans(texts: Texts, is_noise: np.ndarray, symbols: Symbols) -> tuple[Side, Side]:
    """A sentinel for each span in what the encoder reads; the targets say what it stands for.

    Before (90 is <extra_id_0>, 91 is <extra_id_1>):
        tokens                [20, 21, 22, 23, 24, 25]
        segment_ids           [1, 1, 1, 1, 2, 2]
        is_noise              [0, 1, 0, 1, 0, 1]
    After:
        encoder               [20, 90, 22, 91, 24, 90]
        encoder segments      [1, 1, 1, 1, 2, 2]
        targets               [90, 21, 91, 23, 90, 25]
        targets' segments     [1, 1, 1, 1, 2, 2]

    Args:
        is_noise: bool [C]; the first token of a text is not.
    """
    starts = is_noise.copy()
    starts[1:] &= ~is_noise[:-1]
    before = np.cumsum(starts) - starts
    first = first_places(texts.segment_ids)
    number = (before - np.repeat(before[first], texts.sizes))[starts]
    sentinel_ids = sentinels(symbols, int(number.max(initial=-1)) + 1)[number]
    kept = starts | ~is_noise
    marked = texts.tokens.copy()
    marked[starts] = sentinel_ids
    noise = Side(texts.tokens[is_noise], texts.segment_ids[is_noise])
    places = np.flatnonzero(starts[is_noise])
    return (
        Side(marked[kept], texts.segment_ids[kept]),
        inserted(noise, places, sentinel_ids, texts.segment_ids[starts]),
    )


def sentinels(symbols: Symbols, count: int) -> np.ndarray:
    """Ids of <extra_id_0> to <extra_id_(count − 1)>, int32 [count]."""
    return np.array([symbols.id_of(sentinel(number)) for number in range(count)], np.int32)


def is_sentinel(symbols: Symbols) -> np.ndarray:
    """Which ids are sentinels, bool [V]."""
    found = np.zeros(symbols.vocab_size, bool)
    number = 0
    while sentinel(number) in symbols.ids:
        found[symbols.ids[sentinel(number)]] = True
        number += 1
    return found


def fill_spans(encoder: np.ndarray, targets: np.ndarray, is_sentinel: np.ndarray) -> np.ndarray:
    """One text with its spans back where their sentinels stand; the inverse of `replace_spans`.

    A text without sentinels ends with its targets.

    Args:
        encoder, targets: of one text, without </s>. is_sentinel: bool [V].
    """
    starts = np.flatnonzero(is_sentinel[targets])
    if len(starts) == 0:
        return np.concatenate([encoder, targets])
    spans = {int(span[0]): span[1:] for span in np.split(targets, starts)[1:]}
    parts = [spans[int(token)] if is_sentinel[token] else [token] for token in encoder]
    return np.concatenate(parts).astype(np.int32)
