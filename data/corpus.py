"""A corpus: text made into token streams on disk, with its tokenizer and a card.

OUT/corpus.json       the card, written last: a folder without one is not a corpus
OUT/tokenizer.model   SentencePiece
OUT/token_chunks/     TFDS dataset of token chunks, splits train and held_out

A split's stream is its documents, each as <s> tokens </s>, one after another, in an order shuffled
when the corpus is prepared. Reading is circular: after the last token comes the first. Preparing
holds the whole text in memory, about three times its size at the peak.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.errors import InputError, require
from data.corpus_card import (
    CARD_NAME,
    SCHEMA_VERSION,
    SPLITS,
    SplitCard,
    check_files,
    file_entry,
    read_card,
    require_card,
)
from data.sources import Document, TextSource
from data.token_chunks import CHUNK_TOKENS, TokenChunks, TokenStream, num_chunks, token_dtype
from data.tokenizer import BOS_ID, EOS_ID, Tokenizer, train_tokenizer

TOKENIZER_NAME = "tokenizer.model"

# Raised when the same documents, vocabulary and seed would no longer give the same corpus.
RECIPE_VERSION = 1

Progress = Callable[[str, float], None]


class OtherCorpusError(InputError):
    """The folder to write into holds another corpus, which is left as it is."""


class EncodedDocument(NamedTuple):
    """A document's token ids int32 [n], without <s> and </s>, and its length in UTF-8 bytes."""

    tokens: np.ndarray
    num_bytes: int


class Corpus:
    """An opened corpus.

    Attributes:
        path: its folder.
        card: the contents of corpus.json.
        tokenizer: what its tokens mean.
        splits: split -> counts.
    """

    def __init__(self, path: Path, card: Mapping[str, Any], tokenizer: Tokenizer):
        self.path, self.card, self.tokenizer = path, card, tokenizer
        self.splits = {split: SplitCard(**card["splits"][split]) for split in SPLITS}
        dtype = token_dtype(tokenizer.vocab_size)
        self._streams = {
            split: TokenStream(
                _record_paths(path, card, split), num_tokens=counts.tokens, dtype=dtype
            )
            for split, counts in self.splits.items()
        }

    @property
    def sha(self) -> str:
        """Hash of documents, tokenizer, seed and format: equal means the same streams."""
        return self.card["sha"]

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of training text per token of its stream, <s> and </s> included."""
        return self.splits["train"].bytes / self.splits["train"].tokens

    def stream(self, split: str = "train") -> TokenStream:
        """The tokens of "train" or "held_out"."""
        return self._streams[split]

    def documents(self, split: str) -> Iterator[EncodedDocument]:
        """The documents of a split in the order of its stream."""
        stream = self._streams[split]
        parts: list[np.ndarray] = []
        for begin in range(0, stream.num_tokens, CHUNK_TOKENS):
            tokens, starts = stream.read(begin, min(CHUNK_TOKENS, stream.num_tokens - begin))
            continued, *opened = np.split(tokens, np.flatnonzero(starts))
            parts.append(continued)
            for part in opened:
                if any(map(len, parts)):
                    yield self._document(np.concatenate(parts))
                parts = [part]
        yield self._document(np.concatenate(parts))

    def text(self, split: str) -> bytes:
        """All documents of a split as UTF-8, one after another, in the order of its stream."""
        return b"".join(
            self.tokenizer.decode(document.tokens).encode() for document in self.documents(split)
        )

    def _document(self, tokens: np.ndarray) -> EncodedDocument:
        inner = tokens[1:-1]
        return EncodedDocument(inner, int(self.tokenizer.piece_bytes[inner].sum()))


def open_corpus(path: str | os.PathLike) -> Corpus:
    """Opens a folder that `isoflop prepare` wrote, and checks it before anything is read.

    Raises:
        InputError: no corpus there, a card that is not ours, a damaged tokenizer, files that are
            missing or differ from the card, or a corpus without text. One line, naming the file.
    """
    folder = Path(path)
    card = read_card(folder)
    tokenizer = Tokenizer.load(folder / TOKENIZER_NAME)
    require_card(
        tokenizer.sha == card["tokenizer_sha"],
        "tokenizer_sha",
        tokenizer.sha,
        card["tokenizer_sha"],
    )
    require_card(
        tokenizer.vocab_size == card["vocab_size"],
        "vocab_size",
        card["vocab_size"],
        f"the tokenizer's {tokenizer.vocab_size}",
    )
    check_files(folder, card)
    return Corpus(folder, card, tokenizer)


def prepare_corpus(
    source: TextSource,
    out_dir: str | os.PathLike,
    *,
    vocab_size: int,
    seed: int = 0,
    progress: Progress = lambda stage, fraction: None,
) -> Corpus:
    """Trains a tokenizer on the training documents and writes the corpus into a folder.

    The card is written last, so a folder left by a killed run is not taken for a corpus and is
    built anew. A folder that already holds this corpus (same documents, vocabulary, seed) is
    opened and returned as it is; one that holds another intact corpus is refused, since runs may
    need it. Other files in the folder are left alone.

    Args:
        source: documents and which of them are held out.
        out_dir: folder to write into; made if missing.
        vocab_size: pieces of the tokenizer.
        seed: shuffles documents and samples the tokenizer's text.
        progress: called with a stage ("reading", "tokenizer", "encoding", "writing") and the
            fraction of it that is done, 0 to 1.

    Raises:
        OtherCorpusError: the folder holds another corpus.
        InputError: a source without text or that cannot be split, a vocabulary that does not fit
            it, a folder that cannot be written.
    """
    progress("reading", 0.0)
    documents = {split: [] for split in SPLITS}
    for document in source.documents():
        documents[_split_of(source, document)].append(document)
    for split in SPLITS:
        require(bool(documents[split]), "source", source.describe(), f"{split} documents")
    recipe = {
        "version": RECIPE_VERSION,
        "documents_sha": _documents_sha(documents),
        "vocab_size": vocab_size,
        "seed": seed,
    }
    progress("reading", 1.0)
    out = Path(out_dir)
    with _locked(out):
        if (corpus := _intact_corpus(out)) is not None:
            if corpus.card["recipe"] == recipe:
                return corpus
            raise OtherCorpusError(
                f"out: got {os.fspath(out)!r}, which holds a corpus of other text, vocabulary or "
                "seed; expected another folder, or remove it"
            )
        _clear(out)
        progress("tokenizer", 0.0)
        tokenizer = train_tokenizer(
            (document.text for document in documents["train"]), vocab_size, seed=seed
        )
        _write_atomically(out / TOKENIZER_NAME, tokenizer.model_bytes)
        progress("tokenizer", 1.0)
        streams = _encode(documents, tokenizer, seed, progress)
        builder = TokenChunks(
            streams, data_dir=out, progress=lambda fraction: progress("writing", fraction)
        )
        paths = builder.write()
        splits = {split: _counts(documents[split], streams[split][0]) for split in SPLITS}
        card = {
            "schema_version": SCHEMA_VERSION,
            "sha": _corpus_sha(recipe, tokenizer),
            "source": source.describe(),
            "recipe": recipe,
            "vocab_size": tokenizer.vocab_size,
            "tokenizer_sha": tokenizer.sha,
            "bytes_per_token": splits["train"]["bytes"] / splits["train"]["tokens"],
            "splits": splits,
            "files": {path.relative_to(out).as_posix(): file_entry(path) for path in paths},
        }
        _write_atomically(out / CARD_NAME, json.dumps(card, indent=2).encode() + b"\n")
        return open_corpus(out)


def _record_paths(folder: Path, card: Mapping[str, Any], split: str) -> list[Path]:
    return [folder / name for name in sorted(card["files"]) if f"-{split}.array_record" in name]


def _split_of(source: TextSource, document: Document) -> str:
    return "held_out" if source.is_held_out(document.id) else "train"


def _documents_sha(documents: dict[str, list[Document]]) -> str:
    """Hash of every document's split, id and text; lengths keep neighbours apart."""
    sha = hashlib.sha256()
    for split in SPLITS:
        for document in documents[split]:
            for field in (split, document.id, document.text):
                data = field.encode("utf-8", "surrogateescape")
                sha.update(len(data).to_bytes(8, "little") + data)
    return sha.hexdigest()


