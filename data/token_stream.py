"""Random access to the tokens of one split, from the ArrayRecord files that hold its chunks."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from configs.errors import InputError, require
from data.token_chunks import CHUNK_TOKENS, Chunk, num_chunks, parse_chunk

CACHED_CHUNKS = 1024


class TokenSource(Protocol):
    """A circular token stream with random access, whose first token starts a document."""

    @property
    def num_tokens(self) -> int:
        """Tokens in one turn of the stream."""
        ...

    @property
    def num_documents(self) -> int:
        """Documents in one turn of the stream."""
        ...

    def read(self, start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int32 [length] from `start` on, and whether each starts a document, bool."""
        ...

    def document_starts(self, start: int, stop: int) -> np.ndarray:
        """Offsets from `start` to `stop` - 1 where a document starts, int64, growing."""
        ...

    def document_offset(self, offset: int) -> int:
        """Tokens of the document at `offset` that come before it."""
        ...

    def document_start(self, number: int) -> int:
        """Offset of the first token of document `number`."""
        ...


class TokenStream:
    """A `TokenSource` on disk. Safe to share among threads."""

    def __init__(
        self, paths: Sequence[Path], *, num_tokens: int, num_documents: int, dtype: np.dtype
    ):
        """Args:
            paths: the split's ArrayRecord files, in order.
            num_tokens, num_documents: that they hold.
            dtype: of the stored token ids.

        Raises:
            InputError: a file that is not ArrayRecord, or another number of chunks.
        """
        self.num_tokens, self.num_documents = num_tokens, num_documents
        self._dtype, self._paths = dtype, list(paths)
        self._readers = [_open_records(path) for path in paths]
        counts = [reader.num_records() for reader in self._readers]
        self._first_chunks = np.cumsum([0, *counts])
        expected = num_chunks(num_tokens)
        require(sum(counts) == expected, "data.corpus: chunks", sum(counts), str(expected))
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Chunk] = OrderedDict()

    def read(self, start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads `length` tokens from offset `start` on.

        Args:
            start: 0 or more; taken modulo the stream's length.
            length: 0 or more; may be more than the stream holds.

        Returns:
            Tokens int32 [length], and whether each starts a document, bool [length].

        Raises:
            InputError: a chunk is damaged.
        """
        tokens, is_start = np.empty(length, np.int32), np.zeros(length, bool)
        done = 0
        while done < length:
            number, begin = divmod((start + done) % self.num_tokens, CHUNK_TOKENS)
            chunk = self.chunk(number)
            end = min(begin + length - done, len(chunk.tokens))
            tokens[done : done + end - begin] = chunk.tokens[begin:end]
            first, last = np.searchsorted(chunk.starts, (begin, end))
            is_start[chunk.starts[first:last].astype(np.int64) + (done - begin)] = True
            done += end - begin
        return tokens, is_start

    def document_starts(self, start: int, stop: int) -> np.ndarray:
        """Where documents start from `start` to `stop` - 1; goes round at the stream's end.

        Args:
            start: 0 or more.
            stop: at least `start`; offsets beyond num_tokens are those of later turns.

        Returns:
            int64, growing, from `start` on: the third turn's first token is 2 * num_tokens.
        """
        found = [np.zeros(0, np.int64)]
        while start < stop:
            turn, offset = divmod(start, self.num_tokens)
            number, begin = divmod(offset, CHUNK_TOKENS)
            chunk = self.chunk(number)
            base = turn * self.num_tokens + number * CHUNK_TOKENS
            end = min(stop - base, len(chunk.tokens))
            first, last = np.searchsorted(chunk.starts, (begin, end))
            found.append(chunk.starts[first:last].astype(np.int64) + base)
            start = base + end
        return np.concatenate(found)

    def document_offset(self, offset: int) -> int:
        """How far into its document the token at `offset` (modulo the stream's length) stands."""
        number, begin = divmod(offset % self.num_tokens, CHUNK_TOKENS)
        chunk = self.chunk(number)
        inside = int(np.searchsorted(chunk.starts, begin, side="right"))
        if inside:
            return begin - int(chunk.starts[inside - 1])
        return begin + chunk.document_offset

    def document_start(self, number: int) -> int:
        """Where document `number`, 0 to num_documents - 1, starts; reads about log2(chunks)."""
        low, high = 0, int(self._first_chunks[-1])
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (middle, high) if self.chunk(middle).documents_before <= number else (low, middle)
            )
        chunk = self.chunk(low)
        return low * CHUNK_TOKENS + int(chunk.starts[number - chunk.documents_before])

    def chunk(self, number: int) -> Chunk:
        """One chunk, checked.

        Raises:
            InputError: it is damaged; names the file.
        """
        with self._lock:
            if number in self._cache:
                self._cache.move_to_end(number)
                return self._cache[number]
        chunk = self._read_chunk(number)
        with self._lock:
            self._cache[number] = chunk
            if len(self._cache) > CACHED_CHUNKS:
                self._cache.popitem(last=False)
        return chunk

    def check(self) -> Iterator[int]:
        """Reads and checks every chunk, in order; yields each one's number.

        Raises:
            InputError: one is damaged, or does not follow from the one before it.
        """
        documents = offset = 0
        for number in range(int(self._first_chunks[-1])):
            chunk = self._read_chunk(number)
            starts_here = len(chunk.starts) > 0 and chunk.starts[0] == 0
            place = (chunk.documents_before, chunk.document_offset)
            require(
                place == (documents, 0 if starts_here else offset),
                f"data.corpus: documents before chunk {number}",
                place,
                str((documents, offset)),
            )
            documents += len(chunk.starts)
            size = len(chunk.tokens)
            offset = size - int(chunk.starts[-1]) if len(chunk.starts) else offset + size
            yield number
        require(
            documents == self.num_documents, "data.corpus: documents", documents,
            str(self.num_documents),
        )  # fmt: skip

    def _read_chunk(self, number: int) -> Chunk:
        file = int(np.searchsorted(self._first_chunks, number, side="right")) - 1
        try:
            # As a range: asked for a list of places, ArrayRecord takes time that grows with the
            # records of the file (0.2 ms at 80,000 of them, for 0.01 ms).
            index = number - int(self._first_chunks[file])
            [record] = self._readers[file].read(index, index + 1)
            chunk = parse_chunk(record, number=number, dtype=self._dtype)
            expected = min(CHUNK_TOKENS, self.num_tokens - number * CHUNK_TOKENS)
            require(
                len(chunk.tokens) == expected,
                f"data.corpus: tokens of chunk {number}",
                len(chunk.tokens),
                str(expected),
            )
        except InputError as error:
            raise InputError(f"{error} (in {os.fspath(self._paths[file])!r})") from error
        except Exception as error:  # the C++ reader's own errors on a damaged block
            raise InputError(
                f"data.corpus: got an unreadable chunk {number} in "
                f"{os.fspath(self._paths[file])!r} ({error}), expected tokens; "
                "prepare the corpus again"
            ) from error
        return chunk


def _open_records(path: Path) -> Any:
    try:
        # These options are ArrayRecord's advice for random access.
        return array_record_module.ArrayRecordReader(
            os.fspath(path), "readahead_buffer_size:0,max_parallelism:0"
        )
    except Exception as error:  # C++ errors arrive under several types
        raise InputError(
            f"data.corpus: got {os.fspath(path)!r} ({error}), expected an ArrayRecord file"
        ) from error
