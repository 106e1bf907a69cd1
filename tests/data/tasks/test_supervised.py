"""The tasks from the standard library: records of both parts, the same every time."""

import pytest

from configs.errors import InputError
from data.labelled import checked, labels_of
from data.sources.stdlib import StdlibSource
from data.sources.text_source import Document
from data.tasks.docstrings import PROMPT_END, docstring_prompts, docstring_records
from data.tasks.module_classes import (
    MAX_CHARACTERS,
    MIN_CHARACTERS,
    module_class_records,
)
from data.tasks.supervised import SUPERVISED_TASKS, spread, supervised_task, task_records


class Small(StdlibSource):
    """Every thirtieth file, one of each package, and all that are held out."""

    @property
    def _ids(self):
        names = StdlibSource()._ids
        pinned = self.pinned_held_out or frozenset()
        last = {name.split("/")[0]: name for name in names if "/" in name and name not in pinned}
        kept = {*last.values()} | pinned
        return [name for i, name in enumerate(names) if i % 30 == 0 or name in kept]


@pytest.fixture(scope="module")
def small():
    return Small()


@pytest.mark.parametrize("name", SUPERVISED_TASKS)
def test_a_tasks_records_are_of_its_kind_and_none_is_in_both_parts(small, name):
    task = supervised_task(name)
    train, held_out = task_records(task, small)
    assert 50 < len(train) <= task.max_train and 100 < len(held_out) <= task.max_held_out
    for number, record in enumerate([*train, *held_out]):
        checked(record, task.kind, f"{name}:{number}")
    shared = {str(record) for record in train} & {str(record) for record in held_out}
    assert len(shared) < 0.02 * len(held_out)  # a licence's lines, a trivial method
    if task.kind in ("classification", "token_classification"):
        assert set(labels_of(held_out, task.kind)) <= set(labels_of(train, task.kind))


def test_snippets_are_of_the_subjects_modules():
    text = "x = 1  # some text of a line\n" * 40
    documents = [Document("tkinter/a.py", text.encode()), Document("json/a.py", text.encode())]
    records = list(module_class_records(documents))
    assert records and {record["label"] for record in records} == {"windows"}
    assert all(MIN_CHARACTERS <= len(record["text"]) <= MAX_CHARACTERS for record in records)


METHOD = b'''class Reader:
    def close(self):
        """Close the file.

        Twice is no error.
        """
        self._file.close()
'''


def test_a_docstrings_first_line_is_what_the_source_without_it_becomes():
    expected = {"input": "def close(self):\n    self._file.close()\n", "target": "Close the file."}
    assert list(docstring_records([Document("a.py", METHOD)])) == [expected]
    [prompt] = docstring_prompts([Document("a.py", METHOD)])
    assert prompt == {"input": expected["input"] + PROMPT_END, "target": " Close the file."}


def test_functions_without_a_body_or_a_summary_are_left_out():
    source = b'''def a():
    """Only documented, nothing else."""
def b():
    """Short"""
    pass
def c(): "Stands on one line with it."; return 1
'''
    assert list(docstring_records([Document("a.py", source)])) == []


def test_records_are_thinned_evenly():
    records = [{"text": str(number)} for number in range(5)]
    assert [record["text"] for record in spread(records, 2)] == ["0", "2"]
    assert spread(records, 9) == records


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"task: got 'docstring', .* docstrings"):
        supervised_task("docstring")
