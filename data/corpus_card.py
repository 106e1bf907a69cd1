"""corpus.json, the card of a corpus: what it holds, from what, and its files' checksums.

corpus.md says the same to a person.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from configs.errors import InputError, require
from configs.names import path_inside
from configs.serialize import write_json, write_text
from data.control_symbols import symbol_groups
from data.spool import Duplicates
from data.token_chunks import CHUNK_TOKENS, num_chunks
from data.tokenizer import Tokenizer

SCHEMA_VERSION = 3
READABLE_VERSIONS = (2, 3)  # version 2 had no checksum of the card itself
CARD_NAME = "corpus.json"
CARD_PAGE = "corpus.md"
SPLITS = ("train", "held_out")

# Documents are counted by the bit length of their number of tokens: 2**(b - 1) to 2**b - 1.
LENGTH_BINS = 64

# Larger corpora are checked by the ends of their files when opened: each chunk has its own CRC.
_WHOLE_CHECK_BYTES = 2**28
_FOOTER_BYTES = 64 * 1024

_CARD_FIELDS = {
    "schema_version": int,
    "sha": str,
    "source": dict,
    "recipe": dict,
    "vocab_size": int,
    "tokenizer_sha": str,
    "bytes_per_token": float,
    "splits": dict,
    "duplicates": dict,
    "skipped": dict,
    "files": dict,
}
CARD_CHECKSUM = "card_xxh3"


@dataclass(frozen=True, kw_only=True)
class SplitCard:
    """What the card says of a split. Lengths and `tokens` count <s> and </s> too.

    shortest, longest: documents, in tokens. length_counts: bit length of the number of tokens, as
    a string -> documents.
    """

    documents: int
    bytes: int
    tokens: int
    chunks: int
    shortest: int
    longest: int
    length_counts: Mapping[str, int]


@dataclass(kw_only=True)
class SplitTotals:
    """What the card says of a split, added up as its documents are encoded."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    shortest: int = 2**63 - 1
    longest: int = 0
    length_counts: Counter[str] = field(default_factory=Counter)

    def add(self, lengths: np.ndarray, num_bytes: int) -> None:
        """Counts documents of `lengths` tokens."""
        if len(lengths) == 0:
            return
        self.documents += len(lengths)
        self.bytes += num_bytes
        self.tokens += int(lengths.sum())
        self.shortest = min(self.shortest, int(lengths.min()))
        self.longest = max(self.longest, int(lengths.max()))
        for bits, count in enumerate(_length_counts(lengths).tolist()):
            if count:
                self.length_counts[str(bits)] += count

    def to_json(self) -> dict[str, Any]:
        """The split as the card holds it."""
        counts = dict(sorted(self.length_counts.items(), key=lambda item: int(item[0])))
        return vars(self) | {"chunks": num_chunks(self.tokens), "length_counts": counts}


def file_entry(path: Path) -> dict[str, Any]:
    """A file's size, and the xxh3 of the whole of it and of its last 64 KiB, for the card."""
    whole, tail = xxhash.xxh3_64(), b""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            whole.update(block)
            tail = (tail + block)[-_FOOTER_BYTES:]
    return {
        "bytes": path.stat().st_size,
        "xxh3": whole.hexdigest(),
        "footer_xxh3": xxhash.xxh3_64_hexdigest(tail),
    }


def write_card(
    out: Path,
    *,
    source: dict[str, str],
    recipe: dict[str, Any],
    tokenizer: Tokenizer,
    totals: dict[str, SplitTotals],
    duplicates: Duplicates,
    skipped: dict[str, int],
    paths: Sequence[Path],
) -> None:
    """Writes corpus.md and, last, corpus.json."""
    content = recipe | {"tokenizer_sha": tokenizer.sha, "chunk_tokens": CHUNK_TOKENS}
    card = {
        "schema_version": SCHEMA_VERSION,
        "sha": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        "source": source,
        "recipe": recipe,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_sha": tokenizer.sha,
        "bytes_per_token": totals["train"].bytes / totals["train"].tokens,
        "splits": {split: totals[split].to_json() for split in SPLITS},
        "duplicates": duplicates._asdict(),
        "skipped": skipped,
        "files": {path.relative_to(out).as_posix(): file_entry(path) for path in paths},
    }
    write_text(out / CARD_PAGE, card_page(card))
    write_json(out / CARD_NAME, card | {CARD_CHECKSUM: card_checksum(card)})


