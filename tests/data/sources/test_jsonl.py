import json

import pytest

from configs.errors import InputError
from data.sources import Problems, documents_of, open_source


def read(path, problems=None, **options):
    source = open_source(str(path), **options)
    return [(d.id, d.text) for d in documents_of(source, problems)]


@pytest.mark.parametrize("name", ["d.jsonl", "d.ndjson", "d.JSONL"])
def test_lines_are_documents_and_empty_lines_are_not(tmp_path, name):
    lines = [json.dumps({"text": f"line {i}", "n": i}) for i in range(3)]
    (tmp_path / name).write_text("\n\n".join(lines) + "\n")
    assert read(tmp_path) == [(f"{name}:{2 * i + 1}", f"line {i}") for i in range(3)]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\\n", "\\u0000", "\x7f"])
def test_only_a_newline_ends_a_record(tmp_path, separator):
    (tmp_path / "d.jsonl").write_text(f'{{"text": "a{separator}b"}}\n{{"text": "c"}}', "utf-8")
    text = json.loads(f'"a{separator}b"')
    assert read(tmp_path) == [("d.jsonl:1", text), ("d.jsonl:2", "c")]


def test_a_byte_order_mark_and_crlf_are_no_text(tmp_path):
    (tmp_path / "d.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}\r\n')
    assert read(tmp_path) == [("d.jsonl:1", "a"), ("d.jsonl:3", "b")]


@pytest.mark.parametrize("filler", ["x", "é\u2028", "\U0001f600"])
def test_a_line_longer_than_the_blocks_that_are_read_is_one_document(tmp_path, filler):
    text = filler * 1_000_000
    lines = [json.dumps({"text": t}, ensure_ascii=False) for t in ("first", text, "last")]
    (tmp_path / "d.jsonl").write_text("\n".join(lines), "utf-8")
    assert read(tmp_path) == [("d.jsonl:1", "first"), ("d.jsonl:2", text), ("d.jsonl:3", "last")]


def test_the_text_may_be_in_another_field_or_a_nested_one(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "a", "meta": {"body": "b"}, "x.y": "c"}')
    assert read(tmp_path, text_field="meta.body") == [("d.jsonl:1", "b")]
    assert read(tmp_path, text_field="x.y") == [("d.jsonl:1", "c")]
    with pytest.raises(InputError, match=r"d.jsonl:1 \(no text in the field 'text.more'"):
        read(tmp_path, text_field="text.more")


PROBLEMS = [
    (b"{", "malformed JSON"),
    (b"[1]", "malformed JSON"),
    (b'"text"', "malformed JSON"),
    (b"NaN", "malformed JSON"),
    (b'{"text": "a"} {"text": "b"}', "malformed JSON"),
    (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "malformed JSON"),
    (b"[" * 100_000, "malformed JSON"),
    (b"{}", "missing text field"),
    (b'{"text": null}', "missing text field"),
    (b'{"body": "a"}', "missing text field"),
    (b'{"text": 3}', "text field is not a string"),
    (b'{"text": ["a"]}', "text field is not a string"),
    (b'{"text": "\\ud800"}', "unpaired surrogate"),
    (b'{"text": "\\udc00\\ud800"}', "unpaired surrogate"),
    (b'{"text": "\xff"}', "invalid UTF-8"),
]


@pytest.mark.parametrize("line, reason", PROBLEMS)
def test_a_line_that_is_no_document_is_named_or_passed_over(tmp_path, line, reason):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"text": "good"}\n{"text": "good"}\n' + line + b'\n{"text": "last"}')
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"source: got {path}:3 (")
    assert ", expected " in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    problems = Problems(skip=True)
    assert [name for name, _ in read(path, problems)] == ["d.jsonl:1", "d.jsonl:2", "d.jsonl:4"]
    assert problems.skipped == {reason: 1}


def test_an_error_says_which_fields_there_are(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"body": "a", "url\\n": "b"}')
    with pytest.raises(InputError, match=r"it has 'body', 'url\\n'\), expected a string"):
        read(tmp_path)


def test_a_pair_of_surrogates_is_a_character(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "\\ud83d\\ude00"}')
    assert read(tmp_path) == [("d.jsonl:1", "\U0001f600")]
