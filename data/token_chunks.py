"""A token stream on disk: a TFDS dataset of fixed-size chunks in ArrayRecord files.

One record holds `CHUNK_TOKENS` consecutive tokens of a split (the last one fewer), where documents
start among them, its own number, and a CRC over all of that: ArrayRecord notices damage only in
some places. Token ids are stored in the smallest unsigned type that holds the vocabulary, as raw
little-endian bytes, which read ten times faster than TFDS's default of one varint a token.
"""

import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from tensorflow_datasets.proto import tf_example_pb2

from configs.errors import InputError, require

# The generated protobuf module has its classes at run time only.
_Example = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]

CHUNK_TOKENS = 8192
_CACHED_CHUNKS = 1024
_START_DTYPE = np.dtype("<u2")


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest unsigned type that holds ids 0 to vocab_size - 1."""
    return np.min_scalar_type(vocab_size - 1).newbyteorder("<")


def num_chunks(num_tokens: int) -> int:
    """Chunks that hold `num_tokens` tokens."""
    return -(-num_tokens // CHUNK_TOKENS)


def chunk_crc(number: int, tokens: np.ndarray, starts: np.ndarray) -> int:
    """CRC-32 of a chunk's number, token bytes and document starts."""
    crc = zlib.crc32(number.to_bytes(8, "little"))
    return zlib.crc32(starts.tobytes(), zlib.crc32(tokens.tobytes(), crc))


