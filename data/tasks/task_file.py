"""Tasks as small files: TOML that says how a task is asked, and JSONL that holds its examples.

    name = "opposites"
    description = "the opposite of a word"
    kind = "multiple_choice"                      # or "free_answer"
    template = "{input} => {target}"              # ends with the field that is the answer

    [examples]
    file = "opposites.jsonl"                      # beside this file; or builder = "NAME", settings

    {"input": "up", "target": "down", "choices": ["down", "left", "in"]}

Optional: header, separator ("\\n"); choices (for all examples; else each has its own) and
normalisation ("none", "token", "byte" or "unconditional") of a multiple choice. A free answer needs
metrics and max_tokens, and has stop (["\\n"]). An example may have further fields for the template,
and shots of its own ("shots": [{…}, …], nearest first).
"""

import dataclasses
import json
import string
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from configs.errors import InputError, require
from configs.names import path_inside
from configs.serialize import did_you_mean, shown
from data.tasks.builders import build_records
from data.tasks.task import Example, FreeAnswer, MultipleChoice, Normalisation, Task

FOLDER = Path(__file__).parent
METRICS = ("exact_match", "token_f1", "rouge_1", "rouge_2", "rouge_l", "bleu")

_TYPES: Mapping[str, tuple[type, str]] = {
    "name": (str, "a string"),
    "description": (str, "a string"),
    "kind": (str, "a string"),
    "template": (str, "a string"),
    "header": (str, "a string"),
    "separator": (str, "a string"),
    "choices": (list, "a list of strings"),
    "normalisation": (str, "a string"),
    "metrics": (list, "a list of strings"),
    "max_tokens": (int, "a whole number"),
    "stop": (list, "a list of strings"),
    "examples": (dict, "a table with file or builder"),
}
_BOTH = {"name", "description", "kind", "template", "header", "separator", "examples"}
_OF_KIND = {
    "multiple_choice": {"choices", "normalisation"},
    "free_answer": {"metrics", "max_tokens", "stop"},
}
_REQUIRED = {
    "multiple_choice": ("name", "description", "kind", "template", "examples"),
    "free_answer": (
        *("name", "description", "kind", "template", "examples"),
        *("metrics", "max_tokens"),
    ),
}


def shipped_tasks() -> dict[str, Path]:
    """The tasks that come with isoflop, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def shipped_descriptions() -> dict[str, str]:
    """What each of them asks, without making its examples."""
    texts = {name: path.read_text("utf-8") for name, path in shipped_tasks().items()}
    return {name: tomllib.loads(text)["description"] for name, text in texts.items()}


def load_task(name: str) -> Task:
    """A task by its name, or from a .toml file; or made of a .jsonl file of examples.

    Examples with choices become a multiple choice, those without a free answer (exact match and
    F1), {"text", "label"} a multiple choice among all labels. Each is asked as input, " => " and
    target.

    Raises:
      InputError: no such task or file, or one that is malformed; it names the file and the field.
    """
    path = Path(name)
    if path.suffix not in (".toml", ".jsonl"):
        known = shipped_tasks()
        if name not in known:
            raise InputError(
                f"tasks: got {shown(name)}, expected a .toml or .jsonl file or one of "
                f"{', '.join(known)}{did_you_mean(name, known)}"
            )
        path = known[name]
    try:
        return _from_records(path) if path.suffix == ".jsonl" else _from_toml(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _from_toml(path: Path) -> Task:
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"got {error.strerror!r}, expected a readable TOML file") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"got invalid TOML ({error}), expected a task file") from None
    _check_keys(data)
    records = _examples(data["examples"], path.parent)
    shared = tuple(_strings(data.get("choices", []), "choices"))
    _check_template(data["template"])
    examples = _parse_examples(records, data["template"], shared, data["kind"])
    return Task(
        name=data["name"],
        description=data["description"],
        answer=_answer(data),
        template=data["template"],
        examples=examples,
        header=data.get("header", ""),
        separator=data.get("separator", "\n"),
    )


def _from_records(path: Path) -> Task:
    records = read_records(path)
    first = records[0]
    is_labelled = {"text", "label"} <= first.keys()
    template = "{text} => {label}" if is_labelled else "{input} => {target}"
    shared = ()
    if is_labelled:
        shared = tuple(sorted({str(record.get("label")) for record in records}))
    kind = "multiple_choice" if shared or "choices" in first else "free_answer"
    free = FreeAnswer(metrics=("exact_match", "token_f1"), max_tokens=32)
    return Task(
        name=path.stem,
        description=f"the examples of {path.name}",
        answer=MultipleChoice() if kind == "multiple_choice" else free,
        template=template,
        examples=_parse_examples(records, template, shared, kind),
    )


def read_records(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, blank lines left out.

    Raises:
      InputError: unreadable, a line that is no JSON object, or no line at all.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"examples: got {reason!r} for {path}, expected a JSONL file") from None
    records = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            require(isinstance(record, dict), f"{path.name}:{number}", line[:80], "one JSON object")
            records.append(record)
    require(len(records) > 0, "examples", f"no line in {path}", "at least one example")
    return records


def _check_keys(data: Mapping[str, Any]) -> None:
    require("kind" in data, "kind", "nothing", "multiple_choice or free_answer")
    kind = data["kind"]
    require(
        isinstance(kind, str) and kind in _OF_KIND, "kind", kind, "multiple_choice or free_answer"
    )
    known = _BOTH | _OF_KIND[kind]
    for key, value in data.items():
        if key not in known:
            near = did_you_mean(key, known)
            expected = f"one of {', '.join(sorted(known))}"
            raise InputError(f"{key}: got an unknown key of a {kind}, expected {expected}{near}")
        type_, expected = _TYPES[key]
        require(type(value) is type_, key, value, expected)
    for key in _REQUIRED[kind]:
        require(key in data, key, "nothing", _TYPES[key][1])
    require(bool(data["name"].strip()), "name", data["name"], "a name")
    require(bool(data.get("separator", "\n")), "separator", "", "text between examples")


def _answer(data: Mapping[str, Any]) -> MultipleChoice | FreeAnswer:
    if data["kind"] == "multiple_choice":
        normalisation, known = data.get("normalisation", "none"), get_args(Normalisation)
        require(
            normalisation in known, "normalisation", normalisation, f"one of {', '.join(known)}"
        )
        return MultipleChoice(normalisation=normalisation)
    metrics = _strings(data["metrics"], "metrics")
    require(len(metrics) > 0, "metrics", metrics, f"one or more of {', '.join(METRICS)}")
    for metric in metrics:
        near = did_you_mean(metric, METRICS)
        require(metric in METRICS, "metrics", metric, f"one of {', '.join(METRICS)}{near}")
    require(data["max_tokens"] > 0, "max_tokens", data["max_tokens"], "1 or more")
    stop = _strings(data.get("stop", ["\n"]), "stop")
    require(all(stop), "stop", stop, "strings that are not empty")
    return FreeAnswer(metrics=tuple(metrics), max_tokens=data["max_tokens"], stop=tuple(stop))


def _examples(table: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    if "builder" in table:
        settings = {key: value for key, value in table.items() if key != "builder"}
        return build_records(table["builder"], settings)
    require("file" in table, "examples", dict(table), "a file or a builder")
    for key in table:
        require(key == "file", f"examples.{key}", table[key], "no setting beside a file")
    require(isinstance(table["file"], str), "examples.file", table["file"], "a string")
    return read_records(path_inside(folder, table["file"], "examples.file"))


def _check_template(template: str) -> None:
    """Raises InputError unless the template ends with a field that it names only once."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(
            f"template: got {template!r} ({error}), expected text with {{field}}"
        ) from None
    names = [name for _, name, _, _ in parts if name is not None]
    for _, name, spec, conversion in parts:
        plain = name is None or (name.isidentifier() and not spec and not conversion)
        require(plain, "template", template, "fields such as {input}; {{ and }} for braces")
    ends = bool(names) and template.endswith("{" + names[-1] + "}") and parts[-1][1] is not None
    require(ends, "template", template, "the field of the answer at its end, such as {target}")
    require(names.count(names[-1]) == 1, "template", template, "the field of the answer only once")


