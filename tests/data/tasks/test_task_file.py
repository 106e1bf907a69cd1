"""Task files are read strictly: whatever is wrong is one line that names the file and the field."""

import json
from pathlib import Path

import pytest

from configs.errors import InputError
from data.tasks.task import FreeAnswer, MultipleChoice
from data.tasks.task_file import METRICS, load_task, shipped_tasks
from inference.text_metrics import METRICS as KNOWN_METRICS

CHOICE = {
    "name": '"opposites"',
    "description": '"the opposite of a word"',
    "kind": '"multiple_choice"',
    "template": '"{input} => {target}"',
}
FREE = CHOICE | {"kind": '"free_answer"', "metrics": '["exact_match"]', "max_tokens": "8"}
RECORDS = [
    {"input": "up", "target": "down", "choices": ["down", "left", "in"]},
    {"input": "in", "target": "out", "choices": ["up", "out"]},
]


@pytest.fixture
def write(tmp_path):
    """Writes a task file with its examples; gives its path."""

    def write_task(fields: dict, records: list | None = None, examples: str = "") -> Path:
        path = tmp_path / "task.toml"
        lines = [f"{key} = {value}" for key, value in fields.items()]
        table = examples or 'file = "task.jsonl"'
        path.write_text("\n".join([*lines, "[examples]", table]) + "\n")
        kept = RECORDS if records is None else records
        (tmp_path / "task.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
        return path

    return write_task


def test_multiple_choice_of_a_file(write):
    task = load_task(str(write(CHOICE | {"normalisation": '"byte"', "header": '"Opposites."'})))
    assert task.answer == MultipleChoice(normalisation="byte")
    assert (task.name, task.header, task.separator) == ("opposites", "Opposites.", "\n")
    assert task.question(1, [task.examples[0]]).prompt == "Opposites.\nup => down\nin =>"
    assert task.examples[1].choices == ("up", "out")


def test_free_answer_of_a_file_and_choices_shared_by_all(write):
    task = load_task(
        str(write(FREE | {"stop": '[";", "\\n\\n"]'}, [{"input": "a", "target": "b"}]))
    )
    assert task.answer == FreeAnswer(metrics=("exact_match",), max_tokens=8, stop=(";", "\n\n"))
    shared = CHOICE | {"choices": '["x", "y"]'}
    task = load_task(str(write(shared, [{"input": "a", "target": "y"}])))
    assert task.examples[0].choices == ("x", "y")


def test_other_fields_and_shots_of_an_examples_own(write):
    record = {"text": "good", "label": "yes", "note": "n", "choices": ["yes", "no"]}
    record["shots"] = [{"text": "bad", "label": "no", "note": "m"}]
    task = load_task(str(write(CHOICE | {"template": '"{note}: {text}? {label}"'}, [record])))
    assert task.question(0, task.shots(0, 4, seed=0)).prompt == "m: bad? no\nn: good?"


@pytest.mark.parametrize(
    ("fields", "records", "message"),
    [
        (CHOICE | {"tempalte": '"x"'}, None, "tempalte: got an unknown key.*'template'"),
        (CHOICE | {"max_tokens": "3"}, None, "max_tokens: got an unknown key of a multiple_choice"),
        ({k: v for k, v in CHOICE.items() if k != "template"}, None, "template: got 'nothing'"),
        ({k: v for k, v in CHOICE.items() if k != "kind"}, None, "kind: got 'nothing'"),
        ({k: v for k, v in FREE.items() if k != "metrics"}, None, "metrics: got 'nothing'"),
        (CHOICE | {"kind": '"choice"'}, None, "kind: got 'choice', expected multiple_choice or"),
        (CHOICE | {"name": "3"}, None, "name: got 3, expected a string"),
        (CHOICE | {"separator": '""'}, None, "separator: got ''"),
        (CHOICE | {"normalisation": '"bytes"'}, None, "normalisation: got 'bytes'"),
        (FREE | {"max_tokens": "true"}, None, "max_tokens: got True, expected a whole number"),
        (FREE | {"max_tokens": "0"}, None, "max_tokens: got 0"),
        (FREE | {"metrics": "[]"}, None, r"metrics: got \[\]"),
        (
            FREE | {"metrics": '["rouge"]'},
            None,
            "metrics: got 'rouge', expected one of exact_match",
        ),
        (FREE | {"stop": '[""]'}, None, "stop: got"),
        (CHOICE | {"template": '"{input} => {answer}"'}, None, "template: got the field 'answer'"),
        (CHOICE | {"template": '"{target} <= {input}."'}, None, "template: got .*at its end"),
        (CHOICE | {"template": '"{input"'}, None, "template: got"),
        (CHOICE | {"template": '"{0} {target}"'}, None, "template: got"),
        (CHOICE | {"template": '"{target!r} {target}"'}, None, "template: got"),
        (CHOICE | {"template": '"{target} {target}"'}, None, "template: got .*only once"),
        (CHOICE, [], "examples: got 'no line"),
        (CHOICE, [{"input": "a", "target": "b"}], r"examples\[0\].choices: got \[\]"),
        (
            CHOICE | {"choices": '["x", "y"]'},
            [{"input": "a", "target": "z"}],
            r"examples\[0\].target: got 'z', expected one of its choices",
        ),
        (
            CHOICE,
            [*RECORDS, {"input": "a", "target": "x", "choices": ["x", "x"]}],
            r"examples\[2\].choices: got .*each once",
        ),
        (
            CHOICE,
            [{"input": "a", "target": "", "choices": ["", "x"]}],
            r"examples\[0\].target: got ''",
        ),
        (
            CHOICE,
            [{"input": 3, "target": "x", "choices": ["x", "y"]}],
            r"examples\[0\].input: got 3, expected a string",
        ),
        (
            CHOICE,
            [{"input": "a", "target": "x", "choices": ["x", "y"], "shots": [{"input": "b"}]}],
            r"template: got the field 'target', expected one of examples\[0\].shots\[0\]",
        ),
        (CHOICE, ["text"], "task.jsonl:1: got"),
    ],
)
def test_what_is_wrong_is_named(write, fields, records, message):
    path = write(fields, records)
    with pytest.raises(InputError, match=message) as error:
        load_task(str(path))
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('file = "gone.jsonl"', "examples: got 'No such file or directory' for .*gone.jsonl"),
        ('file = "task.jsonl"\nseed = 3', "examples.seed: got 3"),
        ("seed = 3", "examples: got .*expected a file or a builder"),
        ('builder = "revers"', "examples.builder: got 'revers'.*did you mean 'reverse'"),
        ('builder = "copy"\nwords = 3', "examples.words: got an unknown setting of copy"),
        ('builder = "copy"\ncount = 0', "examples.count: got 0, expected a whole number"),
        ('builder = "copy"\ncount = 1.5', "examples.count: got 1.5"),
    ],
)
def test_what_is_wrong_with_the_examples_is_named(write, table, message):
    with pytest.raises(InputError, match=message):
        load_task(str(write(CHOICE, examples=table)))


