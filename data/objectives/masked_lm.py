"""Masked language modelling: recover chosen tokens from everything around them.

Source: Devlin et al. 2019, arXiv 1810.04805, section 3.1 and appendix A.1. As RoBERTa (arXiv
1907.11692) we choose anew whenever a row is read: the generator is the row number's, and a row has
another number in every epoch.
"""

from collections.abc import Callable

import numpy as np

from configs.objective_config import MASK, MaskedLMConfig
from data.objectives.documents import content_of
from data.objectives.example import Context, Example
from data.objectives.symbols import Symbols
from data.packing import Row


def masked_lm(
    config: MaskedLMConfig,
    row: Row,
    generator: Callable[[], np.random.Generator],
    context: Context,
) -> Example:
    """Chooses mask_rate of the row's tokens; most become <mask>, some a random token, some stay.

    round(mask_rate · tokens) are chosen, at least 1 if there is any, never a special. What becomes
    of each is drawn on its own.

    Before (2 is <s>, 3 is </s>, 4 is <mask>):
        tokens        [2, 20, 21, 22, 3]
        segment_ids   [1, 1, 1, 1, 1]
    After, 20 and 22 chosen, of which 22 stays:
        inputs        [2, 4, 21, 22, 3]
        targets       [2, 20, 21, 22, 3]
        loss_weights  [0, 1, 0, 1, 0]
        positions     [0, 1, 2, 3, 4]
        segment_ids   [1, 1, 1, 1, 1]

    Args:
        config: rates, and whether words are chosen whole.
        row: L tokens.
        generator: called once.
        context: of the row.

    Returns:
        The example, fields [L]: nothing is shifted, the model sees the row in both directions.
    """
    random = generator()
    symbols = context.symbols
    maskable = np.flatnonzero(~symbols.is_special[row.tokens] & (row.segment_ids > 0))
    number = min(max(round(config.mask_rate * len(maskable)), 1), len(maskable))
    if config.whole_words:
        chosen = maskable[_words(row, maskable, number, symbols, random)]
    else:
        chosen = maskable[random.choice(len(maskable), number, replace=False, shuffle=False)]
    inputs = row.tokens.copy()
    draws = random.random(len(chosen))
    inputs[chosen[draws < config.mask_fraction]] = symbols.id_of(MASK)
    is_random = (draws >= config.mask_fraction) & (
        draws < config.mask_fraction + config.random_fraction
    )
    inputs[chosen[is_random]] = _random_tokens(int(is_random.sum()), symbols, random)
    loss_weights = np.zeros(len(inputs), np.float32)
    loss_weights[chosen] = 1
    return Example(
        inputs=inputs,
        targets=row.tokens,
        loss_weights=loss_weights,
        positions=row.positions,
        segment_ids=row.segment_ids,
    )


def _words(
    row: Row,
    maskable: np.ndarray,
    number: int,
    symbols: Symbols,
    generator: np.random.Generator,
) -> np.ndarray:
    """Which maskable tokens belong to words drawn in random order, bool [maskable].

    A word that would make more than `number` tokens is passed over, unless it is the first: so
    long words are chosen a little less often, as in BERT's own.
    """
    word = np.cumsum(word_starts(row, maskable, symbols)) - 1
    sizes = np.bincount(word).tolist()
    is_chosen = np.zeros(len(sizes), bool)
    remaining = number
    for candidate in generator.permutation(len(sizes)).tolist():
        if sizes[candidate] <= remaining or remaining == number:
            is_chosen[candidate] = True
            remaining -= sizes[candidate]
        if remaining <= 0:
            break
    return is_chosen[word]


def word_starts(row: Row, maskable: np.ndarray, symbols: Symbols) -> np.ndarray:
    """Which of the maskable places begin a word, bool [maskable].

    A word begins where whitespace does, after whitespace, after a special, and where a segment
    begins: whatever lies between is one word, punctuation included.
    """
    starts = symbols.starts_with_space[row.tokens[maskable]]
    follows = np.zeros(len(maskable), bool)  # the place before is maskable and of the same segment
    before = maskable[:-1]
    follows[1:] = (maskable[1:] == before + 1) & (
        row.segment_ids[maskable[1:]] == row.segment_ids[before]
    )
    follows[1:] &= ~symbols.ends_with_space[row.tokens[before]]
    return starts | ~follows


def _random_tokens(count: int, symbols: Symbols, generator: np.random.Generator) -> np.ndarray:
    """Ids drawn evenly from all but specials."""
    ids = generator.integers(symbols.vocab_size, size=count)
    while np.any(is_special := symbols.is_special[ids]):
        ids[is_special] = generator.integers(symbols.vocab_size, size=np.count_nonzero(is_special))
    return ids


def reconstruct(config: MaskedLMConfig, example: Example, context: Context) -> list[np.ndarray]:
    """The content of each document: targets where they count, inputs elsewhere."""
    del config
    tokens = np.where(example.loss_weights > 0, example.targets, example.inputs)
    return content_of(tokens, example.segment_ids, context)
