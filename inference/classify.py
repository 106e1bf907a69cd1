"""What a model with a head for classes says of texts: one class each, or spans of classes.

Letters: B texts of a batch, L places, G classes.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from configs.errors import require
from configs.model_config import (
    ModelConfig,
    SequenceClassificationHeadConfig,
    TokenClassificationHeadConfig,
)
from data.objectives.sequence_classification import answer_place
from data.token_spans import Span, spans_of
from data.tokenizer import Tokenizer
from model.build import Params, build_model, forward

_BATCH = 32


class Classification(NamedTuple):
    """The likeliest class of a text, and the probability of every one.

    is_truncated: the text is longer than the model's rows, and only its begin was read.
    """

    text: str
    label: str
    probabilities: dict[str, float]
    is_truncated: bool


class Tagging(NamedTuple):
    """The spans of a text, in order."""

    text: str
    spans: list[Span]


def classify(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    seq_len: int,
) -> list[Classification]:
    """The class of each text, by a model trained with the sequence_classification objective.

    Args:
        labels: names of the classes by number.
        seq_len: places of a row as in training; longer texts are cut off.

    Raises:
        InputError: a model without such a head, other classes than it has, or an empty text.
    """
    _check(config, SequenceClassificationHeadConfig, texts, labels)
    encoded = [tokenizer.encode_array(text) for text in texts]
    pieces = [_piece(tokens[: seq_len - 2], tokenizer) for tokens in encoded]
    found = []
    for text, tokens, piece, logits_LG in zip(
        texts, encoded, pieces, _all_logits(config, params, pieces, seq_len), strict=True
    ):
        logits_G = logits_LG[answer_place(config.architecture, len(piece))]
        probabilities_G = np.exp(logits_G - logits_G.max())
        probabilities_G /= probabilities_G.sum()
        named = dict(zip(labels, probabilities_G.tolist(), strict=True))
        label = labels[int(logits_G.argmax())]
        found.append(Classification(text, label, named, len(tokens) > seq_len - 2))
    return found


def tag(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    seq_len: int,
) -> list[Tagging]:
    """The spans of each text, by a model trained with the token_classification objective.

    Args:
        labels: O, and B- and I- of every class, by number.
        seq_len: places of a row as in training; longer texts are read in windows of as many, which
            do not see one another.

    Raises:
        InputError: a model without such a head, other classes than it has, or an empty text.
    """
    _check(config, TokenClassificationHeadConfig, texts, labels)
    encoded = [tokenizer.encode_array(text) for text in texts]
    size = seq_len - 2
    cuts = [range(0, len(tokens), size) for tokens in encoded]
    pieces = [
        _piece(tokens[start : start + size], tokenizer)
        for tokens, starts in zip(encoded, cuts, strict=True)
        for start in starts
    ]
    logits = iter(_all_logits(config, params, pieces, seq_len))
    found = []
    for text, tokens, starts in zip(texts, encoded, cuts, strict=True):
        classes = np.concatenate([next(logits)[1:-1].argmax(-1) for _ in starts])
        tags = [labels[int(number)] for number in classes]
        found.append(Tagging(text, spans_of(text, tags, tokens, tokenizer.piece_bytes)))
    return found


def _check(config: ModelConfig, head: type, texts: Sequence[str], labels: Sequence[str]) -> None:
    require(isinstance(config.head, head), "model.head.kind", config.head.kind, "a head of classes")
    num_labels = getattr(config.head, "num_labels", 0)
    require(len(labels) == num_labels, "labels", len(labels), f"the head's {num_labels} names")
    for text in texts:
        require(text.strip() != "", "text", text, "some text")


def _piece(tokens: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    return np.concatenate([[tokenizer.bos_id], tokens, [tokenizer.eos_id]]).astype(np.int32)


def _all_logits(
    config: ModelConfig, params: Params, pieces: Sequence[np.ndarray], seq_len: int
) -> list[np.ndarray]:
    """Each piece's logits, fp32 [its length, G]; one shape is compiled, for whole batches."""
    found: list[np.ndarray] = []
    for first in range(0, len(pieces), _BATCH):
        batch = pieces[first : first + _BATCH]
        tokens_BL = np.zeros((_BATCH, seq_len), np.int32)
        segments_BL = np.zeros((_BATCH, seq_len), np.int32)
        for number, piece in enumerate(batch):
            tokens_BL[number, : len(piece)] = piece
            segments_BL[number, : len(piece)] = 1
        logits_BLG = np.asarray(
            _logits(config, params, jnp.asarray(tokens_BL), jnp.asarray(segments_BL))
        )
        found += [
            logits_LG[: len(piece)] for logits_LG, piece in zip(logits_BLG, batch, strict=False)
        ]
    return found


@partial(jax.jit, static_argnums=0)
def _logits(
    config: ModelConfig,
    params: Params,
    tokens_BL: Int[Array, "B L"],
    segments_BL: Int[Array, "B L"],
) -> Float[Array, "B L G"]:
    positions_BL = jnp.arange(tokens_BL.shape[1])[None, :] * segments_BL
    return forward(
        build_model(config), params, tokens_BL, positions=positions_BL, segment_ids=segments_BL
    )
