"""Labelled records: what each kind of task has, read from JSON lines and checked.

classification        {"text": "def f(x): ...", "label": "code"}
token_classification  {"text": "import os", "spans": [{"start": 7, "end": 9, "label": "MODULE"}]}
sequence_to_sequence  {"input": "def f(): ...", "target": "Does nothing."}
instruction           {"input": "Question: ... Answer:", "target": " ..."}

Places of spans are characters, the end excluded. Other fields are ignored.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from configs.errors import InputError, require

Record = dict[str, Any]
Kind = Literal["classification", "token_classification", "sequence_to_sequence", "instruction"]

FIELDS: dict[Kind, tuple[str, ...]] = {
    "classification": ("text", "label"),
    "token_classification": ("text", "spans"),
    "sequence_to_sequence": ("input", "target"),
    "instruction": ("input", "target"),
}
OUTSIDE = "O"


def read_records(path: Path, kind: Kind) -> list[Record]:
    """The records of a file of JSON lines; empty lines are passed over.

    Raises:
        InputError: a file that cannot be read or holds no record, or a record that is not of the
            kind; names file and line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(
            f"data: got {str(path)!r} ({error.strerror}), expected a file of JSON lines"
        ) from error
    records = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"data: got {where} (malformed JSON, {error}), expected an object"
                ) from error
            records.append(checked(record, kind, where))
    require(bool(records), "data", str(path), "one or more records")
    return records


def checked(record: object, kind: Kind, where: str) -> Record:
    """The record, if it is of the kind.

    Raises:
        InputError: it is not; `where` says which.
    """
    fits = isinstance(record, Mapping)
    require(fits, where, type(record).__name__, f"an object with {' and '.join(FIELDS[kind])}")
    assert isinstance(record, dict)
    for name in FIELDS[kind]:
        require(name in record, f"{where}: {name}", "none", f"the field of {kind}")
        value = record[name]
        if name == "spans":
            _check_spans(value, len(record["text"]), where)
        elif name == "target":
            require(isinstance(value, str), f"{where}: {name}", value, "a string")
        else:
            fits = isinstance(value, str) and value.strip() != ""
            require(fits, f"{where}: {name}", value, "a string that is not blank")
    return record


def _check_spans(spans: object, size: int, where: str) -> None:
    require(isinstance(spans, list), f"{where}: spans", spans, "a list")
    assert isinstance(spans, list)
    end = 0
    for span in spans:
        fits = isinstance(span, dict) and {"start", "end", "label"} <= set(span)
        require(fits, f"{where}: spans", span, "objects with start, end and label")
        is_place = type(span["start"]) is int and type(span["end"]) is int
        in_order = is_place and end <= span["start"] < span["end"] <= size
        expected = f"start and end in order, within 0 to {size} and apart from one another"
        require(in_order, f"{where}: spans", span, expected)
        fits = isinstance(span["label"], str) and span["label"] != ""
        require(fits, f"{where}: spans", span, "a label that is a string")
        end = span["end"]


def labels_of(records: Iterable[Record], kind: Kind) -> tuple[str, ...]:
    """The names of a task's classes, in the order of their numbers; none where it has texts.

    Of token classification: O, then B- and I- of every label, the first token of a span and those
    that follow (BIO; Ramshaw and Marcus 1995, arXiv cmp-lg/9505040).

    Raises:
        InputError: fewer than two classes.
    """
    if kind == "classification":
        labels = tuple(sorted({record["label"] for record in records}))
    elif kind == "token_classification":
        names = sorted({span["label"] for record in records for span in record["spans"]})
        labels = (OUTSIDE, *(f"{tag}-{name}" for name in names for tag in "BI")) if names else ()
    else:
        return ()
    require(len(labels) >= 2, "data", f"{len(labels)} classes", "two or more")
    return labels


def require_labels(records: Iterable[Record], labels: Sequence[str], kind: Kind) -> None:
    """Raises InputError where a record has a label that is none of `labels`."""
    if not labels:
        return
    unknown = set(labels_of_any(records, kind)) - set(labels)
    shown = ", ".join(sorted(unknown))
    require(not unknown, "held_out", shown, "labels that the training records have")


def labels_of_any(records: Iterable[Record], kind: Kind) -> set[str]:
    """Every class that records name, of which there may be none."""
    if kind == "classification":
        return {record["label"] for record in records}
    return {f"B-{span['label']}" for record in records for span in record.get("spans", ())}
