"""How training ends: by which status, and with nobody left to read what it says."""

import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from configs.errors import InputError
from configs.presets import PRESETS
from train.checkpoint import SaveError
from train.run_directory import RunDirectory
from train.supervision import EXIT_PREEMPTED, EXIT_RETRY
from workflows import find_run, train
from workflows.find_run import await_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "cause, status, statuses",
    [
        (ValueError("Gloo all-reduce failed: Connection closed by peer"), EXIT_RETRY, []),
        (OSError("No space left on device"), 1, ["failed"]),
    ],
    ids=["lost a peer", "full disk"],
)
def test_a_save_that_failed_for_the_want_of_a_peer_is_tried_again(
    monkeypatch, cause, status, statuses
):
    def fail(*_: object, **__: object) -> None:
        raise SaveError("step 3 could not be saved") from cause

    monkeypatch.setattr(train, "train", fail)
    monkeypatch.setattr(train, "require_same_corpora", lambda *_: None)
    said: list[str] = []
    run: Any = SimpleNamespace(read=lambda name: {}, set_status=said.append)
    config = PRESETS["decoder_only/tiny"]()
    assert train.finish_training(run, config, {}, Console(quiet=True)) == status
    assert said == statuses


@pytest.fixture
def listed(monkeypatch):
    """Folders listed, without which a host goes on seeing what it saw on NFS before."""
    folders: list[Path] = []
    monkeypatch.setattr(find_run, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(find_run.os, "listdir", folders.append)
    return folders


def test_a_run_made_on_another_host_is_looked_for_until_it_is_seen(listed, tmp_path):
    class Remembered(RunDirectory):
        def has(self, name: str) -> bool:
            return {tmp_path, self.path} <= set(listed)

    await_run(Remembered(tmp_path / "run", is_writer=False))
    assert listed == [tmp_path, tmp_path / "run"]


def test_a_run_that_other_hosts_never_see_is_bad_input(listed, tmp_path):
    with pytest.raises(InputError, match="^run: got .*without fingerprint.json .*all hosts"):
        await_run(RunDirectory(tmp_path, is_writer=False), seconds=0.0)
    await_run(RunDirectory(tmp_path), seconds=0.0)  # the one that makes it
    assert listed == []


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["pipe", "terminal"])
def test_a_run_whose_stderr_is_gone_saves_when_told_to_stop(reader, tiny, tiny_corpus, tmp_path):
    ours, theirs = os.pipe() if reader == "pipe" else pty.openpty()
    process = subprocess.Popen(
        [
            *(sys.executable, ROOT / "isoflop.py", "train", "decoder_only/tiny", *tiny),
            *("--run=run", f"--corpus={tiny_corpus}", "--training.num-steps=100000"),
            "--training.log-every=1",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    run, deadline = tmp_path / "run", time.monotonic() + 120
    try:
        while not (run / "metrics.jsonl").exists():
            assert process.poll() is None and time.monotonic() < deadline
            with suppress(BlockingIOError):
                os.read(ours, 65_536)
            time.sleep(0.05)
        os.close(ours)
        time.sleep(0.5)  # a bar is drawn ten times a second
        assert process.poll() is None, "it ended for want of a reader"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == EXIT_PREEMPTED
    finally:
        process.kill()
        process.wait()
    saved = [int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit()]
    assert len(saved) == 1 and saved[0] > 0
