"""A run that is stopped, however hard, goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

STEPS = 300
# Saved every 20 steps and logged every step; long enough for a kill to land in the middle.
SCHEDULE = [
    f"--training.num-steps={STEPS}",
    "--training.checkpoint-every=20",
    "--training.eval-every=40",
    "--training.log-every=1",
]


def records(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> dict[int, float]:
    return {int(record["step"]): record["loss"] for record in records(run)}


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len(losses(run)) < step:
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.05)


@pytest.fixture
def uninterrupted(isoflop, tiny, tiny_corpus, tmp_path) -> dict[int, float]:
    result = isoflop(
        "train", "decoder_only/tiny", "--run=whole", f"--corpus={tiny_corpus}", *tiny, *SCHEDULE
    )
    assert result.returncode == 0, result.stderr
    return losses(tmp_path / "whole")


@pytest.mark.slow
def test_killed_run_continues_with_bitwise_equal_losses(
    uninterrupted, isoflop, start_isoflop, tiny, tiny_corpus, tmp_path
):
    run = tmp_path / "killed"
    process = start_isoflop(
        "train", "decoder_only/tiny", f"--run={run}", f"--corpus={tiny_corpus}", *tiny, *SCHEDULE
    )
    wait_for_step(run, 70, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads((run / "run.json").read_text())["status"] == "training"

    result = isoflop("train", run)
    assert result.returncode == 0, result.stderr
    assert losses(run) == uninterrupted
    assert [int(record["step"]) for record in records(run)] == list(range(1, STEPS + 1))
    assert json.loads((run / "run.json").read_text())["status"] == "complete"


@pytest.mark.slow
def test_terminated_run_saves_exits_143_and_continues_equal(
    uninterrupted, isoflop, start_isoflop, tiny, tiny_corpus, tmp_path
):
    run = tmp_path / "preempted"
    process = start_isoflop(
        "train", "decoder_only/tiny", f"--run={run}", f"--corpus={tiny_corpus}", *tiny, *SCHEDULE
    )
    wait_for_step(run, 50, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    saved = max(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    assert saved == max(losses(run))  # nothing done was lost

    assert isoflop("train", run).returncode == 0
    assert losses(run) == uninterrupted
    ledger = json.loads((run / "ledger.json").read_text())
    assert ledger["rows"] == STEPS * 8
    assert ledger["tokens_read"] + ledger["tokens_padded"] == STEPS * 8 * 32
