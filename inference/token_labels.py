"""Tokens as a person reads them one by one: whitespace to be seen, specials by name, and of what
kind each is."""

import keyword
import re
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from data.tokenizer import Tokenizer

TokenKind = Literal[
    "identifier", "keyword", "number", "punctuation", "whitespace", "mixed", "byte", "special"
]
TOKEN_KINDS: tuple[TokenKind, ...] = get_args(TokenKind)

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_WORD = re.compile(r"[^\W\d]\w*")
_NUMBER = re.compile(r"\d[\d_]*")
_SHOWN = str.maketrans({" ": "·", "\n": "↵", "\t": "→", "\r": "←"})


def token_label(tokenizer: Tokenizer, token: int) -> str:
    """One token on one line: a space is "·", a line's end "↵", a tab "→"; specials and what is
    no character, or none to be seen, by their names."""
    text = tokenizer.decode([token])
    if tokenizer.symbols.starts_with_space[token] and not text[:1].isspace():
        text = " " + text  # which some tokenizers of others drop at a text's begin
    text = text.translate(_SHOWN)
    if tokenizer.symbols.is_special[token] or "\ufffd" in text or not text.isprintable():
        return tokenizer.pieces[token]
    return text or f"<{token}>"


def token_labels(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """`token_label` of each."""
    return [token_label(tokenizer, token) for token in tokens]


def token_kind(tokenizer: Tokenizer, token: int) -> TokenKind:
    """What a token is in Python's grammar, spaces around it aside.

    Examples: "·return" -> keyword, "·name" -> identifier, "42" -> number, "):" -> punctuation,
    "↵····" -> whitespace, "self." -> mixed
    """
    if tokenizer.symbols.is_special[token]:
        return "special"
    if _is_byte(tokenizer, token):
        return "byte"
    text = tokenizer.decode([token])
    word = text.strip().removeprefix("##")  # WordPiece's mark of a word's further pieces
    if not word:
        return "whitespace"
    if keyword.iskeyword(word):
        return "keyword"
    if _WORD.fullmatch(word):
        return "identifier"
    if _NUMBER.fullmatch(word):
        return "number"
    return "mixed" if re.search(r"\w", word) else "punctuation"


def ordinary_ids(tokenizer: Tokenizer) -> np.ndarray:
    """Ids that stand for text of a character or more: no special, no byte; int [ids]."""
    bytes_ = [_is_byte(tokenizer, token) for token in range(tokenizer.vocab_size)]
    return np.flatnonzero(~tokenizer.symbols.is_special & ~np.array(bytes_))


def _is_byte(tokenizer: Tokenizer, token: int) -> bool:
    return bool(_BYTE.fullmatch(tokenizer.pieces[token]))
