import pickle

import pytest

from configs.errors import InputError
from data.sources import Problems, documents_of, open_source


def read(spec, **options):
    return [(d.id, d.data) for d in documents_of(open_source(str(spec), **options))]


def test_a_folder_is_its_files_sorted_without_hidden_ones(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("b.md", "a.py", "sub/c.txt", ".hidden", ".git/config"):
        (tmp_path / name).write_text(name)
    (tmp_path / "blank.txt").write_text(" \n")
    assert read(tmp_path) == [("a.py", b"a.py"), ("b.md", b"b.md"), ("sub/c.txt", b"sub/c.txt")]
    assert read(tmp_path) == read(tmp_path)


def test_globs_and_lists_of_paths(tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("a.md", "b.txt", "x/c.md", "x/.d.md"):
        (tmp_path / name).write_text(name)
    assert [name for name, _ in read(f"{tmp_path}/**/*.md")] == ["a.md", "x/c.md"]
    assert [name for name, _ in read(f"{tmp_path}/x/.*.md")] == [".d.md"]
    assert [name for name, _ in read(f"{tmp_path}/x,{tmp_path}/b.txt")] == ["b.txt", "x/c.md"]
    assert [name for name, _ in read(f"{tmp_path}/x,{tmp_path}/x/c.md")] == ["c.md"]


def test_ids_do_not_depend_on_where_the_folder_lies(tmp_path):
    for folder in ("a", "deep/b"):
        (tmp_path / folder / "x").mkdir(parents=True)
        (tmp_path / folder / "x" / "c.txt").write_text("text")
    assert read(tmp_path / "a") == read(tmp_path / "deep" / "b") == [("x/c.txt", b"text")]


def test_a_path_that_exists_wins_over_the_comma_in_it(tmp_path):
    (tmp_path / "a,b.txt").write_text("comma")
    assert read(tmp_path / "a,b.txt") == [("a,b.txt", b"comma")]


def test_text_is_read_exactly_line_ends_and_nul_included(tmp_path):
    text = "\ufeffa\r\nb\rc\u2028é\0\n".encode()
    (tmp_path / "a.txt").write_bytes(text)
    assert read(tmp_path) == [("a.txt", text)]


@pytest.mark.parametrize(
    "data, line",
    [
        (b"good\ngood\nbad \xff", 3),
        (b"x" * 2**20 + b"\n\nbad \xff", 3),
        (b"x\n" * 2**19 + b"\n" + b"\xc3", 2**19 + 2),
        # A character that the blocks' border cuts in two is fine, one that stays half is not.
        (b"x" * (2**20 - 1) + "é\n".encode() + b"\xc3", 2),
    ],
)
def test_a_file_that_is_not_utf8_is_named_with_the_line(tmp_path, data, line):
    path = tmp_path / "b.bin"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"source: got {path}:{line} (invalid UTF-8, ")
    assert "expected UTF-8 text" in str(caught.value) and "\n" not in str(caught.value)


def test_problems_can_be_counted_and_passed_over(tmp_path):
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "c.jsonl").write_text('{\n{"text": "good"}\n{"text": " "}\n{"text": "\\ud800"}\n')
    (tmp_path / "d.txt").write_text(" \n")
    problems = Problems(skip=True)
    documents = list(documents_of(open_source(str(tmp_path)), problems))
    assert [d.id for d in documents] == ["a.txt", "c.jsonl:2"]
    assert problems.skipped == {
        "invalid UTF-8": 1,
        "malformed JSON": 1,
        "unpaired surrogate": 1,
        "blank": 2,
    }


def test_blank_documents_are_counted_without_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("\n \t")
    problems = Problems()
    assert list(documents_of(open_source(str(tmp_path)), problems)) == []
    assert problems.skipped == {"blank": 2}


def test_every_shard_is_read_from_its_pickle_like_itself(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.jsonl").write_text('{"text": "line"}')
    shards = open_source(str(tmp_path)).shards()
    assert [shard.name for shard in shards] == [f"{tmp_path}/a.txt", f"{tmp_path}/b.jsonl"]
    for shard in shards:
        again = pickle.loads(pickle.dumps(shard))
        assert list(again.documents(Problems())) == list(shard.documents(Problems())) != []


def test_the_signature_changes_with_the_text_alone(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    before = open_source(str(tmp_path)).signature()
    assert before == open_source(str(tmp_path)).signature()
    (tmp_path / "a.txt").write_text("longer")
    after = open_source(str(tmp_path)).signature()
    (tmp_path / "b.txt").write_text("more")
    assert len({before, after, open_source(str(tmp_path)).signature()}) == 3


def test_the_size_counts_compressed_files_as_more(tmp_path):
    for name, size in (("a.txt", 10), ("b.jsonl.gz", 100), ("c.parquet", 1000)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert open_source(str(tmp_path)).size_bytes() == 10 + 4 * 100 + 3 * 1000


def test_the_card_names_the_spec_and_nothing_is_pinned(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    source = open_source(str(tmp_path))
    assert source.describe() == {"kind": "text_files", "spec": str(tmp_path)}
    assert source.pinned_held_out is None


@pytest.mark.parametrize("spec", ["", "no/such/file", "no/such/*.txt", ",", "a\0b"])
def test_a_path_that_is_not_there_names_the_source(spec):
    with pytest.raises(InputError, match="^source: got"):
        open_source(spec)


def test_an_empty_folder_and_a_path_below_a_file_name_the_source(tmp_path):
    with pytest.raises(InputError, match="^source: got .* expected .*existing files"):
        open_source(str(tmp_path))
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError, match="^source: got"):
        open_source(str(tmp_path / "a.txt" / "below"))


def test_a_file_that_went_away_names_the_source(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.jsonl").write_text("{}")
    source = open_source(str(tmp_path))
    for path in tmp_path.iterdir():
        path.unlink()
    for shard in source.shards():
        with pytest.raises(InputError, match=r"^source: got .*No such file.*expected a readable"):
            list(shard.documents(Problems(skip=True)))
