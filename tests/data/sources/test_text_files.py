import json

import pytest

from configs.errors import InputError
from data.sources import open_source


def _write(folder, count):
    folder.mkdir(exist_ok=True)
    for i in range(count):
        (folder / f"{i:03}.txt").write_text(f"text number {i}\n")
    return folder


def _split(source):
    documents = list(source.documents())
    held_out = {d.id for d in documents if source.is_held_out(d.id)}
    return documents, held_out


def test_a_folder_is_its_files_sorted_without_hidden_ones(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("b.md", "a.py", "sub/c.txt", ".hidden", ".git/config"):
        (tmp_path / name).write_text(name)
    (tmp_path / "blank.txt").write_text(" \n")
    documents = list(open_source(str(tmp_path)).documents())
    assert [(d.id, d.text) for d in documents] == [
        ("a.py", "a.py"),
        ("b.md", "b.md"),
        ("sub/c.txt", "sub/c.txt"),
    ]


def test_globs_and_lists_of_paths(tmp_path):
    (tmp_path / "x").mkdir()
    for name in ("a.md", "b.txt", "x/c.md"):
        (tmp_path / name).write_text(name)
    glob = list(open_source(f"{tmp_path}/**/*.md").documents())
    assert [d.id for d in glob] == ["a.md", "x/c.md"]
    listed = list(open_source(f"{tmp_path}/x,{tmp_path}/b.txt").documents())
    assert [d.id for d in listed] == ["b.txt", "x/c.md"]


def test_text_is_read_exactly_line_ends_included(tmp_path):
    (tmp_path / "a.txt").write_bytes("a\r\nb\rc\u2028é\n".encode())
    (tmp_path / "b.txt").write_text("b")
    assert next(open_source(str(tmp_path)).documents()).text == "a\r\nb\rc\u2028é\n"


def test_jsonl_lines_are_documents(tmp_path):
    path = tmp_path / "d.jsonl"
    lines = [json.dumps({"text": f"line {i}\u2028x", "n": i}, ensure_ascii=False) for i in range(3)]
    path.write_text("\n\n".join(lines) + "\n")
    documents = list(open_source(str(path)).documents())
    assert [d.id for d in documents] == ["d.jsonl:1", "d.jsonl:3", "d.jsonl:5"]
    assert documents[1].text == "line 1\u2028x"


@pytest.mark.parametrize(
    "line", ["{", "[1]", '"text"', "{}", '{"text": 3}', '{"text": "\\ud800"}', "NaN"]
)
def test_a_malformed_jsonl_line_names_file_and_line(tmp_path, line):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "good"}\n{"text": "good"}\n' + line + "\n")
    with pytest.raises(InputError, match=r"^source: got [^\n]*d\.jsonl:3[^\n]*expected [^\n]*$"):
        list(open_source(str(path)).documents())


def test_about_a_twentieth_is_held_out_and_growing_the_source_moves_nothing(tmp_path):
    documents, held_out = _split(open_source(str(_write(tmp_path / "t", 600))))
    assert 0.03 < len(held_out) / len(documents) < 0.07
    _, more_held_out = _split(open_source(str(_write(tmp_path / "t", 900))))
    before = {d.id for d in documents}
    assert more_held_out & before == held_out


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_small_sources_hold_out_at_least_one_and_train_on_at_least_one(tmp_path, count):
    documents, held_out = _split(open_source(str(_write(tmp_path / "t", count))))
    assert 1 <= len(held_out) < len(documents) == count


def test_the_split_does_not_depend_on_where_the_folder_lies(tmp_path):
    (tmp_path / "deep").mkdir()
    here, there = _write(tmp_path / "t", 100), _write(tmp_path / "deep" / "u", 100)
    assert _split(open_source(str(here)))[1] == _split(open_source(str(there)))[1]


def test_a_single_document_holds_out_its_last_lines(tmp_path):
    path = tmp_path / "book.txt"
    text = "".join(f"line {i}\n" for i in range(100))
    path.write_text(text)
    source = open_source(str(path))
    documents, held_out = _split(source)
    assert held_out == {"book.txt#held-out"}
    assert documents[1].text == "".join(f"line {i}\n" for i in range(95, 100))
    assert documents[0].text + documents[1].text == text
    assert "last 5%" in source.describe()["held_out"]


def test_a_single_line_holds_out_its_last_characters(tmp_path):
    path = tmp_path / "line.txt"
    path.write_text("x" * 200)
    assert [len(d.text) for d in open_source(str(path)).documents()] == [190, 10]


@pytest.mark.parametrize("spec", ["", "no/such/file", "no/such/*.txt", ","])
def test_a_path_that_is_not_there_names_the_source(spec):
    with pytest.raises(InputError, match="^source: got"):
        open_source(spec)


def test_empty_and_binary_files_name_the_source(tmp_path):
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(InputError, match="^source: got .*some text"):
        list(open_source(str(tmp_path)).documents())
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"^source: got [^\n]*b\.bin[^\n]*UTF-8[^\n]*$"):
        list(open_source(str(tmp_path)).documents())
    with pytest.raises(InputError, match="^source: got"):
        open_source(str(tmp_path / "a.txt" / "below"))
