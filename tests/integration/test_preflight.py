"""Before anything is compiled or written, everything that is wrong with a run is said at once."""

import json
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

import isoflop as front_door
from configs.data_config import WeightedMixtureConfig
from configs.errors import InputError
from configs.overrides import apply_overrides
from configs.presets import PRESETS
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from configs.sharding import ShardingRules
from data.dataset import open_corpora
from train.run_directory import RunDirectory
from train.state import abstract_state
from workflows import preflight, train
from workflows.find_run import Found
from workflows.preflight import (
    check_run,
    check_run_files,
    check_sharding,
    checkpoint_bytes,
    kept_checkpoints,
)
from workflows.train import create_run

HUGE = [
    "--model.num-layers=500",
    "--model.emb-dim=131072",
    "--model.mlp.mlp-dim=524288",
    "--training.batch-size=8",
]


@pytest.fixture
def config(tiny, tiny_corpus) -> RunConfig:
    overrides = [*tiny, "--mesh.data=8", f"--data.corpus={tiny_corpus}"]
    return apply_overrides(PRESETS["decoder_only/tiny"](), overrides)


def problems_of(config: RunConfig, run_path: Path, *, resume: bool = False, **options) -> list[str]:
    """Fields that the pass names, in its order."""
    with pytest.raises(InputError) as raised:
        check_run(config, run_path, partial(open_corpora, config.data), resume=resume, **options)
    assert str(raised.value).splitlines() == list(raised.value.problems)
    return [problem.partition(": got ")[0] for problem in raised.value.problems]


@pytest.fixture
def no_compiling(monkeypatch):
    def compiled(*_: object, **__: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled)


def test_a_run_that_can_start_passes_quickly_and_nothing_is_written(config, tmp_path, no_compiling):
    corpora = open_corpora(config.data)
    start = time.perf_counter()
    assert check_run(config, tmp_path / "runs/a", lambda: corpora, resume=False) is corpora
    assert time.perf_counter() - start < 1.0
    assert list(tmp_path.iterdir()) == []


def test_all_problems_are_told_at_once(config, tmp_path, no_compiling):
    (tmp_path / "file").write_text("")
    config = apply_overrides(config, [*HUGE, "--mesh.data=4", "--model.vocab-size=390"])
    before = sorted(tmp_path.rglob("*"))
    found = problems_of(config, tmp_path / "file/run", compilation_cache=str(tmp_path / "file"))
    assert found == ["model.vocab_size", "mesh", "memory", "disk", "run", "compilation_cache"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_corpus_that_is_not_there_hides_no_other_problem(config, tmp_path):
    config = replace(config, data=replace(config.data, corpus=str(tmp_path / "none")))
    config = replace(config, mesh=MeshConfig(data=4))
    assert problems_of(config, tmp_path / "run") == ["data.corpus", "mesh"]


def test_every_corpus_that_cannot_be_opened_is_told(config, tmp_path):
    mixture = WeightedMixtureConfig(
        corpora=(str(tmp_path / "a"), str(tmp_path / "b")), weights=(1.0, 2.0)
    )
    config = replace(config, data=replace(config.data, corpus="", mixture=mixture))
    assert problems_of(config, tmp_path / "run") == ["data.corpus", "data.corpus"]


def test_every_rule_that_does_not_cut_its_arrays_is_told_once(config, tmp_path):
    rules = ShardingRules(vocab=("fsdp",), mlp=("fsdp",))  # embed is cut by it too
    config = replace(config, mesh=MeshConfig(fsdp=8, rules=rules))
    with pytest.raises(InputError) as raised:
        check_sharding(config)
    problems = raised.value.problems
    assert len(set(problems)) == len(problems) < 6  # not one for every array
    assert any("'vocab'" in problem for problem in problems)
    assert any("mesh.rules.mlp" in problem for problem in problems)
    assert set(problems_of(config, tmp_path / "run")) == {"mesh.rules.embed", "mesh.rules.mlp"}


def test_the_front_door_prints_a_line_for_each_problem(monkeypatch, capsys):
    def main(args: object) -> int:
        raise InputError("a: got 1, expected 2", "b: got a\n  name\x1b[2J, expected another")

    monkeypatch.setattr("workflows.report.main", main)
    assert front_door.run(["report"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "isoflop: error: a: got 1, expected 2",
        r"isoflop: error: b: got a name\x1b[2J, expected another",
    ]


def test_memory_is_judged_by_what_the_devices_say(config, tmp_path, monkeypatch):
    device = SimpleNamespace(platform="gpu", process_index=0, device_kind="NVIDIA H200")
    needed = preflight.training_bytes(config, platform="gpu").total
    for room, fits in ((needed, True), (needed / 1.2, True), (needed / 1.3, False)):
        device.memory_stats = lambda room=room: {"bytes_limit": room}
        if fits:
            preflight.check_memory(config, [device])
        else:
            with pytest.raises(InputError, match="^memory: got about"):
                preflight.check_memory(config, [device])
    device.memory_stats = lambda: None
    assert preflight.device_bytes([device]) == pytest.approx(141e9, rel=0.05)


def test_devices_of_a_cpu_share_what_a_container_may_use(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(preflight, "_CGROUP_LIMIT", limit)
    limit.write_text("8000\n")
    assert preflight.device_bytes(jax.devices()) == 1000  # of 8 devices
    limit.write_text("max\n")
    whole = preflight.device_bytes(jax.devices()[:1])
    assert whole is not None and whole > 1e6


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"checkpoint_every": 0}, 1),
        ({"checkpoint_every": 50}, 2),
        ({"checkpoint_every": 10}, 3),  # two, and one on its way
        ({"checkpoint_every": 10, "keep_best": 3}, 6),
        ({"checkpoint_every": 10, "keep_every": 20}, 6),  # 20 40 60 80 100, and 90
        ({"checkpoint_every": 10, "keep_every": 25}, 4),  # 50, and 80 90 100
        ({"checkpoint_every": 10, "keep_every": 10, "keep_best": 5}, 10),
        ({"checkpoint_every": 30, "keep_every": 50}, 3),  # 60 90 100, of which 100 stays
    ],
)
def test_the_most_checkpoints_at_any_moment(training, expected):
    assert kept_checkpoints(TrainingConfig(num_steps=100, eval_every=10, **training)) == expected


