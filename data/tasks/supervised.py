"""Tasks to adapt a model to that need no download: labelled records out of the standard library.

As with pretraining's corpus, records for training are from its train files and records to judge by
from its held-out ones. The same Python gives the same records.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import require
from configs.serialize import did_you_mean
from data.labelled import Kind
from data.sources.stdlib import StdlibSource
from data.sources.text_source import Document, documents_of
from data.tasks.docstrings import docstring_prompts, docstring_records
from data.tasks.module_classes import module_class_records
from data.tasks.token_classes import token_class_records

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SupervisedTask:
    """A task's records, and how many of them are used: evenly spread over the files where there
    are more.

    records: documents -> records, in their order.
    """

    kind: Kind
    about: str
    records: Callable[[Iterable[Document]], Iterator[Record]]
    max_train: int = 6000
    max_held_out: int = 1000


SUPERVISED_TASKS = {
    "token_classes": SupervisedTask(
        kind="token_classification",
        about="what the names in a few lines of source are: module, class, parameter, ...",
        records=token_class_records,
    ),
    "module_classes": SupervisedTask(
        kind="classification",
        about="which part of the library a few lines of source are from",
        records=module_class_records,
    ),
    "docstrings": SupervisedTask(
        kind="sequence_to_sequence",
        about="a function's source to the first line of its docstring",
        records=docstring_records,
    ),
    "docstring_prompts": SupervisedTask(
        kind="instruction",
        about="the same for a decoder: a prompt to be answered",
        records=docstring_prompts,
    ),
}


def supervised_task(name: str) -> SupervisedTask:
    """The task of a name. Raises InputError if there is none, with the nearest."""
    known = ", ".join(SUPERVISED_TASKS)
    near = did_you_mean(name, SUPERVISED_TASKS)
    require(name in SUPERVISED_TASKS, "task", name, f"one of {known}{near}")
    return SUPERVISED_TASKS[name]


def task_records(
    task: SupervisedTask, source: StdlibSource | None = None
) -> tuple[list[Record], list[Record]]:
    """A task's records for training, and those from held-out files.

    Args:
        source: None: the library of the Python that runs this.
    """
    source = source or StdlibSource()
    documents = list(documents_of(source))
    held_out = [document for document in documents if document.id in source.pinned_held_out]
    train = [document for document in documents if document.id not in source.pinned_held_out]
    return (
        spread(list(task.records(train)), task.max_train),
        spread(list(task.records(held_out)), task.max_held_out),
    )


def spread(records: Sequence[Record], at_most: int) -> list[Record]:
    """`at_most` of the records, or all of them, at even distances.

    Example: 2 of five are the first and the third.
    """
    step = max(1.0, len(records) / at_most)
    return [records[int(number * step)] for number in range(min(len(records), at_most))]
