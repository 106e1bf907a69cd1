"""BART's denoising: the decoder writes a text of which the encoder sees a damaged copy.

Source: Lewis et al. 2020, arXiv 1910.13461, section 2.2 and 5: text infilling after sentence
permutation.
"""

from collections.abc import Callable

import numpy as np

from configs.objective_config import MASK, DenoisingConfig
from data.objectives.documents import Side, join_last, texts_of
from data.objectives.example import Context, Example
from data.objectives.two_sides import sides_of, two_sided
from data.packing import Row


def denoising(
    config: DenoisingConfig,
    row: Row,
    generator: Callable[[], np.random.Generator],
    context: Context,
) -> Example:
    """Shuffles the sentences of each document and puts one <mask> for each of some spans.

    Before (2 is <s>, 3 is </s>, 4 is <mask>; 22 and 25 end a sentence):
        tokens                [2, 20, 21, 22, 23, 24, 25, 3]
        segment_ids           [1, 1, 1, 1, 1, 1, 1, 1]
    After, with 25 and 20 masked as one span and seq_len 9:
        encoder_inputs        [23, 24, 4, 21, 22, 3, 0, 0, 0]
        encoder_segment_ids   [1, 1, 1, 1, 1, 1, 0, 0, 0]
        inputs                [2, 20, 21, 22, 23, 24, 25, 0, 0]
        targets               [20, 21, 22, 23, 24, 25, 3, 0, 0]
        loss_weights          [1, 1, 1, 1, 1, 1, 1, 0, 0]

    Args:
        config: how much is masked, in spans of which mean length, and whether sentences move.
        row: [context.lengths.tokens].
        generator: called once.
        context: of the row.

    Returns:
        The example. Where a row has more pieces without <s> and </s> than there is room for the
        </s> of, the last are joined.
    """
    random = generator()
    symbols = context.symbols
    texts = texts_of(row, symbols)
    texts = join_last(texts, context.lengths.length - len(texts.tokens))
    damaged = [np.zeros(0, np.int32)]
    for end, size in zip(np.cumsum(texts.sizes).tolist(), texts.sizes.tolist(), strict=True):
        tokens = texts.tokens[end - size : end]
        if config.permute_sentences:
            tokens = permuted_sentences(tokens, symbols.ends_sentence, random)
        starts, lengths = draw_spans(size, config, random)
        damaged.append(infilled(tokens, starts, lengths, mask_id=symbols.id_of(MASK)))
    sizes = [len(part) for part in damaged[1:]]
    encoder = Side(np.concatenate(damaged), np.repeat(texts.segments, sizes))
    targets = Side(texts.tokens, texts.segment_ids)
    return two_sided(encoder, targets, texts.segments, context.lengths)


def permuted_sentences(
    tokens: np.ndarray, ends_sentence: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """The sentences of a text in random order, [n]; what follows the last end is one, too.

    Args:
        tokens: [n]. ends_sentence: bool [V], whether a sentence ends after the piece.
    """
    sentence = np.cumsum(ends_sentence[tokens]) - ends_sentence[tokens]
    rank = generator.permutation(int(sentence[-1]) + 1)
    return tokens[np.argsort(rank[sentence], kind="stable")]


def draw_spans(
    num_tokens: int, config: DenoisingConfig, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where spans are and how long, int64 [spans] each: starts, lengths.

    round(mask_rate · tokens) are masked. Poisson lengths are drawn until they sum up to it, the
    last one cut to fit, but never more spans than tokens to mask, so that a damaged text is no
    longer than it was: where that many fall short, as they do of a tiny text or `mean_span`, the
    first lengths of 0 become 1. Every arrangement of kept tokens and spans is as likely; spans may
    touch, and stay apart as two masks, but never overlap.
    """
    to_mask = round(config.mask_rate * num_tokens)
    lengths = generator.poisson(config.mean_span, to_mask)
    missing = max(to_mask - int(lengths.sum()), 0)
    lengths[np.flatnonzero(lengths == 0)[:missing]] = 1
    total = np.cumsum(lengths)
    count = int(np.searchsorted(total, to_mask)) + 1 if to_mask else 0
    lengths = lengths[:count]
    lengths[-1:] -= total[count - 1 : count] - to_mask
    num_kept = num_tokens - to_mask
    places = np.sort(generator.choice(num_kept + count, count, replace=False, shuffle=False))
    masked_before = np.cumsum(lengths) - lengths
    return places - np.arange(count) + masked_before, lengths


def infilled(
    tokens: np.ndarray, starts: np.ndarray, lengths: np.ndarray, *, mask_id: int
) -> np.ndarray:
    """One <mask> for each span; where its length is 0, one more token.

    Before (4 is <mask>):
        tokens        [20, 21, 22, 23]
        starts        [1, 4]
        lengths       [2, 0]
    After:
        infilled      [20, 4, 23, 4]
    """
    size = len(tokens) + 1
    opened = np.bincount(starts, minlength=size) - np.bincount(starts + lengths, minlength=size)
    kept = np.cumsum(opened)[:-1] == 0
    kept_before = starts - (np.cumsum(lengths) - lengths)
    return np.insert(tokens[kept], kept_before, mask_id)


def reconstruct(config: DenoisingConfig, example: Example, context: Context) -> list[np.ndarray]:
    """The content of each document: its targets."""
    del config, context
    return [targets for _, targets in sides_of(example)]
