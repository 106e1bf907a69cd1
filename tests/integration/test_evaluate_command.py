"""isoflop evaluate: results, pictures and JSON of a small random model; bad input in one line."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import isoflop as front_door
from data.tokenizer import train_tokenizer
from tests.model.samples import random_params, tiny_model
from workflows import evaluate
from workflows.load import Loaded

TASK = """
name = "numbers"
description = "the number after a number"
kind = "multiple_choice"
template = "{input} {target}"
choices = ["one", "two"]
[examples]
file = "numbers.jsonl"
"""


@pytest.fixture
def task_file(tmp_path) -> Path:
    records = [{"input": "zero", "target": "one"}, {"input": "one", "target": "two"}] * 3
    lines = "".join(json.dumps(record | {"input": f"{i} {record['input']}"}) + "\n"
                    for i, record in enumerate(records))  # fmt: skip
    (tmp_path / "numbers.jsonl").write_text(lines)
    path = tmp_path / "numbers.toml"
    path.write_text(TASK)
    return path


def loaded(architecture: str = "decoder_only") -> Loaded:
    tokenizer = train_tokenizer(["def add(x, y):\n    return x + y\n" * 20], 280, seed=0)
    config = tiny_model(architecture=architecture, vocab_size=tokenizer.vocab_size)
    params = random_params(config)
    return Loaded(config=config, params=params, tokenizer=tokenizer, seq_len=64)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs the command; gives its exit status, what it printed and its lines on stderr."""
    monkeypatch.chdir(tmp_path)

    def run_command(*args: object) -> tuple[int, str, list[str]]:
        status = front_door.run(["evaluate", *map(str, args)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err.splitlines()

    return run_command


@pytest.fixture
def no_compiling(monkeypatch):
    def compiled(*_: object, **__: object) -> None:
        raise AssertionError("compiled before the input was checked")

    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled)


def test_task_of_ones_own_and_repeats_are_measured_written_and_drawn(run, task_file, monkeypatch):
    monkeypatch.setattr(evaluate, "load", lambda _: loaded())
    status, printed, _ = run(
        *("model", "--tasks", task_file, "--shots", 0, 2, 100, "--repeated", "--rows", 3),
        *("--out", "out", "--json"),
    )
    assert status == 0
    record = json.loads(printed)
    assert record == json.loads(Path("out/results.json").read_text())
    (task,) = record["tasks"]
    assert [point["num_shots"] for point in task["points"]] == [0, 2, 100]
    assert task["points"][2]["num_cut"] == 6  # five others are all there are
    assert 0 < task["points"][2]["mean_shots"] <= 5
    for point in task["points"]:
        found = point["estimates"]["accuracy"]
        assert 0 <= found["value"] <= 1 and found["chance"] == 0.5
        assert found["standard_error"] == pytest.approx(
            np.sqrt(found["value"] * (1 - found["value"]) / 6)
        )
    assert [one["kind"] for one in record["repeated"]] == ["random tokens", "shuffled text", "text"]
    assert len(record["by_place"]["by_place"]) == 64
    for picture in ("shots.png", "repeats.png"):
        assert Path("out", picture).read_bytes().startswith(b"\x89PNG")


def test_table_names_chance_and_errors(run, task_file, monkeypatch):
    monkeypatch.setattr(evaluate, "load", lambda _: loaded("encoder_decoder"))
    status, printed, _ = run("model", "--tasks", task_file, "--shots", 1, "--limit", 2)
    assert status == 0
    lines = printed.splitlines()
    assert lines[0] == "numbers: the number after a number (2 examples)"
    assert lines[1].split() == ["shots", "1", "chance"]
    (accuracy,) = [line.split() for line in lines if line.split()[:1] == ["accuracy"]]
    assert accuracy[2] == "±" and accuracy[-1] == "0.500"
    assert not Path("in_context").exists()  # a folder that is no run is left as it is


def test_list_names_every_task_that_ships(run):
    status, printed, _ = run("--list")
    names = [line.split()[0] for line in printed.splitlines()]
    assert status == 0 and {"copy", "mapping", "closing_bracket", "describe_name"} <= set(names)


@pytest.mark.parametrize(
    ("args", "names"),
    [
        ([], "run: got 'nothing'"),
        (["nowhere"], "nowhere"),
        (["nowhere", "--tasks", "revers"], "did you mean 'reverse'"),
        (["nowhere", "--tasks", "gone.toml"], "gone.toml: "),
        (["nowhere", "--tasks", "broken.toml"], "broken.toml: kind: got 'nothing'"),
        (["nowhere", "--tasks", "copy", "copy"], "tasks: got 'copy'"),
        (["nowhere", "--tasks", "copy", "--shots", "0", "-1"], "shots: got -1"),
        (["nowhere", "--tasks", "copy", "--shots", "many"], "shots"),
        (["nowhere", "--tasks", "copy", "--limit", "0"], "limit: got 0"),
        (["nowhere", "--repeated", "--rows", "1"], "rows: got 1"),
        (["nowhere", "--shot", "1"], "--shots"),
        (["nowhere", "--tasks", "empty.jsonl"], "empty.jsonl: examples: got"),
    ],
)
def test_bad_input_is_one_line(run, no_compiling, args, names):
    Path("broken.toml").write_text('name = "x"\n')
    Path("empty.jsonl").write_text("\n")
    status, _, lines = run(*args)
    assert status == 2
    assert len(lines) == 1 and names in lines[0], lines


def test_an_encoder_is_refused_before_anything_is_compiled(run, monkeypatch, task_file):
    encoder = loaded("encoder_only")
    monkeypatch.setattr(evaluate, "load", lambda _: encoder)
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_, **__: pytest.fail("compiled"))
    for args in (["--tasks", task_file], ["--repeated"]):
        status, _, lines = run("model", *args)
        assert status == 2 and len(lines) == 1 and "model.architecture" in lines[0], lines


def test_repeats_of_an_encoder_decoder_are_refused(run, monkeypatch):
    monkeypatch.setattr(evaluate, "load", lambda _: loaded("encoder_decoder"))
    status, _, lines = run("model", "--repeated")
    assert status == 2 and len(lines) == 1 and "decoder_only" in lines[0], lines