class _Layout(NamedTuple):
    """What records have to hold. names: the template's fields. target: the last of them. choices:
    those of all examples, where they share them."""

    names: tuple[str, ...]
    target: str
    choices: tuple[str, ...]


def _parse_examples(
    records: Sequence[Mapping[str, Any]], template: str, shared: tuple[str, ...], kind: str
) -> tuple[Example, ...]:
    require(len(records) > 0, "examples", "none", "at least one")
    names = tuple(name for _, name, _, _ in string.Formatter().parse(template) if name)
    layout = _Layout(names, names[-1], shared)
    examples = []
    for number, record in enumerate(records):
        where = f"examples[{number}]"
        example = _parse_example(record, where, layout)
        if kind == "multiple_choice":
            choices = _choices(record, where, layout)
            example = dataclasses.replace(example, choices=choices)
        examples.append(example)
    return tuple(examples)


def _parse_example(record: object, where: str, layout: _Layout) -> Example:
    if not isinstance(record, dict):
        raise InputError(f"{where}: got {shown(record)}, expected an object with fields")
    for name in layout.names:
        if name not in record:
            raise InputError(
                f"template: got the field {name!r}, expected one of {where}, which has "
                f"{', '.join(record)}{did_you_mean(name, record)}"
            )
        require(isinstance(record[name], str), f"{where}.{name}", record[name], "a string")
    require(bool(record[layout.target]), f"{where}.{layout.target}", "", "text")
    shots = record.get("shots", [])
    require(isinstance(shots, list), f"{where}.shots", shots, "a list of examples")
    return Example(
        fields={name: record[name] for name in layout.names},
        target=record[layout.target],
        shots=tuple(
            _parse_example(shot, f"{where}.shots[{i}]", layout) for i, shot in enumerate(shots)
        ),
    )


def _choices(record: Mapping[str, Any], where: str, layout: _Layout) -> tuple[str, ...]:
    field = f"{where}.choices"
    choices = _strings(record.get("choices", list(layout.choices)), field)
    require(len(choices) >= 2, field, choices, "two or more")
    require(all(choices), field, choices, "none empty")
    require(len(set(choices)) == len(choices), field, choices, "each once")
    target = record[layout.target]
    require(target in choices, f"{where}.{layout.target}", target, f"one of its choices {choices}")
    return tuple(choices)


def _strings(value: object, field: str) -> list[str]:
    is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    require(is_list, field, value, "a list of strings")
    assert isinstance(value, list)
    return value
