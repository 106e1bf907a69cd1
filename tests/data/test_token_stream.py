"""Token chunks on disk, and random access to the tokens, documents and places in them."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import InputError
from data.corpus import open_corpus
from data.token_chunks import (
    CHUNK_TOKENS,
    Chunk,
    TokenChunks,
    cut_chunks,
    num_chunks,
    parse_chunk,
    token_dtype,
)
from data.token_stream import TokenStream
from tests.data.conftest import build_stream


def stream_of(lengths, folder, dtype="<u2", parts=3):
    """A stream on disk of documents of these lengths, cut from several parts."""
    tokens = np.arange(sum(lengths)).astype(dtype)
    bounds = [len(lengths) * i // parts for i in range(parts + 1)]
    ends = np.cumsum([0, *lengths])
    chunks = cut_chunks(
        (tokens[ends[a] : ends[b]], np.array(lengths[a:b], np.int64))
        for a, b in zip(bounds, bounds[1:], strict=False)
    )
    files = TokenChunks({"train": chunks}, dtype=np.dtype(dtype), data_dir=folder).write()
    paths = [path for path in files if "array_record" in path.name]
    return TokenStream(
        paths, num_tokens=sum(lengths), num_documents=len(lengths), dtype=np.dtype(dtype)
    )


LENGTHS = [3, 20_000, 2, 2, 8192 - 7, 5, *[997] * 30, 40_000, 11]


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """The same stream on disk and in memory."""
    return stream_of(LENGTHS, tmp_path_factory.mktemp("stream"), "<u4"), build_stream(LENGTHS)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 3 * sum(LENGTHS)), st.integers(0, 2 * sum(LENGTHS)))
def test_starts_and_offsets_agree_with_a_plain_array(streams, start, length):
    disk, memory = streams
    np.testing.assert_array_equal(
        disk.document_starts(start, start + length), memory.document_starts(start, start + length)
    )
    assert disk.document_offset(start) == memory.document_offset(start)
    tokens, starts = disk.read(start, min(length, 30_000))
    expected_tokens, expected_starts = memory.read(start, min(length, 30_000))
    np.testing.assert_array_equal(tokens, expected_tokens)
    np.testing.assert_array_equal(starts, expected_starts)


def test_every_document_is_found_by_its_number(streams):
    disk, memory = streams
    for number in range(len(LENGTHS)):
        assert disk.document_start(number) == memory.document_start(number)


def test_every_chunk_of_a_sound_stream_passes_the_check(streams):
    disk, _ = streams
    assert list(disk.check()) == list(range(num_chunks(sum(LENGTHS))))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(2, 20_000), min_size=1, max_size=40), st.data())
def test_chunks_do_not_depend_on_the_parts_they_are_cut_from(lengths, data):
    tokens = (np.arange(sum(lengths)) % 65_521).astype("<u2")
    ends = np.cumsum([0, *lengths])
    inner = data.draw(st.lists(st.integers(0, len(lengths)), max_size=5))
    bounds = sorted([0, len(lengths), *inner])

    def cut(bounds):
        return list(
            cut_chunks(
                (tokens[ends[a] : ends[b]], np.array(lengths[a:b], np.int64))
                for a, b in zip(bounds, bounds[1:], strict=False)
            )
        )

    one, several = cut([0, len(lengths)]), cut(bounds)
    assert [chunk.crc for chunk in one] == [chunk.crc for chunk in several]
    assert [len(chunk.tokens) for chunk in one[:-1]] == [CHUNK_TOKENS] * (len(one) - 1)
    np.testing.assert_array_equal(np.concatenate([chunk.tokens for chunk in one]), tokens)
    stream = build_stream(lengths)
    for chunk in one:
        begin = chunk.number * CHUNK_TOKENS
        assert chunk.document_offset == stream.document_offset(begin)
        starts = stream.document_starts(begin, begin + len(chunk.tokens)) - begin
        np.testing.assert_array_equal(chunk.starts, starts)
        assert chunk.documents_before == len(stream.document_starts(0, begin))


def test_reading_is_circular_and_agrees_with_one_long_read(corpus):
    stream = corpus.stream("train")
    size = stream.num_tokens
    tokens, starts = stream.read(0, size)
    rng = np.random.default_rng(0)
    for start, length in [
        (size - 3, 9),
        (0, 2 * size + 5),
        (CHUNK_TOKENS - 1, 2),
        (7 * size + 4, 3),
        (5, 0),
        *rng.integers(0, size, (50, 2)).tolist(),
    ]:
        index = (start + np.arange(length)) % size
        got_tokens, got_starts = stream.read(start, length)
        np.testing.assert_array_equal(got_tokens, tokens[index])
        np.testing.assert_array_equal(got_starts, starts[index])
        assert got_tokens.dtype == np.int32 and got_starts.dtype == bool


def test_threads_read_the_same_tokens(corpus):
    expected, _ = corpus.stream("train").read(0, corpus.stream("train").num_tokens)
    stream = open_corpus(corpus.path).stream("train")

    def agrees(start):
        return bool((stream.read(start, 50)[0] == expected[start : start + 50]).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(agrees, range(0, len(expected) - 50, 31)))


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(256, "u1"), (257, "<u2"), (65_536, "<u2"), (65_537, "<u4")]
)
def test_tokens_are_stored_in_the_smallest_type(tmp_path, vocab_size, dtype):
    assert token_dtype(vocab_size) == np.dtype(dtype)
    stream = stream_of([1, 8190, 1, 11_807, 1], tmp_path, dtype)
    tokens, starts = stream.read(0, 20_000)
    np.testing.assert_array_equal(tokens, np.arange(20_000).astype(dtype))
    assert np.flatnonzero(starts).tolist() == [0, 1, 8191, 8192, 19_999]


def test_flipped_bits_after_opening_never_change_a_token_that_is_read(corpus, tmp_path):
    """Each chunk is read under its own checks, so damage that comes later is an error too."""
    copy = shutil.copytree(corpus.path, tmp_path / "copy")
    size, documents = corpus.stream("train").num_tokens, corpus.splits["train"].documents
    expected, _ = corpus.stream("train").read(0, size)
    path = next((copy / "token_chunks").rglob("*-train.array_record*"))
    contents, found = bytearray(path.read_bytes()), 0
    for position in range(0, len(contents), len(contents) // 60):
        contents[position] ^= 0x10
        path.write_bytes(contents)
        try:
            stream = TokenStream(
                [path], num_tokens=size, num_documents=documents, dtype=token_dtype(600)
            )
            np.testing.assert_array_equal(stream.read(0, size)[0], expected)
        except InputError as error:
            assert "data.corpus" in str(error) and "\n" not in str(error)
            found += 1
        contents[position] ^= 0x10
    assert found > 0


def test_a_chunk_out_of_place_or_with_anything_changed_fails_its_crc():
    from tensorflow_datasets.proto import tf_example_pb2

    chunk = Chunk(2, np.arange(9, dtype="<u2"), np.array([0, 4], "<u2"), 0, 17)

    def record(chunk, crc):
        example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
        for name, value in (("tokens", chunk.tokens), ("document_starts", chunk.starts)):
            example.features.feature[name].bytes_list.value.append(value.tobytes())
        for name in ("document_offset", "documents_before"):
            example.features.feature[name].int64_list.value.append(getattr(chunk, name))
        example.features.feature["crc"].int64_list.value.append(crc)
        return example.SerializeToString()

    good = parse_chunk(record(chunk, chunk.crc), number=2, dtype=chunk.tokens.dtype)
    np.testing.assert_array_equal(good.tokens, chunk.tokens)
    assert good.starts.tolist() == [0, 4] and good.documents_before == 17
    for bad, number in [
        (record(chunk, chunk.crc), 3),
        (record(chunk._replace(tokens=chunk.tokens ^ 1), chunk.crc), 2),
        (record(chunk._replace(starts=chunk.starts + np.uint16(1)), chunk.crc), 2),
        (record(chunk._replace(document_offset=1), chunk.crc), 2),
        (record(chunk._replace(documents_before=18), chunk.crc), 2),
        (b"not a record", 2),
        (b"", 2),
    ]:
        with pytest.raises(InputError, match="^data.corpus: got .* chunk"):
            parse_chunk(bad, number=number, dtype=chunk.tokens.dtype)
