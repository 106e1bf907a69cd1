import gzip
import io
import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from configs.errors import InputError
from data.sources import Problems, documents_of, open_source


def read(spec):
    return [(d.id, d.text) for d in documents_of(open_source(spec))]


@pytest.fixture
def memory():
    filesystem = MemoryFileSystem()
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["row"]}), table)
    files = {
        "/bucket/a.txt": b"a",
        "/bucket/deep/b.jsonl": b'{"text": "b"}\n',
        "/bucket/deep/c.jsonl.gz": gzip.compress(b'{"text": "c"}\n'),
        "/bucket/d.parquet": table.getvalue(),
        "/bucket/.hidden/e.txt": b"e",
        "/elsewhere/f.txt": b"f",
    }
    for path, data in files.items():
        filesystem.pipe(path, data)
    yield filesystem
    filesystem.rm("/", recursive=True)


def test_a_remote_folder_is_read_like_a_local_one(memory):
    assert read("memory://bucket") == [
        ("a.txt", "a"),
        ("d.parquet:1", "row"),
        ("deep/b.jsonl:1", "b"),
        ("deep/c.jsonl.gz:1", "c"),
    ]


def test_remote_globs_files_and_lists(memory):
    assert read("memory://bucket/deep/*.gz") == [("c.jsonl.gz:1", "c")]
    assert read("memory://bucket/**/*.jsonl") == [("deep/b.jsonl:1", "b")]
    assert read("memory://bucket/a.txt") == [("a.txt", "a")]
    both = read("memory://bucket/a.txt,memory://elsewhere")
    assert both == [("bucket/a.txt", "a"), ("elsewhere/f.txt", "f")]


def test_remote_and_local_files_mix_under_their_whole_names(memory, tmp_path):
    (tmp_path / "g.txt").write_text("g")
    assert read(f"memory://elsewhere,{tmp_path}") == [
        (f"file://{tmp_path}/g.txt", "g"),
        ("memory:///elsewhere/f.txt", "f"),
    ]


def test_a_file_url_is_the_local_path(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    assert read(f"file://{tmp_path}") == read(str(tmp_path)) == [("a.txt", "a")]


def test_remote_shards_are_read_from_their_pickles_and_named_by_url(memory):
    shards = open_source("memory://bucket").shards()
    assert shards[0].name == "memory:///bucket/a.txt"
    again = [pickle.loads(pickle.dumps(shard)) for shard in shards]
    texts = [d.text for shard in again for d in shard.documents(Problems())]
    assert texts == ["a", "row", "b", "c"]


def test_the_signature_of_remote_files_changes_with_them(memory):
    before = open_source("memory://bucket").signature()
    assert before is not None and before == open_source("memory://bucket").signature()
    memory.pipe("/bucket/a.txt", b"A")
    assert open_source("memory://bucket").signature() != before


def test_errors_name_the_url_and_line(memory):
    memory.pipe("/bucket/deep/b.jsonl", b'{"text": "b"}\n{')
    with pytest.raises(InputError, match=r"^source: got memory:///bucket/deep/b.jsonl:2 \(malf"):
        read("memory://bucket")
    with pytest.raises(InputError, match="^source: got 'memory://nothing'"):
        read("memory://nothing")


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("gs://bucket/text", "pip install gcsfs"),
        ("s3://bucket/*.jsonl.zst", "pip install s3fs"),
        ("http://127.0.0.1/x.txt", r"pip install 'fsspec\[http\]'"),
        ("nonsense://x", "a URL that fsspec can open"),
    ],
)
def test_a_protocol_that_is_missing_names_the_package(spec, expected, monkeypatch):
    # Whatever is installed here: `None` makes an import fail.
    for module in ("gcsfs", "s3fs", "fsspec.implementations.http"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(InputError, match=rf"^source: got '[^\n]*expected [^\n]*{expected}$"):
        open_source(spec)


def test_links_to_files_are_read_others_and_pipes_are_not(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "broken.txt").symlink_to(tmp_path / "nothing")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    assert read(str(folder)) == [("link.txt", "outside")]


def test_a_name_with_magic_characters_that_exists_is_itself(tmp_path):
    (tmp_path / "[draft]*.txt").write_text("draft")
    (tmp_path / "d.txt").write_text("other")
    assert read(f"{tmp_path}/[draft]*.txt") == [("[draft]*.txt", "draft")]


def test_relative_paths_are_those_of_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    assert read("a.txt") == read(".") == read("./a.*") == [("a.txt", "a")]


def test_a_name_that_is_not_unicode_has_an_id_that_is(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.txt")).write_text("text")
    assert read(str(tmp_path)) == [("caf\\xe9\\n.txt", "text")]
