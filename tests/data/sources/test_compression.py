import gzip
import json

import pytest
import zstandard

from configs.errors import InputError
from data.sources import Problems, documents_of, open_source

LINES = "".join(json.dumps({"text": f"line {i} " + "é" * (i % 97)}) + "\n" for i in range(30_000))


def compress(suffix, data, level=3):
    if suffix == ".gz":
        return gzip.compress(data, level)
    return zstandard.ZstdCompressor(level=level).compress(data)


def read(path, problems=None):
    return [(d.id, d.text) for d in documents_of(open_source(str(path)), problems)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_is_read_like_the_file(tmp_path, suffix):
    (tmp_path / "lines.jsonl").write_text(LINES)
    (tmp_path / f"lines.jsonl{suffix}").write_bytes(compress(suffix, LINES.encode()))
    (tmp_path / f"book.txt{suffix}").write_bytes(compress(suffix, LINES.encode()))
    plain = [text for _, text in read(tmp_path / "lines.jsonl")]
    names, texts = zip(*read(tmp_path / f"lines.jsonl{suffix}"), strict=True)
    assert list(texts) == plain and names[-1] == f"lines.jsonl{suffix}:30000"
    assert read(tmp_path / f"book.txt{suffix}") == [(f"book.txt{suffix}", LINES)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_frames_one_after_another_are_all_read(tmp_path, suffix):
    frames = [compress(suffix, f'{{"text": "{i}"}}\n'.encode()) for i in range(500)]
    frames.insert(7, compress(suffix, b""))
    (tmp_path / f"a.jsonl{suffix}").write_bytes(b"".join(frames))
    assert [text for _, text in read(tmp_path)] == [str(i) for i in range(500)]


def test_a_frame_of_a_long_window_is_read(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    writer = compressor.compressobj()  # does not write the size, so the window is what counts
    (tmp_path / "a.txt.zst").write_bytes(writer.compress(b"text" * 1000) + writer.flush())
    assert read(tmp_path) == [("a.txt.zst", "text" * 1000)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_that_is_empty_is_blank(tmp_path, suffix):
    (tmp_path / f"a.txt{suffix}").write_bytes(b"")
    (tmp_path / f"b.txt{suffix}").write_bytes(compress(suffix, b""))
    problems = Problems()
    assert read(tmp_path, problems) == [] and problems.skipped == {"blank": 2}


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "cut at the end", "changed", "not compressed"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_damage_is_an_error_even_where_problems_are_passed_over(tmp_path, suffix, damage, name):
    data = bytearray(compress(suffix, LINES.encode()))
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "cut at the end":
        data = data[:-1]
    elif damage == "changed":
        data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
    else:
        data = LINES.encode()
    path = tmp_path / (name + suffix)
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(path, Problems(skip=True))
    message = str(caught.value)
    assert message.startswith(f"source: got {path}{':' if name == 'a.jsonl' else ' ('}")
    assert "damaged" in message and ", expected " in message and "\n" not in message


def test_damage_in_json_lines_is_named_with_the_line_reached(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    frames = compress(".zst", b'{"text": "a"}\n{"text": "b"}\n') + compress(".zst", b"{}")[:-2]
    path.write_bytes(frames)
    with pytest.raises(InputError, match=r"a.jsonl.zst:3 \(damaged zstd data: it ends inside"):
        read(path)
