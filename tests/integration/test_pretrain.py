"""The main job from end to end, on real text, in less than a minute of training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report.read import read_run


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, run_isoflop) -> Path:
    """A run of `isoflop pretrain` on the standard library."""
    folder = tmp_path_factory.mktemp("pretrain")
    result = run_isoflop("pretrain", "--time=25s", "--run=run", cwd=folder)
    assert result.returncode == 0, result.stderr
    (folder / "stdout.txt").write_text(result.stdout)
    return folder


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / "run" / name).read_text())


def read_lines(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / name).read_text().splitlines()]


@pytest.mark.slow
def test_pretrain_keeps_what_the_plan_promised(pretrained):
    plan, summary = read(pretrained, "plan.json"), read(pretrained, "summary.json")
    assert summary["num_steps"] == plan["training"]["num_steps"]
    assert summary["tokens"] == plan["data"]["tokens"]
    assert summary["flops"] == pytest.approx(plan["predicted"]["flops"])
    assert summary["params"] == plan["model"]["params"]
    assert summary["matmul_params"] == plan["model"]["matmul_params"]
    metrics = read_lines(pretrained, "metrics.jsonl")
    assert metrics[-1]["step"] == plan["training"]["num_steps"]
    assert metrics[-1]["learning_rate"] == 0.0  # the schedule completed
    assert read(pretrained, "run.json")["status"] == "complete"
    assert read_run(pretrained / "run").problems == ()


@pytest.mark.slow
def test_pretrain_learns_and_says_how_it_compares(pretrained):
    summary = read(pretrained, "summary.json")
    evaluations = read_lines(pretrained, "evaluations.jsonl")
    assert evaluations[-1]["bits_per_byte"] < 3.0  # 8 untrained, about 4.5 by byte frequencies
    assert (
        summary["baselines"]["xz_bits_per_byte"] > summary["baselines"]["xz_primed_bits_per_byte"]
    )
    output = (pretrained / "stdout.txt").read_text()
    assert output.count("held-out text, and what the model makes of it") == 3
    assert "report.html" in output and "export/llama" in output
    assert (pretrained / "run/report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_pretrain_again_does_nothing_twice(pretrained, run_isoflop):
    before = read(pretrained, "summary.json")
    for args in (["--run=run"], ["--time=25s", "--run=run"]):
        result = run_isoflop("pretrain", *args, cwd=pretrained)
        assert result.returncode == 0, result.stderr
        assert read(pretrained, "summary.json") == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["--time=1m"], "budget (time)"),
        (["--training.seed=7"], "--training.seed=7"),
        (["--preset=encoder_only"], "preset: got 'encoder_only', expected the run's decoder_only"),
        (["--seq-len=32"], "seq_len: got 32"),
    ],
)
def test_another_command_on_the_same_run_is_refused(pretrained, run_isoflop, args, names):
    before = read(pretrained, "config.json")
    result = run_isoflop("pretrain", "--run=run", *args, cwd=pretrained)
    assert result.returncode == 2
    assert names in result.stderr.splitlines()[-1]
    assert read(pretrained, "config.json") == before


@pytest.mark.slow
def test_export_loads_in_transformers_with_equal_logits_and_text(pretrained):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from data.corpus import open_corpus
    from export.reference import Rows, model_apply
    from inference.generate import generate
    from inference.sampling import Sampling
    from workflows.export import held_out_lines
    from workflows.load import load

    export = pretrained / "run/export/llama"
    assert "transformers" in read(pretrained, "summary.json")["export"]["verified_against"]
    loaded = load(pretrained / "run")
    model: Any = AutoModelForCausalLM.from_pretrained(export, dtype=torch.float32)
    theirs = AutoTokenizer.from_pretrained(export)

    [corpus_folder] = (pretrained / "corpora").iterdir()
    lines = held_out_lines(open_corpus(corpus_folder))
    assert len(lines) == 1000
    for line in lines:
        ids = loaded.tokenizer.encode(line)
        assert theirs(line, add_special_tokens=False)["input_ids"] == ids
        assert theirs.decode(ids) == line == loaded.tokenizer.decode(ids)

    prompt = "\n".join(lines[:3])
    row = np.array([[loaded.tokenizer.bos_id, *loaded.tokenizer.encode(prompt)]], np.int32)
    rows = Rows(row, np.ones(row.shape, bool), 0)
    ours = np.asarray(model_apply(loaded.config)(loaded.params, rows))
    with torch.no_grad():
        reference = model(torch.tensor(row)).logits.numpy()
    assert np.abs(ours - reference).max() <= 1e-4

    [generation] = generate(
        loaded.config,
        loaded.params,
        loaded.tokenizer,
        [prompt],
        max_tokens=32,
        sampling=Sampling(temperature=0.0),
    )
    greedy = model.generate(
        torch.tensor(row),
        max_new_tokens=32,
        do_sample=False,
        attention_mask=torch.ones_like(torch.tensor(row)),
    )[0, row.shape[1] :].tolist()
    if theirs.eos_token_id in greedy:
        greedy = greedy[: greedy.index(theirs.eos_token_id)]
    assert list(generation.tokens) == greedy


@pytest.mark.slow
def test_used_from_the_command_line(pretrained, run_isoflop):
    for target in ("run", "run/export/llama"):
        args = ("generate", target, "import os\n", "--max-tokens=8", "--temperature=0", "--json")
        result = run_isoflop(*args, cwd=pretrained)
        assert result.returncode == 0, result.stderr
        record = json.loads(result.stdout)
        assert record["prompt"] == "import os\n" and len(record["tokens"]) <= 8
    result = run_isoflop(
        "score", "run", "import os\nimport sys\n", "q;z$#Q~vw", "--json", cwd=pretrained
    )
    likely, unlikely = map(json.loads, result.stdout.splitlines())
    assert likely["bits_per_byte"] < unlikely["bits_per_byte"]
    result = run_isoflop("export", "run", "--out=elsewhere", "--json", cwd=pretrained)
    assert result.returncode == 0, result.stderr
    result = run_isoflop("report", "run", cwd=pretrained)
    assert result.stdout.strip().endswith("report.html")
