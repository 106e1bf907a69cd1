"""Spans of characters to labels of tokens, and back.

Tokens do not end where names do: a piece may hold a space before a name or a bracket after it.
Going to tokens, a token is of the first span that it has a character of; coming back, what is no
letter, digit or underscore is trimmed from a span's ends. A span that shares its only token with
another is lost on the way.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.labelled import OUTSIDE

_WORD = re.compile(r"\w(?:.*\w)?", re.DOTALL)


class Span(NamedTuple):
    """Characters `start` to `end` - 1 of a text, and what they are."""

    start: int
    end: int
    label: str


def token_labels(
    text: str,
    spans: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    tokens: np.ndarray,
    piece_bytes: np.ndarray,
) -> np.ndarray:
    """The class number of each token, int32 [n]: a span's first token is B, the others are I.

    Before (tokens "import", " os", "."; labels O, B-MODULE, I-MODULE):
        text    "import os."
        spans   [{"start": 7, "end": 9, "label": "MODULE"}]
    After:
        [0, 1, 0]

    Args:
        spans: in order and apart from one another.
        tokens: int32 [n], of the text.
        piece_bytes: int32 [V], UTF-8 bytes each token stands for (`Tokenizer.piece_bytes`).
    """
    starts, ends = character_places(text, tokens, piece_bytes)
    answer = np.full(len(tokens), labels.index(OUTSIDE), np.int32)
    free = np.ones(len(tokens), bool)
    for span in spans:
        inside = np.flatnonzero((starts < span["end"]) & (ends > span["start"]) & free)
        answer[inside] = labels.index(f"I-{span['label']}")
        answer[inside[:1]] = labels.index(f"B-{span['label']}")
        free[inside] = False
    return answer


def spans_of(
    text: str,
    tags: Sequence[str],
    tokens: np.ndarray,
    piece_bytes: np.ndarray,
) -> list[Span]:
    """The spans that tokens' tags, O and B- or I- of a label, stand for.

    As the CoNLL shared tasks count (Tjong Kim Sang and De Meulder 2003, arXiv cs/0306050), an I
    that continues nothing of its label begins a span.

    Args:
        tags: one a token.
    """
    starts, ends = character_places(text, tokens, piece_bytes)
    found: list[tuple[str, int, int]] = []  # label, first and last token
    for place, tag in enumerate(tags):
        kind, _, label = tag.partition("-")
        continues = bool(found) and found[-1][0] == label and found[-1][2] == place - 1
        if kind == "I" and continues:
            found[-1] = (label, found[-1][1], place)
        elif kind != OUTSIDE:
            found.append((label, place, place))
    spans = []
    for label, first, last in found:
        if match := _WORD.search(text, int(starts[first]), int(ends[last])):
            spans.append(Span(match.start(), match.end(), label))
    return spans


def character_places(
    text: str, tokens: np.ndarray, piece_bytes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where each token of a text starts and ends, in characters, int64 [n] each.

    A token that begins or ends within a character's bytes begins or ends where the character does.
    """
    ends = np.cumsum(piece_bytes[tokens], dtype=np.int64)
    starts = ends - piece_bytes[tokens]
    if text.isascii():
        return starts, ends
    sizes = [len(character.encode()) for character in text]
    character_of_byte = np.repeat(np.arange(len(text)), sizes)
    return character_of_byte[starts], character_of_byte[ends - 1] + 1
