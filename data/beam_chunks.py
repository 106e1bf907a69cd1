"""Chunks made anywhere and in any order, from the files of encoded buckets, and written by Beam.

`cut_chunks` goes through a stream from its start. Here a chunk is made of the byte ranges of the
buckets that it covers, so that each bucket's chunks can be made by another worker. Buckets hold
whole documents, so what a chunk says of its first document stands in the bucket where it begins.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from data.beam_runner import BeamRunner
from data.token_chunks import CHUNK_TOKENS, START_DTYPE, Chunk, TokenChunks, num_chunks


class BucketFiles(NamedTuple):
    """Where the stream of a split lies.

    Attributes:
        paths: of each bucket's tokens, whole documents one after another; their lengths stand
            beside them (encode.py).
        first_tokens: int64 [buckets + 1], tokens of the stream before each bucket; last, of all.
        first_documents: int64 [buckets + 1], the same of documents.
        dtype: of the token ids.
    """

    paths: tuple[Path, ...]
    first_tokens: np.ndarray
    first_documents: np.ndarray
    dtype: np.dtype


def bucket_files(buckets: Sequence[tuple[Path, int, int]], dtype: np.dtype) -> BucketFiles:
    """The files of one split's buckets from (tokens' path, tokens, documents) of each, in order."""
    counts = np.array([(0, 0), *((tokens, documents) for _, tokens, documents in buckets)])
    first_tokens, first_documents = np.cumsum(counts, axis=0, dtype=np.int64).T
    return BucketFiles(tuple(path for path, _, _ in buckets), first_tokens, first_documents, dtype)


def chunks_from(files: BucketFiles, bucket: int) -> Iterator[Chunk]:
    """The chunks whose first token lies in a bucket; the last may reach into later buckets.

    Example, with chunks of 4 and buckets of 6, 2 and 3 tokens: the first gives chunks 0 and 1
    (tokens 0 to 7), the second none, the third chunk 2 (tokens 8 to 10).
    """
    first, past = files.first_tokens[bucket : bucket + 2].tolist()
    total = int(files.first_tokens[-1])
    numbers = range(num_chunks(first), num_chunks(past))
    if not numbers:
        return
    reached = int(np.searchsorted(files.first_tokens, min(numbers.stop * CHUNK_TOKENS, total)))
    starts = np.concatenate([_document_starts(files, b) for b in range(bucket, reached)])
    for number in numbers:
        begin, end = number * CHUNK_TOKENS, min((number + 1) * CHUNK_TOKENS, total)
        before, inside = np.searchsorted(starts, (begin, end)).tolist()
        document = int(np.searchsorted(starts, begin, side="right")) - 1
        yield Chunk(
            number,
            _read_tokens(files, begin, end),
            (starts[before:inside] - begin).astype(START_DTYPE),
            begin - int(starts[document]),
            int(files.first_documents[bucket]) + before,
        )


class BeamTokenChunks(TokenChunks, skip_registration=True):
    """`TokenChunks` that Beam's workers make and write."""

    name = TokenChunks.name

    def __init__(
        self,
        streams: Mapping[str, BucketFiles],
        *,
        dtype: np.dtype,
        data_dir: str | os.PathLike,
        runner: BeamRunner,
    ):
        """Args:
        streams: split -> its files.
        dtype: of the token ids.
        data_dir: folder to write `token_chunks/2.0.0` into, under one path on every worker.
        runner: makes and writes them.
        """
        self._streams, self._runner = streams, runner
        super().__init__({}, dtype=dtype, data_dir=data_dir)

    def write(self, download_config: Any = None) -> list[Path]:
        """Generates the dataset with Beam and returns its files."""
        assert download_config is None, "the runner decides"
        return super().write(
            tfds.download.DownloadConfig(
                beam_runner=self._runner.name, beam_options=self._runner.options()
            )
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(files) for split, files in self._streams.items()}

    def _generate_examples(self, chunks: BucketFiles) -> Any:
        import apache_beam as beam

        # Without the shuffle, runners would keep all buckets on the worker that made their list.
        return (
            beam.Create(range(len(chunks.paths)))
            | "Spread" >> beam.Reshuffle()
            | "MakeChunks" >> beam.FlatMap(_examples, chunks)
        )


def _examples(bucket: int, files: BucketFiles) -> Iterator[tuple[int, dict[str, Any]]]:
    for chunk in chunks_from(files, bucket):
        yield chunk.number, chunk.example()


def _document_starts(files: BucketFiles, bucket: int) -> np.ndarray:
    """Offsets in the stream where the documents of a bucket start, int64."""
    lengths = np.load(files.paths[bucket].with_suffix(".lengths.npy"))
    return files.first_tokens[bucket] + np.cumsum(lengths) - lengths


def _read_tokens(files: BucketFiles, begin: int, end: int) -> np.ndarray:
    """Tokens `begin` to `end` - 1 of the stream."""
    bucket = int(np.searchsorted(files.first_tokens, begin, side="right")) - 1
    pieces = []
    while begin < end:
        first, past = files.first_tokens[bucket : bucket + 2].tolist()
        offset, count = (begin - first) * files.dtype.itemsize, min(end, past) - begin
        if count:
            pieces.append(np.fromfile(files.paths[bucket], files.dtype, count, offset=offset))
            assert len(pieces[-1]) == count, f"{files.paths[bucket]} is shorter than its documents"
        begin, bucket = begin + count, bucket + 1
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
