"""`isoflop generate` on small random models: what it prints, and what it refuses."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import isoflop as front_door
from data.tokenizer import train_tokenizer
from tests.model.samples import VARIANTS, random_params
from workflows import generate
from workflows.load import Loaded

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def models() -> dict[str, Loaded]:
    text = "def add(x, y):\n    return x + y\n\n\nclass Point:\n    pass\n" * 20
    tokenizer = train_tokenizer([text], 303, seed=0, symbols=("<mask>", "<extra_id_0>"))
    found = {}
    for name in ("gpt2", "bert"):
        config = replace(VARIANTS[name], vocab_size=tokenizer.vocab_size)
        found[name] = Loaded(
            config=config, params=random_params(config), tokenizer=tokenizer, seq_len=32
        )
    return found


@pytest.fixture
def run(models, monkeypatch, capsys, tmp_path) -> Run:
    """Runs `isoflop generate MODEL …`; gives its exit status and what it printed."""
    monkeypatch.setattr(generate, "load", lambda path: models[str(path)])
    monkeypatch.chdir(tmp_path)

    def run_command(*args: object) -> tuple[int, str, str]:
        status = front_door.run(["generate", *map(str, args)])
        return status, *capsys.readouterr()

    return run_command


def records(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_text_streams_and_is_the_one_in_the_record(run):
    status, out, _ = run("gpt2", "def add(", "--max-tokens", 6, "--seed", 1)
    assert status == 0
    status, record, _ = run("gpt2", "def add(", "--max-tokens", 6, "--seed", 1, "--json")
    [one] = records(record)
    assert one["schema_version"] == 1 and len(one["tokens"]) == len(one["log_probabilities"]) == 6
    assert out == f"def add({one['text']}\n"


def test_samples_and_beams_give_a_record_each(run):
    base = ("gpt2", "def add(", "x", "--max-tokens", 6, "--num-samples", 2, "--json")
    status, out, _ = run(*base, "--temperature", 1.0)
    found = records(out)
    assert status == 0
    assert [one["prompt"] for one in found] == ["def add(", "def add(", "x", "x"]
    assert found[0]["tokens"] != found[1]["tokens"]
    status, out, _ = run(*base, "--beams", 2)
    found = records(out)
    assert found[0]["beams"] == {"number": 2, "length_penalty": 1.0}
    assert found[0]["score"] > found[1]["score"]


def test_probabilities_are_printed_recorded_and_drawn(run, tmp_path):
    base = ("gpt2", "def", "--max-tokens", 3, "--top-k", 2, "--show-probabilities", 4)
    status, out, _ = run(*base, "--picture", "steps.png")
    assert status == 0
    assert "top_k 2" in out and out.count("chosen") == 3 and "cut" in out
    assert (tmp_path / "steps.png").stat().st_size > 1000
    _, out, _ = run(*base, "--json")
    [one] = records(out)
    assert [len(step["candidates"]) for step in one["steps"]] == [4, 4, 4]
    kept = [c["kept"] > 0 for c in one["steps"][0]["candidates"]]
    assert kept == [True, True, False, False]


def test_log_probabilities_are_printed_a_token_a_line(run):
    status, out, _ = run("gpt2", "x", "--max-tokens", 4, "--log-probabilities")
    lines = out.splitlines()[-5:]
    assert status == 0 and lines[-1].split()[1] == "score"
    total = sum(float(line.split()[0]) for line in lines[:4])
    assert float(lines[-1].split()[0]) == pytest.approx(total, abs=1e-3)


def test_masks_get_as_many_candidates_as_asked_for(run):
    status, out, _ = run("bert", "x = <mask>", "--show-probabilities", 3, "--json")
    assert status == 0
    [one] = records(out)
    assert [len(place) for place in one["candidates"]] == [3]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["gpt2", ""], "prompt: got '', expected some text"),
        (["bert", ""], "prompt: got '', expected some text"),
        (["gpt2", "漢" * 12], "expected 32 at most"),
        (["bert", "<mask>" + "漢" * 12], "expected 32 at most"),
        (["gpt2", "x", "--temperature=-1"], "temperature: got -1.0, expected 0 or more"),
        (["gpt2", "x", "--top-p=1.5"], "top_p: got 1.5, expected above 0 and at most 1"),
        (["gpt2", "x", "--min-p=1"], "min_p: got 1.0"),
        (["gpt2", "x", "--top-k=304"], "top_k: got 304, expected at most 303"),
        (["gpt2", "x", "--max-tokens=0"], "max_tokens: got 0"),
        (["gpt2", "x", "--beams=2", "--temperature=0.5"], "temperature: got 0.5, expected none"),
        (["gpt2", "x", "--beams=-1"], "beams: got -1"),
        (["gpt2", "x", "--show-probabilities=-2"], "show_probabilities: got -2"),
        (["gpt2", "x", "--tensor=3"], "data, tensor: got '1 × 3 devices', expected a product of 8"),
        (["gpt2", "x", "--stop", ""], "stop: got ''"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(run, args, message):
    status, out, error = run(*args)
    assert status == 2 and out == ""
    assert error.startswith("isoflop: error: ") and error.count("\n") == 1
    assert message in error