def parse_chunk(record: bytes, *, number: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Decodes and checks one record.

    Args:
        record: a serialized tf.train.Example as TFDS writes it.
        number: which chunk of its split it must be.
        dtype: of the token ids.

    Returns:
        Tokens [n] in `dtype`, and whether each starts a document, bool [n].

    Raises:
        InputError: anything but the chunk that was written.
    """
    try:
        feature = _Example.FromString(record).features.feature
        tokens = np.frombuffer(feature["tokens"].bytes_list.value[0], dtype)
        starts = np.frombuffer(feature["document_starts"].bytes_list.value[0], _START_DTYPE)
        crc = feature["crc"].int64_list.value[0]
    except Exception as error:  # protobuf's DecodeError has no base of its own across versions
        raise InputError(
            f"data.corpus: got an unreadable chunk {number}, expected tokens"
        ) from error
    if crc != chunk_crc(number, tokens, starts):
        raise InputError(
            f"data.corpus: got a damaged chunk {number} (its CRC differs), expected what "
            "`isoflop prepare` wrote; prepare the corpus again"
        )
    is_start = np.zeros(len(tokens), bool)
    is_start[starts] = True
    return tokens, is_start


class TokenChunks(tfds.core.GeneratorBasedBuilder):
    """Writes token streams, one a split; records keep the order of the stream."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS would look beside this file for checksums and citations; nothing here is downloaded.
    code_path = None

    def __init__(
        self,
        streams: Mapping[str, tuple[np.ndarray, np.ndarray]],
        *,
        data_dir: str | os.PathLike,
        progress: Callable[[float], None] = lambda fraction: None,
    ):
        """Args:
        streams: split -> (tokens in their stored dtype [T], offsets of document starts [n]).
        data_dir: folder to write `token_chunks/1.0.0` into.
        progress: called with the fraction written, 0 to 1.
        """
        self._streams = streams
        self._progress = progress
        self._total = sum(num_chunks(len(tokens)) for tokens, _ in streams.values())
        self._written = 0
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        dtype = next(iter(self._streams.values()))[0].dtype
        return tfds.core.DatasetInfo(
            builder=self,
            description="Token chunks of a text corpus.",
            features=tfds.features.FeaturesDict(
                {
                    "tokens": _bytes_feature(dtype),
                    "document_starts": _bytes_feature(_START_DTYPE),
                    "chunk": np.int64,
                    "crc": np.int64,
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(*self._streams[split]) for split in self._streams}

    def _generate_examples(self, tokens, offsets) -> Iterator[tuple[int, dict]]:
        for number in range(num_chunks(len(tokens))):
            begin = number * CHUNK_TOKENS
            chunk = tokens[begin : begin + CHUNK_TOKENS]
            first, last = np.searchsorted(offsets, (begin, begin + CHUNK_TOKENS))
            starts = (offsets[first:last] - begin).astype(_START_DTYPE)
            yield (
                number,
                {
                    "tokens": chunk,
                    "document_starts": starts,
                    "chunk": number,
                    "crc": chunk_crc(number, chunk, starts),
                },
            )
            self._written += 1
            self._progress(self._written / self._total)

    def _log_download_bytes(self) -> None:
        """Says nothing: TFDS would announce a download on stdout."""

    def _log_download_done(self) -> None:
        """Says nothing."""

    def write(self) -> list[Path]:
        """Generates the dataset and returns its files."""
        tfds.disable_progress_bar()
        self.download_and_prepare(download_dir=os.path.join(self._data_dir_root, "downloads"))
        for split, (tokens, _) in self._streams.items():
            found, expected = self.info.splits[split].num_examples, num_chunks(len(tokens))
            assert found == expected, f"TFDS wrote {found} of {expected} chunks of {split}"
        return sorted(path for path in Path(self.data_dir).rglob("*") if path.is_file())


class TokenStream:
    """Random access to one split's tokens, circular. Safe to share among threads."""

    def __init__(self, paths: Sequence[Path], *, num_tokens: int, dtype: np.dtype):
        """Args:
            paths: the split's ArrayRecord files, in order.
            num_tokens: that they hold.
            dtype: of the stored token ids.

        Raises:
            InputError: a file that is not ArrayRecord, or another number of chunks.
        """
        self.num_tokens = num_tokens
        self._dtype = dtype
        self._readers = [_open_records(path) for path in paths]
        counts = [reader.num_records() for reader in self._readers]
        self._first_chunks = np.cumsum([0, *counts])
        expected = num_chunks(num_tokens)
        require(sum(counts) == expected, "data.corpus: chunks", sum(counts), str(expected))
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

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
        tokens, starts = np.empty(length, np.int32), np.empty(length, bool)
        done = 0
        while done < length:
            number, begin = divmod((start + done) % self.num_tokens, CHUNK_TOKENS)
            chunk_tokens, chunk_starts = self._chunk(number)
            end = min(begin + length - done, len(chunk_tokens))
            tokens[done : done + end - begin] = chunk_tokens[begin:end]
            starts[done : done + end - begin] = chunk_starts[begin:end]
            done += end - begin
        return tokens, starts

    def _chunk(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if number in self._cache:
                self._cache.move_to_end(number)
                return self._cache[number]
            file = int(np.searchsorted(self._first_chunks, number, side="right")) - 1
            try:
                [record] = self._readers[file].read([number - int(self._first_chunks[file])])
            except Exception as error:  # the C++ reader's own errors on a damaged block
                raise InputError(
                    f"data.corpus: got an unreadable chunk {number} ({error}), expected tokens; "
                    "prepare the corpus again"
                ) from error
            chunk = parse_chunk(record, number=number, dtype=self._dtype)
            expected = min(CHUNK_TOKENS, self.num_tokens - number * CHUNK_TOKENS)
            require(
                len(chunk[0]) == expected,
                f"data.corpus: tokens of chunk {number}",
                len(chunk[0]),
                str(expected),
            )
            self._cache[number] = chunk
            if len(self._cache) > _CACHED_CHUNKS:
                self._cache.popitem(last=False)
            return chunk


def _bytes_feature(dtype: np.dtype) -> tfds.features.Tensor:
    return tfds.features.Tensor(
        shape=(None,), dtype=dtype.newbyteorder("="), encoding=tfds.features.Encoding.BYTES
    )


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
