"""Chunks of a token stream, and the TFDS dataset of ArrayRecord files that holds them.

One record holds `CHUNK_TOKENS` consecutive tokens of a split (the last one fewer), where documents
start among them, where in its document the first token stands and how many documents start before
it, its own number, and a CRC over all of that: ArrayRecord notices damage only in some places.
Token ids are stored in the smallest unsigned type that holds the vocabulary, as raw little-endian
bytes, which read ten times faster than TFDS's default of one varint a token.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from configs.errors import InputError

# The generated protobuf module has its classes at run time only.
_Example = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]

CHUNK_TOKENS = 8192
START_DTYPE = np.dtype("<u2")


class Chunk(NamedTuple):
    """Consecutive tokens of a split.

    number: which chunk of the split. tokens: [n] in the stored type, with <s> and </s>. starts:
    uint16, places among them where documents start. document_offset: tokens of the first token's
    document that come before it. documents_before: documents that start before this chunk.

    Example, with chunks of 4 and documents of 3, 6 and 2 tokens: chunk 1 holds tokens 4 to 7 of
    the stream, all of the second document; starts [], document_offset 1, documents_before 2.
    """

    number: int
    tokens: np.ndarray
    starts: np.ndarray
    document_offset: int
    documents_before: int

    @property
    def crc(self) -> int:
        """CRC-32 of all of it."""
        place = np.array([self.number, self.document_offset, self.documents_before], "<i8")
        crc = zlib.crc32(place.tobytes())
        return zlib.crc32(self.starts.tobytes(), zlib.crc32(self.tokens.tobytes(), crc))

    def example(self) -> dict[str, Any]:
        """The chunk as TFDS's features."""
        return {
            "tokens": self.tokens,
            "document_starts": self.starts,
            "chunk": self.number,
            "document_offset": self.document_offset,
            "documents_before": self.documents_before,
            "crc": self.crc,
        }


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest unsigned type that holds ids 0 to vocab_size - 1."""
    return np.min_scalar_type(vocab_size - 1).newbyteorder("<")


def num_chunks(num_tokens: int) -> int:
    """Chunks that hold `num_tokens` tokens."""
    return -(-num_tokens // CHUNK_TOKENS)


def cut_chunks(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[Chunk]:
    """Cuts documents into chunks, holding one part in memory at a time.

    Args:
        parts: (tokens of several whole documents one after another [n], their lengths int64), in
            the order of the stream.
    """
    waiting = np.zeros(0, np.uint8)
    starts = np.zeros(0, np.int64)  # of documents, from the first waiting token on
    number = documents_before = document_offset = 0

    def cut(size: int) -> Chunk:
        nonlocal waiting, starts, number, documents_before, document_offset
        inside = int(np.searchsorted(starts, size))
        chunk = Chunk(
            number,
            waiting[:size],
            starts[:inside].astype(START_DTYPE),
            document_offset if inside == 0 or starts[0] > 0 else 0,
            documents_before,
        )
        document_offset = size - int(starts[inside - 1]) if inside else document_offset + size
        waiting, starts = waiting[size:], starts[inside:] - size
        number, documents_before = number + 1, documents_before + inside
        return chunk

    for tokens, lengths in parts:
        opens = len(waiting) + np.cumsum(lengths) - lengths
        starts = np.concatenate([starts, opens])
        waiting = np.concatenate([waiting, tokens]) if len(waiting) else tokens
        while len(waiting) >= CHUNK_TOKENS:
            yield cut(CHUNK_TOKENS)
    if len(waiting):
        yield cut(len(waiting))


def parse_chunk(record: bytes, *, number: int, dtype: np.dtype) -> Chunk:
    """Decodes and checks one record.

    Args:
        record: a serialized tf.train.Example as TFDS writes it.
        number: which chunk of its split it must be.
        dtype: of the token ids.

    Raises:
        InputError: anything but the chunk that was written.
    """
    try:
        feature = _Example.FromString(record).features.feature
        chunk = Chunk(
            number,
            np.frombuffer(feature["tokens"].bytes_list.value[0], dtype),
            np.frombuffer(feature["document_starts"].bytes_list.value[0], START_DTYPE),
            feature["document_offset"].int64_list.value[0],
            feature["documents_before"].int64_list.value[0],
        )
        crc = feature["crc"].int64_list.value[0]
    except Exception as error:  # protobuf's DecodeError has no base of its own across versions
        raise InputError(
            f"data.corpus: got an unreadable chunk {number}, expected tokens"
        ) from error
    if crc != chunk.crc:
        raise InputError(
            f"data.corpus: got a damaged chunk {number} (its CRC differs), expected what "
            "`isoflop prepare` wrote; prepare the corpus again"
        )
    return chunk


class TokenChunks(tfds.core.GeneratorBasedBuilder):
    """Writes the chunks of each split; records keep the order of the stream."""

    VERSION = tfds.core.Version("2.0.0")
    # TFDS would look beside this file for checksums and citations; nothing here is downloaded.
    code_path = None

    def __init__(
        self,
        chunks: Mapping[str, Iterable[Chunk]],
        *,
        dtype: np.dtype,
        data_dir: str | os.PathLike,
    ):
        """Args:
        chunks: split -> its chunks; each is gone through once.
        dtype: of the token ids.
        data_dir: folder to write `token_chunks/2.0.0` into.
        """
        self._chunks = chunks
        self._dtype = dtype
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Token chunks of a text corpus.",
            features=tfds.features.FeaturesDict(
                {
                    "tokens": _bytes_feature(self._dtype),
                    "document_starts": _bytes_feature(START_DTYPE),
                    "chunk": np.int64,
                    "document_offset": np.int64,
                    "documents_before": np.int64,
                    "crc": np.int64,
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(chunks) for split, chunks in self._chunks.items()}

    def _generate_examples(self, chunks) -> Any:
        for chunk in chunks:
            yield chunk.number, chunk.example()

    def _log_download_bytes(self) -> None:
        """Says nothing: TFDS would announce a download on stdout."""

    def _log_download_done(self) -> None:
        """Says nothing."""

    def write(self, download_config: Any = None) -> list[Path]:
        """Generates the dataset and returns its files."""
        tfds.disable_progress_bar()
        self.download_and_prepare(
            download_dir=os.path.join(self._data_dir_root, "downloads"),
            download_config=download_config,
        )
        return sorted(path for path in Path(self.data_dir).rglob("*") if path.is_file())

    def written(self, split: str) -> int:
        """Chunks that TFDS says it wrote."""
        return self.info.splits[split].num_examples


def _bytes_feature(dtype: np.dtype) -> tfds.features.Tensor:
    return tfds.features.Tensor(
        shape=(None,), dtype=dtype.newbyteorder("="), encoding=tfds.features.Encoding.BYTES
    )