def _corpus_sha(recipe: dict[str, Any], tokenizer: Tokenizer) -> str:
    content = {**recipe, "tokenizer_sha": tokenizer.sha, "chunk_tokens": CHUNK_TOKENS}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _encode(
    documents: dict[str, list[Document]], tokenizer: Tokenizer, seed: int, progress: Progress
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Split -> (stream of <s> tokens </s> per document, shuffled; offset of each <s>)."""
    dtype = token_dtype(tokenizer.vocab_size)
    bos, eos = np.array([BOS_ID], dtype), np.array([EOS_ID], dtype)
    total, done = sum(len(d.text) for split in SPLITS for d in documents[split]), 0
    streams = {}
    for split in SPLITS:
        parts, sizes = [], []
        for document in sorted(documents[split], key=lambda d: _shuffle_key(seed, d.id)):
            tokens = tokenizer.encode_array(document.text).astype(dtype)
            parts += [bos, tokens, eos]
            sizes.append(len(tokens) + 2)
            done += len(document.text)
            progress("encoding", done / total)
        streams[split] = np.concatenate(parts), np.cumsum([0, *sizes[:-1]])
    return streams


def _shuffle_key(seed: int, document_id: str) -> tuple[bytes, str]:
    """Sorting by a keyed hash is a shuffle that no library's random stream can change."""
    data = f"{seed}:{document_id}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(data, digest_size=16).digest(), document_id


def _counts(documents: Sequence[Document], stream: np.ndarray) -> dict[str, int]:
    return {
        "documents": len(documents),
        "bytes": sum(len(document.text.encode()) for document in documents),
        "tokens": len(stream),
        "chunks": num_chunks(len(stream)),
    }


def _intact_corpus(out: Path) -> Corpus | None:
    try:
        return open_corpus(out)
    except InputError:
        return None


def _clear(out: Path) -> None:
    """Removes what an earlier or unfinished corpus left, the card first."""
    for name in (CARD_NAME, TOKENIZER_NAME):
        (out / name).unlink(missing_ok=True)
    for name in (TokenChunks.name, "downloads"):
        shutil.rmtree(out / name, ignore_errors=True)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Makes the folder and holds its lock, waiting for another preparation to finish."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"out: got {os.fspath(out)!r} ({error.strerror}), expected a folder to write into"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_atomically(path: Path, contents: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
