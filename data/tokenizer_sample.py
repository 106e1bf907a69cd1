"""A bounded, seeded sample of the training text, for the tokenizer to be trained on."""

from collections.abc import Iterator

import numpy as np

from data.order import Ordered
from data.spool import read_texts

_PAGE_BYTES = 2048


def sample_texts(ordered: Ordered, *, sample_bytes: int, seed: int) -> Iterator[str]:
    """All training documents if they are small enough, else pages drawn evenly from all of them.

    Args:
        ordered: the documents (order.py).
        sample_bytes: about how much text to give at most.
        seed: decides which pages.
    """
    num_buckets = len(ordered.buckets)
    sizes = np.array([int(ordered.train_entries(b)["length"].sum()) for b in range(num_buckets)])
    total = int(sizes.sum())
    if total <= sample_bytes:
        for bucket in range(num_buckets):
            for text in read_texts(ordered.folders, bucket, ordered.train_entries(bucket)):
                yield text.decode("utf-8")
        return
    count = sample_bytes // _PAGE_BYTES
    places = np.sort(np.random.default_rng(seed).integers(0, total, count))
    ends = np.cumsum(sizes)
    for bucket in range(num_buckets):
        begin = ends[bucket] - sizes[bucket]
        inside = places[(places >= begin) & (places < ends[bucket])] - begin
        yield from _pages(ordered, bucket, inside)


def _pages(ordered: Ordered, bucket: int, places: np.ndarray) -> Iterator[str]:
    """The pages of a bucket's documents that hold `places`, counted over all its training text."""
    entries = ordered.train_entries(bucket)
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
    for begin, data in zip(
        begins.tolist(), read_texts(ordered.folders, bucket, wanted), strict=True
    ):
        if begin:  # whole lines, where there are any
            data = data[data.find(b"\n") + 1 :]
        if text := data.decode("utf-8", errors="ignore"):
            yield text
