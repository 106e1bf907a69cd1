"""Prefix language modelling: predict a document's end from its beginning.

The beginning is read in both directions: by the encoder, or in a decoder-only model by a mask that
`Example.prefix` describes. Source: Raffel et al. 2020, arXiv 1910.10683, section 3.2.
"""

from collections.abc import Callable

import numpy as np

from configs.objective_config import PrefixLMConfig
from data.objectives import causal_lm
from data.objectives.documents import join_last, texts_of
from data.objectives.example import Context, Example
from data.objectives.two_sides import sides_of, split_ends, two_sided
from data.packing import Row


def prefix_lm(
    config: PrefixLMConfig,
    row: Row,
    generator: Callable[[], np.random.Generator],
    context: Context,
) -> Example:
    """Draws where each document is cut; what is before the cut is no target.

    Any place is as likely, but both sides have a token where there are two; a document's only
    token is a target, if it has one before it. In a decoder-only model a document is a segment
    with its <s> and </s>, in an encoder-decoder its content. The last prefix token predicts the
    first target.

    Before, of a decoder-only model (2 is <s>, 3 is </s>, 0 padding):
        tokens                [2, 20, 21, 22, 3, 2, 23, 0]
        segment_ids           [1, 1, 1, 1, 1, 2, 2, 0]
    After, cut at places 2 and 1:
        inputs                [2, 20, 21, 22, 3, 2, 23]
        targets               [20, 21, 22, 3, 2, 23, 0]
        loss_weights          [0, 1, 1, 1, 0, 1, 0]
        positions             [0, 1, 2, 3, 4, 0, 1]
        segment_ids           [1, 1, 1, 1, 1, 2, 2]
        prefix                [1, 1, 0, 0, 0, 1, 0]
    After, of an encoder-decoder with seq_len 9, cut at places 2 and 0:
        encoder_inputs        [20, 21, 3, 3, 0, 0, 0, 0, 0]
        encoder_segment_ids   [1, 1, 1, 2, 0, 0, 0, 0, 0]
        inputs                [2, 22, 2, 23, 0, 0, 0, 0, 0]
        targets               [22, 3, 23, 3, 0, 0, 0, 0, 0]
        loss_weights          [1, 1, 1, 1, 0, 0, 0, 0, 0]
        segment_ids           [1, 1, 2, 2, 0, 0, 0, 0, 0]

    Args:
        config: of which architecture the model is.
        row: [context.lengths.tokens].
        generator: called once.
        context: of the row.

    Returns:
        The example, with `prefix` or with an encoder's side. Where an encoder-decoder's row has
        more pieces without <s> and </s> than there is room for the </s> of, the last are joined.
    """
    if config.architecture == "encoder_decoder":
        return _two_sided(row, generator(), context)
    example = causal_lm.shifted(row.tokens, row.segment_ids, row.positions)
    sizes = np.bincount(row.segment_ids)
    sizes[0] = 0
    cuts = _cuts(sizes, generator())[row.segment_ids]
    is_prefix = row.positions < cuts
    return example._replace(
        loss_weights=example.loss_weights * ~is_prefix[1:],
        prefix=is_prefix[:-1].astype(np.int32),
    )


def _two_sided(row: Row, generator: np.random.Generator, context: Context) -> Example:
    texts = texts_of(row, context.symbols)
    texts = join_last(texts, context.lengths.length - len(texts.tokens))
    prefix, rest = split_ends(texts, texts.sizes - _cuts(texts.sizes, generator))
    return two_sided(prefix, rest, texts.segments, context.lengths)


def _cuts(sizes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Tokens of each prefix: from 1 to size − 1 where there are two, else 0."""
    return generator.integers(np.minimum(1, np.maximum(sizes - 1, 0)), np.maximum(sizes, 1))


def reconstruct(config: PrefixLMConfig, example: Example, context: Context) -> list[np.ndarray]:
    """The content of each document."""
    if config.architecture == "decoder_only":
        return causal_lm.reconstruct(config, example, context)
    return [np.concatenate(sides) for sides in sides_of(example)]
