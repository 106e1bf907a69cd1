"""`isoflop checkpoint` lists, verifies and prunes."""

import json
from pathlib import Path

import pytest

import isoflop as front_door
from configs.schema import RunConfig, TrainingConfig
from configs.serialize import save
from train.manifest import ArrayEntry, write_manifest
from train.run_directory import RunDirectory

SAVED = "2026-11-28T15:00:00Z"


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with steps 10 to 50, of which step 20 scored best, and one step put aside."""
    path = tmp_path / "run"
    with RunDirectory(path) as opened:
        opened.create("run")
    save(RunConfig(), path / "config.json")
    for step, score in [(10, None), (20, 2.0), (30, 2.5), (40, 3.0), (50, None)]:
        folder = path / "checkpoints" / str(step)
        (folder / "state").mkdir(parents=True)
        (folder / "state" / "data").write_bytes(bytes(1000 + step))
        arrays = {"step": ArrayEntry("int32", ())}
        write_manifest(folder, step=step, score=score, saved=SAVED, arrays=arrays)
    (path / "checkpoints" / "quarantine" / "5").mkdir(parents=True)
    return path


@pytest.fixture
def checkpoint(capsys):
    """Runs `isoflop checkpoint ARGS` in this process; exit status, lines of stdout, of stderr."""

    def command(*args: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        status = front_door.run(["checkpoint", *map(str, args)])
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return command


def steps(run: Path) -> list[int]:
    return sorted(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit())


def test_list_shows_every_step_with_its_size_time_and_score(run, checkpoint):
    status, lines, _ = checkpoint("list", run)
    assert status == 0
    assert [line.split() for line in lines[:2]] == [
        ["10", "0.0", "MB", SAVED, "whole"],
        ["20", "0.0", "MB", SAVED, "2.0000", "nats", "whole"],
    ]
    assert lines[5] == f"1 damaged and put aside in {run}/checkpoints/quarantine"
    status, lines, _ = checkpoint("list", run, "--json")
    assert json.loads("\n".join(lines))["steps"][1] == {
        "step": 20,
        "bytes": 1020,
        "saved": SAVED,
        "score": 2.0,
        "problems": [],
    }


def test_verify_names_every_damaged_file_and_fails(run, checkpoint):
    assert checkpoint("verify", run)[:2] == (0, [f"step {n}: intact" for n in steps(run)])
    data = run / "checkpoints" / "30" / "state" / "data"
    data.write_bytes(b"\1" + data.read_bytes()[1:])
    (run / "checkpoints" / "40" / "state" / "data").unlink()
    status, lines, _ = checkpoint("verify", run)
    assert status == 1
    assert lines == [
        "step 10: intact",
        "step 20: intact",
        "step 30: state/data does not match its checksum",
        "step 40: state/data is missing",
        "step 50: intact",
    ]
    assert checkpoint("verify", run, "--step", 20)[0] == 0
    assert checkpoint("verify", run, "--step", 40, "--json")[0] == 1
    assert steps(run) == [10, 20, 30, 40, 50]  # nothing is moved


def test_prune_keeps_by_the_rules_and_says_what_goes(run, checkpoint):
    rules = ("--keep", 1, "--keep-every", 20, "--keep-best", 1)
    status, lines, _ = checkpoint("prune", run, *rules, "--dry-run")
    assert (status, lines) == (0, ["would remove step 10", "would remove step 30"])
    assert steps(run) == [10, 20, 30, 40, 50]
    status, lines, _ = checkpoint("prune", run, *rules)
    assert (status, lines) == (0, ["removed step 10", "removed step 30"])
    assert steps(run) == [20, 40, 50]
    assert checkpoint("prune", run, "--quarantine")[1] == ["removed quarantine/5"]
    assert steps(run) == [20, 40, 50]
    assert not (run / "checkpoints" / "quarantine").exists()
    assert checkpoint("prune", run, "--keep", 3)[1] == ["nothing to remove"]


def test_prune_keeps_by_the_runs_own_rules_too(run, checkpoint):
    own = TrainingConfig(eval_every=10, keep_every=30, keep_best=1)
    save(RunConfig(training=own), run / "config.json")
    assert checkpoint("prune", run, "--keep", 1)[1] == ["removed step 10", "removed step 40"]
    assert checkpoint("prune", run, "--keep", 1, "--keep-every", 0)[1] == ["removed step 30"]
    assert steps(run) == [20, 50]


def test_prune_counts_intact_steps_and_leaves_damaged_ones_alone(run, checkpoint):
    (run / "checkpoints" / "50" / "state" / "data").write_bytes(bytes(1050 - 1) + b"1")
    status, lines, _ = checkpoint("prune", run, "--keep", 1)
    assert status == 0
    assert lines[-1] == "step 50 is damaged, and stays: the next start puts it aside"
    assert steps(run) == [40, 50]


def test_a_run_that_is_being_trained_is_not_pruned(run, checkpoint):
    with RunDirectory(run):
        status, _, errors = checkpoint("prune", run, "--keep", 1)
    assert status == 2
    assert "which another process is writing" in errors[0]
    assert steps(run) == [10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["list", "RUN", "--keep", 3], "keep: got 3, expected prune as the action"),
        (["prune", "RUN", "--step", 10], "step: got 10, expected verify as the action"),
        (["prune", "RUN"], "keep: got 0 and no --quarantine, expected something to remove"),
        (["prune", "RUN", "--keep", -1], "keep: got -1, expected 0 or more"),
        (["prune", "RUN", "--keep-best", 1], "keep_best: got 1, expected prune with --keep"),
        (["verify", "RUN", "--step", 11], "step: got 11, expected one of [10, 20, 30, 40, 50]"),
        (["verify", "elsewhere"], "run: got elsewhere, expected a run directory"),
        (["remove", "RUN"], "action: got 'remove', expected one of list, verify, prune"),
    ],
    ids=str,
)
def test_bad_arguments_are_told_in_one_line(run, checkpoint, args, message):
    args = [run if word == "RUN" else word for word in args]
    status, _, errors = checkpoint(*args)
    assert (status, len(errors)) == (2, 1)
    assert message in errors[0]
    assert steps(run) == [10, 20, 30, 40, 50]
