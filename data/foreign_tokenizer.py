"""Tokenizers of others: the tokenizer.json of a Hugging Face folder.

Byte-level BPE (GPT-2, Qwen), BPE over characters (Llama, Gemma), WordPiece (BERT), Unigram (T5).
Unlike ours they need not give a text back exactly: WordPiece lower-cases and splits at spaces.
Text may spell their special tokens, as transformers lets it.

The files are data: JSON, read by the `tokenizers` library. No code and no pickle is loaded.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers

from configs.errors import InputError, require
from configs.objective_config import MASK
from data.tokenizer import Tokenizer, utf8

if TYPE_CHECKING:
    from data.objectives.symbols import Symbols

TOKENIZER_FILE = "tokenizer.json"
# Where a token's name may stand; the first file that has one counts.
_NAMES_FILES = ("tokenizer_config.json", "special_tokens_map.json")
_IDS_FILE = "config.json"
# What files of old leave unsaid, because the tokenizer's class said it.
_USUAL_NAMES = {
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "mask": ("[MASK]", "<mask>"),
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
}
_ROLES = ("bos", "eos", *_USUAL_NAMES)
_NO_TOKEN = -1  # an id that no token has

_SPACE_MARK = "\u2581"
_PROBE = "a"


class ForeignTokenizer(Tokenizer):
    """A tokenizer.json with the methods of our own tokenizer that using a model takes.

    bos_id is what a text begins with where the model needs something there: the begin token, else
    the classifier's, else the end token. eos_id: the end token, else the separator; −1 (no token)
    where there is neither. pad_id: the padding token, else eos_id, else 0.

    What training and export take (`model_bytes`) is missing.
    """

    def __init__(self, folder: Path):
        """Reads tokenizer.json, and special tokens' names or ids from the files beside it.

        Raises:
            InputError: a file is missing, damaged, or names a token that is not there.
        """
        self._path = folder / TOKENIZER_FILE
        settings = {name: _read_json(folder / name) for name in (*_NAMES_FILES, _IDS_FILE)}
        self._source = _read(self._path)
        self._tokens = _parse(self._source, self._path)
        self._tokens.no_padding()
        self._tokens.no_truncation()
        self._tokens.encode_special_tokens = bool(
            settings["tokenizer_config.json"].get("split_special_tokens", False)
        )
        self._named = _named_tokens(self._tokens, settings, self._path)
        end = self._first("eos", "sep", default=_NO_TOKEN)
        self.bos_id = self._first("bos", "cls", default=max(end, 0))
        self.eos_id = end
        self.pad_id = self._first("pad", default=max(end, 0))
        self.unk_id = self._first("unk", default=_NO_TOKEN)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._size

    @cached_property
    def sha(self) -> str:
        """SHA-256 of tokenizer.json, in hex."""
        return hashlib.sha256(self._source).hexdigest()

    @cached_property
    def pieces(self) -> tuple[str, ...]:
        """Every piece by id, as tokenizer.json writes it; "" for an id that is not given."""
        return tuple(self._tokens.id_to_token(i) or "" for i in range(self.vocab_size))

    @cached_property
    def piece_bytes(self) -> np.ndarray:
        """UTF-8 bytes each id stands for, int32 [V]; 0 for special tokens.

        Of a byte-level vocabulary they add up to a text's length; WordPiece loses the spaces.
        """
        sizes = [len(text.encode()) for text in self._texts]
        if self._is_byte_level:
            sizes = [len(piece) for piece in self.pieces]  # a character stands for a byte
        is_byte = [len(piece) == 6 and piece.startswith("<0x") for piece in self.pieces]
        return np.where(self._is_special, 0, np.where(is_byte, 1, sizes)).astype(np.int32)

    @cached_property
    def symbols(self) -> "Symbols":
        """Special tokens by name; <mask> is the mask token's, whatever it is called."""
        from data.control_symbols import make_symbols  # it imports this room's other tokenizer

        specials = np.flatnonzero(self._is_special).tolist()
        symbols = make_symbols(self._texts, specials=specials, named=())
        # The last name of an id is the one shown.
        alias = {MASK: self._named["mask"]} if "mask" in self._named else {}
        return symbols._replace(ids=alias | {self.pieces[i]: i for i in specials})

    @cached_property
    def added_around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids the tokenizer puts before and after a text."""
        bare, whole = self.encode(_PROBE), self._tokens.encode(_PROBE).ids
        for begin in range(len(whole) - len(bare) + 1 if bare else 0):
            if whole[begin : begin + len(bare)] == bare:
                return tuple(whole[:begin]), tuple(whole[begin + len(bare) :])
        raise InputError(
            f"{self._path}: got {whole} for {_PROBE!r}, expected its tokens {bare} among them"
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without what the tokenizer puts around it."""
        utf8(text)  # refused here in our words
        return self._tokens.encode(text, add_special_tokens=False).ids

    def encode_with_symbols(self, text: str) -> list[int]:
        """`encode`, where <mask> stands for the mask token, too; others go by their own names."""
        if "mask" in self._named:
            text = text.replace(MASK, self.pieces[self._named["mask"]])
        return self.encode(text)

    def encode_array(self, text: str) -> np.ndarray:
        """`encode` as an int32 array [tokens]."""
        return np.array(self.encode(text), np.int32)

    def encode_parts(self, text: bytes) -> Iterator[np.ndarray]:
        """`encode` of UTF-8 bytes, in one part: where a text may be cut differs by tokenizer."""
        yield self.encode_array(text.decode())

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of `ids`, special tokens dropped."""
        return self._tokens.decode([int(i) for i in ids if not self._is_special[i]])

    @cached_property
    def _size(self) -> int:
        return max(self._tokens.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @cached_property
    def _is_special(self) -> np.ndarray:
        """Which ids stand for no text, bool [V]."""
        is_special = np.zeros(self.vocab_size, bool)
        added = self._tokens.get_added_tokens_decoder()
        is_special[[i for i, token in added.items() if token.special]] = True
        is_special[list(self._named.values())] = True
        return is_special

    @cached_property
    def _is_byte_level(self) -> bool:
        return "ByteLevel" in json.dumps(json.loads(self._source).get("decoder"))

    @cached_property
    def _texts(self) -> list[str]:
        """What each id stands for, as far as that can be said of an id alone."""
        if self._is_byte_level:
            bytes_of = {character: byte for byte, character in _byte_characters().items()}
            spelled = [bytes(bytes_of.get(c, 0x3F) for c in piece) for piece in self.pieces]
            return [
                piece if special else raw.decode("utf-8", "ignore")
                for piece, raw, special in zip(self.pieces, spelled, self._is_special, strict=True)
            ]
        return [piece.removeprefix("##").replace(_SPACE_MARK, " ") for piece in self.pieces]

    def _first(self, *names: str, default: int) -> int:
        return next((self._named[name] for name in names if name in self._named), default)


def _parse(source: bytes, path: Path) -> tokenizers.Tokenizer:
    try:
        tokens = tokenizers.Tokenizer.from_buffer(source)
    except ValueError as error:
        raise InputError(f"{path}: got {error}, expected a tokenizer of a known kind") from error
    require(tokens.get_vocab_size() > 0, str(path), "no token", "a vocabulary")
    return tokens


def _named_tokens(
    tokens: tokenizers.Tokenizer, settings: dict[str, dict[str, Any]], path: Path
) -> dict[str, int]:
    """Role -> id, of the roles that a token has."""
    special = {t.content: i for i, t in tokens.get_added_tokens_decoder().items() if t.special}
    named = {}
    for role in _ROLES:
        names = [_token_name(settings[file].get(f"{role}_token")) for file in _NAMES_FILES]
        number = settings[_IDS_FILE].get(f"{role}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        usual = [name for name in _USUAL_NAMES.get(role, ()) if name in special]
        if name := next(filter(None, names), None):
            named[role] = tokens.token_to_id(name)
            require(named[role] is not None, str(path), f"no token {name!r}", f"the {role}_token")
        elif type(number) is int and number >= 0 and tokens.id_to_token(number) is not None:
            named[role] = number
        elif usual:
            named[role] = special[usual[0]]
    return named


def _token_name(entry: Any) -> str | None:
    """ "<s>" of "<s>" or of {"content": "<s>", …}; None of anything else."""
    name = entry.get("content") if isinstance(entry, dict) else entry
    return name if isinstance(name, str) else None


def _byte_characters() -> dict[int, str]:
    """Byte -> the printable character byte-level BPE writes for it (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + place) for place, byte in enumerate(others)
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: got {error.strerror}, expected a readable file") from error


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: got {error}, expected a JSON object") from error
    require(isinstance(content, dict), str(path), type(content).__name__, "a JSON object")
    return content
