"""Fill in the middle: causal language modelling of documents whose middle was moved to the end.

Source: Bavarian et al. 2022, arXiv 2207.14255. There documents are cut at characters, here at
tokens; what is rearranged is what a row has of a document, as their context-level variant does.
"""

from collections.abc import Callable

import numpy as np

from configs.objective_config import (
    FIM_MIDDLE,
    FIM_PREFIX,
    FIM_SUFFIX,
    FillInTheMiddleConfig,
)
from data.objectives.causal_lm import shifted, unshifted
from data.objectives.documents import by_segment, first_places, positions_of
from data.objectives.example import Context, Example
from data.objectives.symbols import Symbols
from data.packing import Row


def fill_in_the_middle(
    config: FillInTheMiddleConfig,
    row: Row,
    generator: Callable[[], np.random.Generator],
    context: Context,
) -> Example:
    """Rearranges documents with probability `rate`, at most `max_documents`, and shifts the row.

    PSM: prefix, suffix, middle; SPM: the prefix goes with the middle. Both cuts fall on any place
    with the same probability, so that a part may be empty. Where more documents are drawn than
    may be, those rearranged are drawn from them. In a row of joined documents each is still one.

    Before (2 is <s>, 3 is </s>; 5 is <fim_prefix>, 6 is <fim_middle>, 7 is <fim_suffix>):
        tokens        [2, 20, 21, 22, 3, 2, 23]
        segment_ids   [1, 1, 1, 1, 1, 2, 2]
    After, the first document by PSM with 21 as its middle, seq_len 9 and max_documents 1:
        inputs        [2, 5, 20, 7, 22, 6, 21, 3, 2]
        targets       [5, 20, 7, 22, 6, 21, 3, 2, 23]
        loss_weights  [1, 1, 1, 1, 1, 1, 1, 0, 1]
        positions     [0, 1, 2, 3, 4, 5, 6, 7, 0]
        segment_ids   [1, 1, 1, 1, 1, 1, 1, 1, 2]
    After, by SPM:
        inputs        [2, 5, 7, 22, 6, 20, 21, 3, 2]
        targets       [5, 7, 22, 6, 20, 21, 3, 2, 23]
        loss_weights  [1, 1, 1, 1, 1, 1, 1, 0, 1]

    Args:
        config: how many documents are rearranged, and how.
        row: [context.lengths.tokens].
        generator: called once.
        context: of the row.

    Returns:
        The example, fields [context.lengths.length]: places for markers that are not used are
        padding at the end.
    """
    random = generator()
    size = context.lengths.length + 1
    tokens, segment_ids = np.zeros(size, np.int32), np.zeros(size, np.int32)
    done = filled = 0  # places of the row, and of what becomes of it
    for start, stop in _drawn_documents(config, row, context.symbols, random):
        cuts = np.sort(random.integers(0, stop - start, 2, endpoint=True))
        prefix, middle, suffix = np.split(row.tokens[start:stop], cuts)
        arrange = spm if random.random() < config.spm_rate else psm
        moved = arrange(prefix, middle, suffix, context.symbols)
        for values, segment in (
            (row.tokens[done:start], row.segment_ids[done:start]),
            (moved, row.segment_ids[start]),
        ):
            tokens[filled : filled + len(values)] = values
            segment_ids[filled : filled + len(values)] = segment
            filled += len(values)
        done = stop
    rest = len(row.tokens) - done
    tokens[filled : filled + rest] = row.tokens[done:]
    segment_ids[filled : filled + rest] = row.segment_ids[done:]
    return shifted(tokens, segment_ids, positions_of(segment_ids))


def _drawn_documents(
    config: FillInTheMiddleConfig,
    row: Row,
    symbols: Symbols,
    generator: np.random.Generator,
) -> list[tuple[int, int]]:
    """First place and end of the content of each document to rearrange, in order."""
    is_content = ~symbols.is_special[row.tokens] & (row.segment_ids > 0)
    begins = is_content.copy()
    begins[1:] &= ~is_content[:-1] | first_places(row.segment_ids)[1:]
    ends = is_content.copy()
    ends[:-1] &= ~is_content[1:] | begins[1:]
    spans = np.stack([np.flatnonzero(begins), np.flatnonzero(ends) + 1], axis=1)
    drawn = np.flatnonzero(generator.random(len(spans)) < config.rate)
    if len(drawn) > config.max_documents:
        drawn = np.sort(generator.choice(drawn, config.max_documents, replace=False))
    return [(start, stop) for start, stop in spans[drawn].tolist()]


def psm(prefix: np.ndarray, middle: np.ndarray, suffix: np.ndarray, symbols: Symbols) -> np.ndarray:
    """<fim_prefix> prefix <fim_suffix> suffix <fim_middle> middle."""
    return np.concatenate(
        [
            [symbols.id_of(FIM_PREFIX)],
            prefix,
            [symbols.id_of(FIM_SUFFIX)],
            suffix,
            [symbols.id_of(FIM_MIDDLE)],
            middle,
        ]
    )


def spm(prefix: np.ndarray, middle: np.ndarray, suffix: np.ndarray, symbols: Symbols) -> np.ndarray:
    """<fim_prefix> <fim_suffix> suffix <fim_middle> prefix middle."""
    return psm(prefix[:0], np.concatenate([prefix, middle]), suffix, symbols)


def reconstruct(
    config: FillInTheMiddleConfig, example: Example, context: Context
) -> list[np.ndarray]:
    """The content of each segment, its middles back in their places."""
    del config
    symbols = context.symbols
    contents = []
    for tokens in by_segment(*unshifted(example)).values():
        parts = [part for part in _content_parts(tokens, symbols) if len(part)]
        if parts:
            contents.append(np.concatenate(parts))
    return contents


def _content_parts(tokens: np.ndarray, symbols: Symbols) -> list[np.ndarray]:
    """A segment's content in its original order, in parts; of joined documents one after another.

    What follows <fim_middle> belongs before the suffix, which is the part that precedes it.
    """
    parts: list[np.ndarray] = []
    for part in np.split(tokens, np.flatnonzero(symbols.is_special[tokens])):
        if len(part) == 0:
            continue
        place = len(parts) - (part[0] == symbols.id_of(FIM_MIDDLE))
        parts.insert(place, part[~symbols.is_special[part]])
    return parts
