"""SentencePiece BPE with byte fallback: any text round-trips exactly.

Ids 0 to 3 are <pad>, <unk>, <s>, </s>. They are control symbols, so no text can produce them
(<unk> never occurs: an unknown character falls back to its UTF-8 bytes). So are the symbols that
objectives ask for, such as <mask>, which a tokenizer has if it was trained with them.

Training settings that matter, on the standard library with 2,048 pieces: pieces of whitespace only
(indentation), text cut into pages rather than lines (so pieces may hold a line's end), and pieces
that mix letters with punctuation (`self.`) take it from about 2.0 to 3.3 bytes a token.
"""

import hashlib
import io
import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import sentencepiece

from configs.errors import InputError, require

if TYPE_CHECKING:
    from data.objectives.symbols import Symbols

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
_SPECIALS = {PAD_ID: "<pad>", UNK_ID: "<unk>", BOS_ID: "<s>", EOS_ID: "</s>"}

NUM_BYTE_PIECES = 256
MIN_VOCAB_SIZE = len(_SPECIALS) + NUM_BYTE_PIECES + 1
MAX_VOCAB_SIZE = 2**20
SAMPLE_BYTES = 4_000_000
_PAGE_CHARACTERS = 2048

# SentencePiece writes a space as U+2581 and would read a literal one back as a space.
_SPACE_MARK = "\u2581"
_SPACE_MARK_BYTES = _SPACE_MARK.encode()

_ENCODED_BYTES = 2048
_MAX_ENCODED_BYTES = 32_768
_CUT = re.compile(rb"[^ ] ")
_SYMBOL_NAME = re.compile(r"<\w+>")


