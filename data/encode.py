"""Spooled documents to tokens: what the processes of a preparation do, a bucket at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.corpus_card import SPLITS
from data.parallel import Tally
from data.sources.text_source import Problems, SourceShard
from data.spool import (
    FIRST_RANK,
    LAST_RANK,
    PartRecord,
    SpoolWriter,
    is_held_out,
    read_part_record,
    read_texts,
)
from data.token_chunks import token_dtype
from data.tokenizer import BOS_ID, EOS_ID, Tokenizer


class ReadTask(NamedTuple):
    """Shards of a source to spool as one part."""

    folder: Path
    part: int
    shards: tuple[SourceShard, ...]
    num_buckets: int
    seed: int
    skip: bool
    pinned_held_out: frozenset[str] | None


class EncodeTask(NamedTuple):
    """A bucket to encode: a file that lists the folders of all parts, the bucket's ordered entries,
    the tokenizer, and where tokens go."""

    parts: Path
    bucket: int
    order: Path
    tokenizer: Path
    out: Path


class EncodedSplit(NamedTuple):
    """The documents of one split in a bucket.

    path: tokens with <s> and </s>, one document after another. lengths: of each, int64 [n].
    bytes: of their text.
    """

    path: Path
    lengths: np.ndarray
    bytes: int


def read_part(task: ReadTask, tally: Tally) -> PartRecord:
    """Spools the shards of a part, unless that was done before.

    Raises:
        InputError: a document that cannot be read, unless such are to be passed over.
    """
    if (record := read_part_record(task.folder)) is not None:
        tally.add(record.documents, record.bytes)
        return record
    writer = SpoolWriter(task.folder, part=task.part, num_buckets=task.num_buckets, seed=task.seed)
    problems = Problems(skip=task.skip)
    for shard in task.shards:
        for document in shard.documents(problems):
            rank = None
            if task.pinned_held_out is not None:
                rank = FIRST_RANK if document.id in task.pinned_held_out else LAST_RANK
            writer.add(document, rank=rank)
            tally.add(1, len(document.data))
    return writer.close(dict(problems.skipped))


def encode_bucket(task: EncodeTask, tally: Tally) -> dict[str, EncodedSplit]:
    """Encodes a bucket's documents, unless that was done before.

    Returns:
        Split -> its documents, in the order of the shuffle.
    """
    entries = np.load(task.order)
    held_out = is_held_out(entries["rank"])
    encoded = {}
    for split in SPLITS:
        chosen = entries[held_out if split == "held_out" else ~held_out]
        path = task.out / f"{task.bucket:04}.{split}.tokens"
        lengths_path = path.with_suffix(".lengths.npy")
        if not lengths_path.exists():  # written last
            tokenizer = Tokenizer.load(task.tokenizer)
            folders = [Path(name) for name in json.loads(task.parts.read_text())]
            texts = read_texts(folders, task.bucket, chosen)
            lengths = _encode(texts, tokenizer, path, tally)
            partial = lengths_path.with_suffix(".partial.npy")
            np.save(partial, lengths)
            partial.rename(lengths_path)
        else:
            tally.add(len(chosen), int(chosen["length"].sum()))
        encoded[split] = EncodedSplit(path, np.load(lengths_path), int(chosen["length"].sum()))
    return encoded


def _encode(texts: Iterator[bytes], tokenizer: Tokenizer, path: Path, tally: Tally) -> np.ndarray:
    """Writes each document as <s> tokens </s>; returns their lengths, int64."""
    dtype = token_dtype(tokenizer.vocab_size)
    opening, closing = np.array([BOS_ID], dtype).tobytes(), np.array([EOS_ID], dtype).tobytes()
    lengths = []
    with path.open("wb") as file:
        for text in texts:
            file.write(opening)
            length = 2
            for tokens in tokenizer.encode_parts(text):
                file.write(tokens.astype(dtype).tobytes())
                length += len(tokens)
            file.write(closing)
            lengths.append(length)
            tally.add(1, len(text))
    return np.array(lengths, np.int64)