def test_unknown_task_is_named_with_the_known_ones_and_the_nearest():
    with pytest.raises(InputError, match="tasks: got 'revers'.*mapping.*did you mean 'reverse'"):
        load_task("revers")


@pytest.mark.parametrize("content", [None, b"\xff", b"name = ", b""])
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="broken.toml: "):
        load_task(str(path))


@pytest.mark.parametrize(
    ("records", "kind", "prompt"),
    [
        (RECORDS, "multiple_choice", "up =>"),
        ([{"input": "a b", "target": "c"}], "free_answer", "a b =>"),
        (
            [{"text": "fine", "label": "yes"}, {"text": "awful", "label": "no"}],
            "multiple_choice",
            "fine =>",
        ),
    ],
)
def test_a_file_of_examples_is_a_task(tmp_path, records, kind, prompt):
    path = tmp_path / "own.jsonl"
    path.write_text("\n\n".join(json.dumps(record) for record in records) + "\n")
    task = load_task(str(path))
    assert (task.name, task.answer.kind, task.question(0, []).prompt) == ("own", kind, prompt)
    if "label" in records[0]:
        assert task.examples[0].choices == ("no", "yes")


def test_tasks_that_ship_can_be_asked():
    names = shipped_tasks()
    kinds = set()
    for name in names:
        task = load_task(name)
        kinds.add(task.answer.kind)
        assert task.name == name and task.description and len(task.examples) >= 50
        question = task.question(0, task.shots(0, 4, seed=0))
        assert question.prompt.count(task.separator) == 4
    assert kinds == {"multiple_choice", "free_answer"}
    assert {"copy", "reverse", "induction", "mapping", "closing_bracket"} <= set(names)


def test_metrics_a_file_may_name_are_those_there_are():
    assert set(METRICS) == {*KNOWN_METRICS, "bleu"}