def test_bytes_of_a_checkpoint_are_those_of_the_state(config):
    state = abstract_state(config, preflight.make_mesh(config.mesh))
    leaves = jax.tree.leaves((state.params, state.opt_state))
    counted = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    assert 0 <= counted - checkpoint_bytes(config) < 64  # counters of steps


def test_checkpoints_that_are_there_count_as_room(config, tmp_path, monkeypatch):
    each = checkpoint_bytes(config)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0.5 * each))
    with pytest.raises(InputError, match="^disk: got room for .* expected room for 1 checkpoints"):
        preflight.check_disk(config, tmp_path / "run")
    step = tmp_path / "run/checkpoints/10"
    step.mkdir(parents=True)
    (step / "array").write_bytes(b"0" * (each // 2))
    preflight.check_disk(config, tmp_path / "run")
    step.rename(tmp_path / "run/checkpoints/quarantine")
    with pytest.raises(InputError, match="^disk"):
        preflight.check_disk(config, tmp_path / "run")


def test_a_folder_that_may_not_be_written_is_told(config, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.os, "access", lambda path, mode: Path(path) != tmp_path)
    assert problems_of(config, tmp_path / "run") == ["run"]


@pytest.fixture
def run(config, tmp_path) -> Path:
    """A run that has been created and not trained."""
    path = tmp_path / "run"
    with RunDirectory(path) as directory:
        create_run(directory, config, open_corpora(config.data))
    return path


def test_a_run_goes_on_if_its_files_are_as_they_were(config, run):
    (run / "summary.json").write_text(json.dumps({"schema_version": 1}))
    assert check_run(config, run, partial(open_corpora, config.data), resume=True)


def test_every_damaged_file_of_a_run_is_named(config, run):
    (run / "tokenizer.model").write_bytes(b"\0\1\2")
    (run / "fingerprint.json").write_text("[]")
    (run / "summary.json").write_text("{")
    (run / "config.json").unlink()
    with pytest.raises(InputError) as raised:
        check_run_files(run, open_corpora(config.data))
    named = ["config.json", "fingerprint.json", "summary.json", "tokenizer.model"]
    for problem, name in zip(raised.value.problems, named, strict=True):
        assert str(run / name) in problem


def test_a_run_does_not_go_on_with_another_corpus(config, run):
    record = json.loads((run / "fingerprint.json").read_text())
    record["corpora"][0]["sha"] = "0" * 64
    (run / "fingerprint.json").write_text(json.dumps(record))
    assert problems_of(config, run, resume=True) == ["data.corpus"]


def test_a_run_that_another_process_made_meanwhile_is_not_written_over(tmp_path, monkeypatch):
    run = RunDirectory(tmp_path / "run")

    def check(*_, **__) -> dict:
        """Takes its time; meanwhile another job makes the run."""
        with RunDirectory(run.path) as others:
            others.create("others")
        return {}

    monkeypatch.setattr("workflows.train.find_run", lambda *_, **__: Found(run, RunConfig(), True))
    monkeypatch.setattr("workflows.train.check_run", check)
    monkeypatch.setattr("workflows.train.prepare_runtime", lambda *_: None)
    with pytest.raises(InputError, match=r"run: got .*/run, which another process made meanwhile"):
        train.main(["decoder_only/tiny", "--run", str(run.path)])
    assert run.read("run.json")["name"] == "others"
    assert not run.config_file.exists()
