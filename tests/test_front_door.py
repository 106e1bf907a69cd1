"""Which commands the front door starts again with huge pages, before anything else."""

import sys

import pytest

import isoflop
from train import platform


@pytest.fixture
def order(monkeypatch):
    """What `main` does, in order."""
    calls: list[object] = []
    monkeypatch.setattr(platform, "restart_with_huge_pages", lambda: calls.append("restart"))
    monkeypatch.setattr(isoflop, "run", lambda args: calls.append(args) or 5)
    return calls


@pytest.mark.parametrize("command", ["pretrain", "train", "sweep", "adapt", "doctor"])
def test_commands_that_compute_are_restarted_before_they_run(order, monkeypatch, command):
    monkeypatch.setattr(sys, "argv", ["isoflop", command, "--help"])
    with pytest.raises(SystemExit) as exit_:
        isoflop.main()
    assert order == ["restart", [command, "--help"]]
    assert exit_.value.code == 5


@pytest.mark.parametrize("args", [[], ["--help"], ["plan", "train"], ["prepare"], ["nonsense"]])
def test_others_run_at_once(order, monkeypatch, args):
    monkeypatch.setattr(sys, "argv", ["isoflop", *args])
    with pytest.raises(SystemExit):
        isoflop.main()
    assert order == [args]


def test_every_command_named_exists():
    assert set(isoflop.COMMANDS) >= isoflop.ON_DEVICES
