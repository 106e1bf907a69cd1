"""A bounded, seeded sample of the training text, for the tokenizer to be trained on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data.spool import read_texts

_PAGE_BYTES = 2048


def sample_texts(
    folders: Sequence[Path], order: Sequence[np.ndarray], *, sample_bytes: int, seed: int
) -> Iterator[str]:
    """All training documents if they are small enough, else pages drawn evenly from all of them.

    Args:
        folders: of the spool's parts.
        order: the training entries of each bucket, in order (spool.py).
        sample_bytes: about how much text to give at most.
        seed: decides which pages.
    """
    sizes = np.array([int(entries["length"].sum()) for entries in order], np.int64)
    total = int(sizes.sum())
    if total <= sample_bytes:
        for bucket, entries in enumerate(order):
            for text in read_texts(folders, bucket, entries):
                yield text.decode("utf-8")
        return
    count = sample_bytes // _PAGE_BYTES
    places = np.sort(np.random.default_rng(seed).integers(0, total, count))
    ends = np.cumsum(sizes)
    for bucket, entries in enumerate(order):
        inside = (places >= ends[bucket] - sizes[bucket]) & (places < ends[bucket])
        yield from _pages(folders, bucket, entries, places[inside] - (ends[bucket] - sizes[bucket]))


def _pages(
    folders: Sequence[Path], bucket: int, entries: np.ndarray, places: np.ndarray
) -> Iterator[str]:
    """The pages of a bucket's documents that hold `places`, counted over all its text."""
    ends = np.cumsum(entries["length"].astype(np.int64))
    documents = np.searchsorted(ends, places, side="right")
    starts = ends[documents] - entries["length"][documents].astype(np.int64)
    pages = sorted(
        set(zip(documents.tolist(), ((places - starts) // _PAGE_BYTES).tolist(), strict=True))
    )
    wanted = entries[[document for document, _ in pages]].copy()
    begins = np.array([page * _PAGE_BYTES for _, page in pages], np.uint64)
    wanted["offset"] += begins
    wanted["length"] = np.minimum(wanted["length"] - begins, _PAGE_BYTES)
    for begin, data in zip(begins.tolist(), read_texts(folders, bucket, wanted), strict=True):
        if begin:  # whole lines, where there are any
            data = data[data.find(b"\n") + 1 :]
        if text := data.decode("utf-8", errors="ignore"):
            yield text