def read_card(folder: Path) -> dict[str, Any]:
    """Reads and checks a corpus's card.

    Raises:
        InputError: missing, not JSON, of another schema, or without text in a split.
    """
    try:
        card = json.loads((folder / CARD_NAME).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"data.corpus: got {os.fspath(folder)!r} without a readable {CARD_NAME}, expected a "
            "folder that `isoflop prepare` finished"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"data.corpus: got a damaged {CARD_NAME} ({error}), expected JSON"
        ) from error
    require_card(isinstance(card, dict), "card", card, "an object")
    version = card.get("schema_version")
    require_card(
        version in READABLE_VERSIONS,
        "schema_version",
        version,
        f"{SCHEMA_VERSION} (of another version of isoflop: prepare the corpus again)",
    )
    if version == SCHEMA_VERSION:
        checksum = card.pop(CARD_CHECKSUM, None)
        expected = f"{card_checksum(card)} (damaged: prepare the corpus again)"
        require_card(checksum == card_checksum(card), f"{CARD_NAME} checksum", checksum, expected)
    require_card(set(card) == set(_CARD_FIELDS), "keys", sorted(card), f"{sorted(_CARD_FIELDS)}")
    for name, kind in _CARD_FIELDS.items():
        require_card(type(card[name]) is kind, name, card[name], kind.__name__)
    require_card(set(card["splits"]) == set(SPLITS), "splits", sorted(card["splits"]), f"{SPLITS}")
    for split, counts in card["splits"].items():
        fits = isinstance(counts, dict) and set(counts) == set(SplitCard.__annotations__)
        fits = fits and all(
            type(count) is int and count > 0
            for name, count in counts.items()
            if name != "length_counts"
        )
        expected_counts = f"{', '.join(SplitCard.__annotations__)} above 0"
        require_card(fits, f"splits.{split}", counts, expected_counts)
        expected = num_chunks(counts["tokens"])
        require_card(counts["chunks"] == expected, "chunks", counts["chunks"], str(expected))
    for name, entry in card["files"].items():
        fits = isinstance(entry, dict) and set(entry) == {"bytes", "xxh3", "footer_xxh3"}
        require_card(fits, f"files.{name}", entry, "bytes, xxh3 and footer_xxh3")
    return card


def check_files(folder: Path, card: Mapping[str, Any], *, full: bool = False) -> None:
    """Compares the corpus's files with the card.

    Args:
        full: read all of every file, however large; else only the ends of large corpora.

    Raises:
        InputError: a file that is missing, or whose size or checksum differs; names the file.
    """
    total_bytes = sum(entry["bytes"] for entry in card["files"].values())
    check = "xxh3" if full or total_bytes <= _WHOLE_CHECK_BYTES else "footer_xxh3"
    for name, entry in card["files"].items():
        _check_file(folder, name, entry, check)


def _check_file(folder: Path, name: str, entry: Mapping[str, Any], check: str) -> None:
    path = path_inside(folder, name, "data.corpus: files").resolve()
    digest = xxhash.xxh3_64()
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0 if check == "xxh3" else max(0, size - _FOOTER_BYTES))
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(
            f"data.corpus: got {os.fspath(path)!r} ({error.strerror}), expected the corpus's file"
        ) from error
    require_card(size == entry["bytes"], name, f"{size} bytes", f"{entry['bytes']} bytes")
    require_card(
        digest.hexdigest() == entry[check],
        name,
        digest.hexdigest(),
        f"{entry[check]} (damaged: prepare the corpus again)",
    )


def card_page(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    source = "".join(f"- {name}: {value}\n" for name, value in card["source"].items())
    rows = "".join(
        f"| {split} | {c['documents']:,} | {c['bytes']:,} | {c['tokens']:,} | "
        f"{c['bytes'] / c['tokens']:.3f} | {c['tokens'] / c['documents']:,.0f} | "
        f"{c['shortest']:,} | {c['longest']:,} |\n"
        for split, c in card["splits"].items()
    )
    counts = {split: card["splits"][split]["length_counts"] for split in SPLITS}
    bins = sorted({int(b) for split in SPLITS for b in counts[split]})
    lengths = "".join(
        f"| {2 ** (b - 1):,} to {2**b - 1:,} | {counts['train'].get(str(b), 0):,} | "
        f"{counts['held_out'].get(str(b), 0):,} |\n"
        for b in bins
    )
    duplicates, skipped = card["duplicates"], card["skipped"]
    groups = symbol_groups(card["recipe"].get("symbols", ()))
    symbols = f", with {' '.join(groups)}" if groups else ""
    left_out = "".join(f"- {count:,} skipped: {reason}\n" for reason, count in skipped.items())
    return (
        "# Corpus\n\n"
        f"{source}- tokenizer: {card['vocab_size']:,} pieces{symbols}, "
        f"sha256 {card['tokenizer_sha']}\n"
        f"- content: sha256 {card['sha']}\n\n"
        "| split | documents | bytes | tokens | bytes a token | tokens a document | shortest | "
        "longest |\n|---|---|---|---|---|---|---|---|\n"
        f"{rows}\n"
        "Tokens count `<s>` and `</s>` of each document.\n\n"
        "## Left out\n\n"
        f"- {duplicates['documents']:,} exact duplicates, {duplicates['bytes']:,} bytes\n"
        f"{left_out}\n"
        "## Lengths\n\n| tokens | train | held out |\n|---|---|---|\n"
        f"{lengths}"
    )


def require_card(condition: bool, name: str, got: object, expected: str) -> None:
    """`require` for what a corpus holds."""
    require(condition, f"data.corpus: {name}", got, expected)


def _length_counts(lengths: np.ndarray) -> np.ndarray:
    """Documents by the bit length of their token count, int64 [LENGTH_BINS]."""
    # frexp's exponent of a whole number is its bit length.
    return np.bincount(np.frexp(lengths)[1], minlength=LENGTH_BINS)


def card_checksum(card: Mapping[str, Any]) -> str:
    """Of everything in the card but the checksum itself, in one order."""
    return xxhash.xxh3_64_hexdigest(json.dumps(card, sort_keys=True).encode())
