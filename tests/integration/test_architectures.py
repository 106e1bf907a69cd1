"""Encoder and encoder-decoder from end to end: pretrained, used, exported, imported again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.serialize import load_config
from export.tensors import read_tensors

# Preset -> the objective's own held-out measure, and the class of transformers that loads it.
ARCHITECTURES = {
    "encoder_only": ("masked_token_accuracy", "bert", "AutoModelForMaskedLM"),
    "encoder_decoder": ("span_accuracy", "t5", "AutoModelForSeq2SeqLM"),
}


class Pretrained:
    """A run of `isoflop pretrain` on the standard library in a folder of its own."""

    def __init__(self, folder: Path, preset: str, stdout: str):
        self.folder, self.preset, self.stdout = folder, preset, stdout
        self.measure, self.family, self.auto_class = ARCHITECTURES[preset]

    def read(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / "run" / name).read_text())


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pretrained(request, tmp_path_factory, run_isoflop) -> Pretrained:
    folder = tmp_path_factory.mktemp(request.param)
    args = ("pretrain", f"--preset={request.param}", "--time=25s", "--run=run")
    result = run_isoflop(*args, cwd=folder)
    assert result.returncode == 0, result.stderr
    return Pretrained(folder, request.param, result.stdout)


@pytest.mark.slow
def test_plan_kept_and_own_measures_reported(pretrained):
    plan, summary = pretrained.read("plan.json"), pretrained.read("summary.json")
    assert summary["params"] == plan["model"]["params"]
    assert summary["matmul_params"] == plan["model"]["matmul_params"]
    assert summary["num_steps"] == plan["training"]["num_steps"]
    assert summary["flops"] == pytest.approx(plan["predicted"]["flops"])
    assert plan["predicted"]["loss"] is None  # no law for this objective
    assert summary["bits_per_byte"] is None
    assert 0 < summary["metrics"][pretrained.measure] < 1
    baselines = summary["baselines"]
    assert set(baselines) == {"unigram_nats", "bigram_nats"}
    assert summary["nats_per_token"] < baselines["unigram_nats"]
    label = pretrained.measure.replace("_", " ").capitalize()
    assert label in pretrained.stdout and "Against bigrams" in pretrained.stdout


@pytest.mark.slow
def test_export_loads_whole_in_transformers(pretrained):
    import transformers

    folder = pretrained.folder / "run/export" / pretrained.family
    auto_class: Any = getattr(transformers, pretrained.auto_class)
    _, info = auto_class.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    exported = pretrained.read("summary.json")["export"]
    assert "transformers" in exported["verified_against"]
    assert exported["max_abs_logit_difference"] <= 1e-4


@pytest.mark.slow
def test_used_from_the_command_line(pretrained, run_isoflop):
    prompt = {
        "encoder_only": "import <mask>\nimport sys\n",
        "encoder_decoder": "import os\nimport <extra_id_0>\n",
    }[pretrained.preset]
    for target in ("run", f"run/export/{pretrained.family}"):
        args = ("generate", target, prompt, "--max-tokens=8", "--temperature=0", "--json")
        result = run_isoflop(*args, cwd=pretrained.folder)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["prompt"] == prompt
    result = run_isoflop("score", "run", "import os", cwd=pretrained.folder)
    if pretrained.preset == "encoder_only":
        assert result.returncode == 0 and "pseudo-log-likelihood" in result.stdout
    else:  # it gives a probability to an answer, not to a text
        assert result.returncode == 2 and "context" in result.stderr


@pytest.mark.slow
def test_imported_run_trains_on_and_exports_bit_equal(pretrained, run_isoflop):
    folder = pretrained.folder
    [corpus] = (folder / "corpora").iterdir()
    seq_len = load_config(folder / "run/config.json").data.seq_len
    exported = f"run/export/{pretrained.family}"
    args = (exported, "--out=again", f"--corpus={corpus}", f"--seq-len={seq_len}")
    short = ("--training.num-steps=3", "--training.batch-size=4")
    result = run_isoflop("import", *args, *short, "--optimizer.schedule.warmup-steps=1", cwd=folder)
    assert result.returncode == 0, result.stderr

    result = run_isoflop("export", "again", f"--family={pretrained.family}", cwd=folder)
    assert result.returncode == 0, result.stderr
    before = read_tensors(folder / exported)
    after = read_tensors(folder / "again/export" / pretrained.family)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.tobytes() == after[name].tobytes(), name

    result = run_isoflop("train", "again", cwd=folder)
    assert result.returncode == 0, result.stderr
    losses = [
        json.loads(line)["loss"]
        for line in (folder / "again/metrics.jsonl").read_text().splitlines()
    ]
    trained = pretrained.read("summary.json")["nats_per_token"]
    assert np.isfinite(losses).all()
    assert losses[0] < 1.5 * trained  # the weights came along: a fresh model starts far above
