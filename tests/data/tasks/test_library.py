"""Tasks of the library: examples of held-out files alone, with answers that the source gives."""

import ast

import pytest

from data.sources.stdlib import StdlibSource
from data.tasks import library
from data.tasks.builders import BUILDERS, build_records

NAMES = ["module_of_docstring", "docstring_of_name", "imported_name", "closing_bracket"]


def test_only_held_out_files_are_read():
    source = StdlibSource()
    held_out = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in source.pinned_held_out
    }
    files = library.held_out_files()
    assert {file.module for file in files} <= held_out
    assert len(files) > 20


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_make_equal_examples_each_with_its_answer_among_the_choices(name):
    records = build_records(name, {"seed": 1, "count": 60})
    assert records == BUILDERS[name](seed=1, count=60) != BUILDERS[name](seed=2, count=60)
    assert len(records) == 60
    for record in records:
        assert record["choices"].count(record["target"]) == 1
        assert 3 <= len(set(record["choices"])) == len(record["choices"]) <= 4


def test_docstrings_belong_to_the_module_and_the_name_that_are_the_answers():
    sources = {file.module: file.text for file in library.held_out_files()}
    for record in library.module_of_docstring(count=50):
        holding = [module for module, text in sources.items() if record["input"] in text]
        assert record["target"] in holding
    everything = "\n".join(sources.values())
    for record in library.docstring_of_name(count=50):
        assert f" {record['input']}" in everything and record["target"] in everything


def test_wrong_imports_are_of_no_file():
    imported = set()
    for file in library.held_out_files():
        for node in ast.walk(ast.parse(file.text)):
            if isinstance(node, ast.ImportFrom):
                imported.update((f"from {node.module} import", alias.name) for alias in node.names)
    for record in library.imported_name(count=100):
        right = [choice for choice in record["choices"] if (record["input"], choice) in imported]
        assert right == [record["target"]]


def test_just_one_choice_of_brackets_closes_the_line():
    pairs = {")": "(", "]": "[", "}": "{"}

    def is_closed(line: str) -> bool:
        opened = []
        for character in line:
            if character in "([{":
                opened.append(character)
            elif character in pairs and (not opened or opened.pop() != pairs[character]):
                return False
        return not opened

    records = library.closing_bracket(count=200)
    for record in records:
        closing = [choice for choice in record["choices"] if is_closed(record["input"] + choice)]
        assert closing == [record["target"]]
    shares = [sum(r["target"] == kind for r in records) / len(records) for kind in (")", "]", "}")]
    assert max(shares) < 0.5 and min(shares) > 0.1  # always answering ")" is not worth much
