"""Entities of Python source, by hand."""

from data.sources.text_source import Document
from data.tasks.token_classes import MAX_CHARACTERS, entities, token_class_records

SOURCE = """\
import os.path as p, sys
from ..a import b

class Reader(Base):
    size = len("é")

    def read(self, path, *, count=sys.maxsize):
        size = path; text = p.join(path, size)
        return [int(part) for part in text if size and count]

def helper(): return Reader
"""


def found(source):
    return [(source[e.start : e.end], e.label) for e in entities(source)]


def test_names_are_what_their_scopes_say():
    assert found(SOURCE) == [
        ("os.path", "MODULE"),
        ("p", "MODULE"),
        ("sys", "MODULE"),
        ("a", "MODULE"),
        ("Reader", "CLASS"),
        ("len", "FUNCTION"),
        ("read", "FUNCTION"),
        ("path", "PARAMETER"),
        ("count", "PARAMETER"),
        ("sys", "MODULE"),
        ("size", "VARIABLE"),
        ("path", "PARAMETER"),
        ("text", "VARIABLE"),
        ("p", "MODULE"),
        ("path", "PARAMETER"),
        ("size", "VARIABLE"),
        ("int", "CLASS"),
        ("part", "VARIABLE"),
        ("part", "VARIABLE"),
        ("text", "VARIABLE"),
        ("size", "VARIABLE"),
        ("count", "PARAMETER"),
        ("helper", "FUNCTION"),
        ("Reader", "CLASS"),
    ]


def test_a_method_does_not_see_the_names_of_its_class():
    source = "class A:\n    def get(self): return get\n    x = get\n"
    assert found(source) == [("A", "CLASS"), ("get", "FUNCTION"), ("get", "FUNCTION")]


def test_a_parameter_hides_a_builtin_and_columns_beyond_ascii_are_characters():
    source = "def f(len): return 'né', len\n"
    assert found(source) == [("f", "FUNCTION"), ("len", "PARAMETER"), ("len", "PARAMETER")]


def test_snippets_are_short_whole_lines_and_their_spans_the_names():
    text = SOURCE * 8
    records = list(token_class_records([Document("a.py", text.encode())]))
    assert len(records) > 5
    for record in records:
        assert 0 < len(record["text"]) <= MAX_CHARACTERS and record["text"] in text
        names = [record["text"][s["start"] : s["end"]] for s in record["spans"]]
        assert names and all(name.replace(".", "").isidentifier() for name in names)


def test_files_that_are_no_python_are_passed_over():
    assert list(token_class_records([Document("a.py", b"print 1"), Document("b.py", b"x\0")])) == []