class Tokenizer:
    """A loaded SentencePiece model. Safe to share among threads."""

    pad_id, unk_id, bos_id, eos_id = PAD_ID, UNK_ID, BOS_ID, EOS_ID

    def __init__(self, model_bytes: bytes, name: str = "tokenizer"):
        """Checks and loads a serialized model.

        Args:
            model_bytes: the contents of tokenizer.model.
            name: what errors call it, usually the path.

        Raises:
            InputError: not a SentencePiece model, an empty one, other special ids than ours, or
                one that cannot spell every byte.
        """
        self.model_bytes = model_bytes
        self._processor = _load_processor(model_bytes, name)
        self._mark_ids = np.array(
            [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE_MARK_BYTES],
            np.int32,
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tokenizer":
        """Reads a tokenizer.model file.

        Raises:
            InputError: the file is missing, unreadable, empty or damaged.
        """
        try:
            model_bytes = Path(path).read_bytes()
        except OSError as error:
            raise InputError(
                f"tokenizer: got {os.fspath(path)!r} ({error.strerror}), "
                "expected a readable SentencePiece model"
            ) from error
        return cls(model_bytes, os.fspath(path))

    @property
    def vocab_size(self) -> int:
        """Number of pieces, specials, control symbols and bytes included."""
        return self._processor.vocab_size()

    @cached_property
    def sha(self) -> str:
        """SHA-256 of the model's bytes, in hex."""
        return hashlib.sha256(self.model_bytes).hexdigest()

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """Every piece by id, as SentencePiece writes it (a space is U+2581)."""
        return tuple(self._processor.id_to_piece(i) for i in range(self.vocab_size))

    @cached_property
    def piece_bytes(self) -> np.ndarray:
        """UTF-8 bytes each id stands for, int32 [V]; 0 for specials and control symbols.

        Summed over the ids of a text they give the text's length in bytes.
        """
        sizes = [
            1 if self._processor.is_byte(i) else len(piece.replace(_SPACE_MARK, " ").encode())
            for i, piece in enumerate(self.pieces)
        ]
        return np.where(self._is_special, 0, sizes).astype(np.int32)

    @cached_property
    def symbols(self) -> "Symbols":
        """What objectives know of the tokenizer."""
        # Objectives know the ids above, so this module cannot import theirs when it is loaded.
        from data.control_symbols import make_symbols

        texts = [piece.replace(_SPACE_MARK, " ") for piece in self.pieces]
        for byte in range(NUM_BYTE_PIECES):
            piece_id = self._processor.piece_to_id(f"<0x{byte:02X}>")
            texts[piece_id] = chr(byte) if byte < 0x80 else ""
        specials = np.flatnonzero(self._is_special).tolist()
        return make_symbols(
            texts, specials=specials, named=[i for i in specials if i not in _SPECIALS]
        )

    @cached_property
    def _is_special(self) -> np.ndarray:
        """Which ids stand for no text, bool [V]."""
        is_control, is_unknown = self._processor.is_control, self._processor.is_unknown
        return np.array([is_control(i) or is_unknown(i) for i in range(self.vocab_size)])

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without <s> and </s>; `decode` gives `text` back exactly."""
        return self.encode_array(text).tolist()

    def encode_with_symbols(self, text: str) -> list[int]:
        """`encode`, where the names of control symbols (`<mask>`) stand for the symbols."""
        names = self.symbols.ids
        if not names:
            return self.encode(text)
        ids: list[int] = []
        for part in re.split(f"({'|'.join(map(re.escape, names))})", text):
            ids += [names[part]] if part in names else self.encode(part)
        return ids

    def encode_array(self, text: str) -> np.ndarray:
        """`encode` as an int32 array [tokens]."""
        return np.concatenate([np.zeros(0, np.int32), *self.encode_parts(utf8(text))])

    def encode_parts(self, text: bytes) -> Iterator[np.ndarray]:
        """`encode` of UTF-8 bytes, a few kilobytes at a time; int32 arrays.

        Texts are cut where a space follows something else: no piece spans such a place, so the
        ids are those of the whole. SentencePiece would take some forty times a text's size in
        memory, and gets slower a byte the longer it is.
        """
        first, *rest = text.split(_SPACE_MARK_BYTES)
        for part in _encodable(first):
            yield self._processor.encode(part, return_type="numpy")
        for between in rest:
            yield self._mark_ids
            for part in _encodable(between):
                yield self._processor.encode(part, return_type="numpy")

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, specials and control symbols dropped; bytes that are not UTF-8 become
        U+FFFD."""
        return self._processor.decode([int(i) for i in ids if not self._is_special[i]])


def utf8(text: str) -> bytes:
    """The text's bytes.

    Raises:
        InputError: it has half of a character, as an argument cut in the middle of one has.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        raise InputError(
            f"text: got {text[at : at + 1]!r} at character {at}, expected text that UTF-8 can spell"
        ) from error


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    seed: int = 0,
    sample_bytes: int = SAMPLE_BYTES,
    symbols: Sequence[str] = (),
) -> Tokenizer:
    """Trains a BPE tokenizer on a seeded random sample of pages of `texts`.

    The result depends on the arguments alone, not on thread counts.

    Args:
        texts: training documents.
        vocab_size: number of pieces, at least `MIN_VOCAB_SIZE` besides the symbols.
        seed: decides which pages are sampled.
        sample_bytes: UTF-8 bytes to train on at most.
        symbols: names of control symbols, each once; `vocab_size` counts them.

    Raises:
        InputError: a vocabulary larger than the text can fill, or too small for its characters, or
            a symbol whose name is not <name>, is another piece's, or comes twice.
    """
    require_vocab_size(vocab_size, symbols)
    _require_names(symbols)
    pages = [page for text in texts for page in _pages(text)]
    random.Random(seed).shuffle(pages)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_up_to(pages, sample_bytes),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="bpe",
            character_coverage=0.9999,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            split_by_unicode_script=False,
            max_sentence_length=8 * _PAGE_CHARACTERS,
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            control_symbols=list(symbols),
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(_training_failure(vocab_size, str(error))) from error
    return Tokenizer(model.getvalue())


def require_vocab_size(vocab_size: int, symbols: Sequence[str]) -> None:
    """Raises InputError for a number of pieces that no tokenizer with these symbols can have."""
    smallest = MIN_VOCAB_SIZE + len(symbols)
    require(
        smallest <= vocab_size <= MAX_VOCAB_SIZE,
        "vocab_size",
        vocab_size,
        f"{smallest} to {MAX_VOCAB_SIZE} pieces",
    )


def _require_names(symbols: Sequence[str]) -> None:
    taken = {*_SPECIALS.values(), *(f"<0x{byte:02X}>" for byte in range(NUM_BYTE_PIECES))}
    for name in symbols:
        fits = _SYMBOL_NAME.fullmatch(name) and name not in taken
        require(bool(fits), "symbols", name, "another name, such as <mask>, that comes once")
        taken.add(name)


def _encodable(text: bytes) -> Iterator[bytes]:
    """Cuts UTF-8 text before spaces, into parts of about `_ENCODED_BYTES`.

    Text without a fitting space for `_MAX_ENCODED_BYTES` is cut between characters there.
    """
    start = 0
    while len(text) - start > _ENCODED_BYTES:
        limit = start + _MAX_ENCODED_BYTES
        found = _CUT.search(text, start + _ENCODED_BYTES, limit)
        if found:
            stop = found.start() + 1
        elif len(text) <= limit:
            break
        else:
            stop = limit
            while text[stop] & 0xC0 == 0x80:  # inside a character
                stop -= 1
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:]


def _training_failure(vocab_size: int, message: str) -> str:
    if largest := re.search(r"value <= (\d+)", message):
        return f"vocab_size: got {vocab_size}, expected at most {largest[1]} for so little text"
    if smallest := re.search(r"(\d+) vs (\d+)", message):
        return (
            f"vocab_size: got {vocab_size}, expected more than {smallest[2]} "
            "(the text's characters, bytes and specials)"
        )
    return f"vocab_size: got {vocab_size}, expected one the text can fill ({message.strip()})"


def _load_processor(model_bytes: bytes, name: str) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model_bytes)
        # Empty bytes load silently, with no pieces.
        size = processor.vocab_size() if model_bytes else 0
    except RuntimeError as error:
        raise InputError(
            f"tokenizer: got {name!r}, expected a SentencePiece model (damaged or another format)"
        ) from error
    require(size > 0, "tokenizer", name, "a SentencePiece model with pieces (this one is empty)")
    for special, piece in _SPECIALS.items():
        found = processor.id_to_piece(special) if special < size else None
        is_special = special < size and (
            processor.is_unknown(special) if special == UNK_ID else processor.is_control(special)
        )
        require(
            found == piece and is_special,
            "tokenizer",
            name,
            f"a model whose id {special} is the control symbol {piece} (it is {found!r})",
        )
    spells_bytes = all(processor.is_byte(processor.piece_to_id(f"<0x{b:02X}>")) for b in range(256))
    require(spells_bytes, "tokenizer", name, "a model trained with byte fallback")
    return processor


def _pages(text: str) -> Iterator[str]:
    """Cuts text into pieces of about `_PAGE_CHARACTERS`, at line ends where there are any."""
    start = 0
    while start < len(text):
        stop = start + _PAGE_CHARACTERS
        if stop < len(text):
            stop = text.rfind("\n", start, stop) + 1 or stop
        yield text[start:stop]
        start = stop


def _up_to(pages: Sequence[str], max_bytes: int) -> Iterator[str]:
    remaining = max_bytes
    for page in pages:
        remaining -= len(page.encode())
        if remaining < 0:
            return
        yield page
