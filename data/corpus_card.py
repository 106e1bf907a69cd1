"""corpus.json, the card of a corpus: what it holds, from what, and its files' checksums."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from configs.errors import InputError, require
from data.token_chunks import num_chunks

SCHEMA_VERSION = 1
CARD_NAME = "corpus.json"
SPLITS = ("train", "held_out")

# Larger corpora are checked by the ends of their files when opened: each chunk has its own CRC.
_WHOLE_CHECK_BYTES = 2**30
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
    "files": dict,
}


@dataclass(frozen=True, kw_only=True)
class SplitCard:
    """What the card says of a split. `tokens` counts <s> and </s> too."""

    documents: int
    bytes: int
    tokens: int
    chunks: int


def file_entry(path: Path) -> dict[str, Any]:
    """A file's size, and the xxh3 of the whole of it and of its last 64 KiB, for the card."""
    contents = path.read_bytes()
    return {
        "bytes": len(contents),
        "xxh3": xxhash.xxh3_64_hexdigest(contents),
        "footer_xxh3": xxhash.xxh3_64_hexdigest(contents[-_FOOTER_BYTES:]),
    }


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
    except ValueError as error:
        raise InputError(
            f"data.corpus: got a damaged {CARD_NAME} ({error}), expected JSON"
        ) from error
    require_card(isinstance(card, dict), "card", card, "an object")
    version = card.get("schema_version")
    require_card(version == SCHEMA_VERSION, "schema_version", version, str(SCHEMA_VERSION))
    require_card(set(card) == set(_CARD_FIELDS), "keys", sorted(card), f"{sorted(_CARD_FIELDS)}")
    for name, kind in _CARD_FIELDS.items():
        require_card(type(card[name]) is kind, name, card[name], kind.__name__)
    require_card(set(card["splits"]) == set(SPLITS), "splits", sorted(card["splits"]), f"{SPLITS}")
    for split, counts in card["splits"].items():
        fits = isinstance(counts, dict) and set(counts) == set(SplitCard.__annotations__)
        fits = fits and all(type(count) is int and count > 0 for count in counts.values())
        require_card(fits, f"splits.{split}", counts, "documents, bytes, tokens, chunks above 0")
        expected = num_chunks(counts["tokens"])
        require_card(counts["chunks"] == expected, "chunks", counts["chunks"], str(expected))
    for name, entry in card["files"].items():
        fits = isinstance(entry, dict) and set(entry) == {"bytes", "xxh3", "footer_xxh3"}
        require_card(fits, f"files.{name}", entry, "bytes, xxh3 and footer_xxh3")
    return card


def check_files(folder: Path, card: Mapping[str, Any]) -> None:
    """Compares the corpus's files with the card.

    Raises:
        InputError: a file that is missing, or whose size or checksum differs; names the file.
    """
    total_bytes = sum(entry["bytes"] for entry in card["files"].values())
    check = "xxh3" if total_bytes <= _WHOLE_CHECK_BYTES else "footer_xxh3"
    for name, entry in card["files"].items():
        _check_file(folder, name, entry, check)


def _check_file(folder: Path, name: str, entry: Mapping[str, Any], check: str) -> None:
    path = (folder / name).resolve()
    require_card(path.is_relative_to(folder.resolve()), "files", name, "a file in the folder")
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0 if check == "xxh3" else max(0, size - _FOOTER_BYTES))
            digest = xxhash.xxh3_64_hexdigest(file.read())
    except OSError as error:
        raise InputError(
            f"data.corpus: got {os.fspath(path)!r} ({error.strerror}), expected the corpus's file"
        ) from error
    require_card(size == entry["bytes"], name, f"{size} bytes", f"{entry['bytes']} bytes")
    require_card(
        digest == entry[check], name, digest, f"{entry[check]} (damaged: prepare the corpus again)"
    )


def require_card(condition: bool, name: str, got: object, expected: str) -> None:
    """`require` for what a corpus holds."""
    require(condition, f"data.corpus: {name}", got, expected)
