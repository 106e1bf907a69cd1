"""What the front door does around a command: before it, when it is told to stop, and after it."""

import os
import signal
import sys
from types import SimpleNamespace

import jax
import pytest

import isoflop
from train import distributed, platform


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


class Left(BaseException):
    """In place of os._exit, with its status."""


def leave(status: int) -> None:
    raise Left(status)


@pytest.mark.parametrize("pid", [1, 2])
def test_the_first_process_of_a_container_can_be_told_to_stop(order, monkeypatch, pid):
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(os, "getpid", lambda: pid)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(sys, "argv", ["isoflop", "prepare"])
    try:
        with pytest.raises(SystemExit):
            isoflop.main()
        handler = signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    if pid != 1:
        assert handler is signal.SIG_DFL, "which the kernel obeys, whatever runs"
        return
    assert callable(handler)
    with pytest.raises(Left, match="143"):
        handler(signal.SIGTERM, None)


@pytest.mark.parametrize("has_joined", [False, True])
def test_an_interrupt_waits_for_no_other_process(monkeypatch, has_joined):
    def run(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(isoflop, "run", run)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: has_joined)
    monkeypatch.setattr(distributed.os, "_exit", leave)
    monkeypatch.setattr(sys, "argv", ["isoflop", "prepare"])
    with pytest.raises(Left if has_joined else SystemExit, match="143"):
        isoflop.main()


@pytest.mark.parametrize("command", sorted({*isoflop.GO_ON, "launch"}))
def test_a_broken_pipe_is_a_failure_of_what_goes_on(monkeypatch, command):
    monkeypatch.setitem(sys.modules, f"workflows.{command}", breaking())
    with pytest.raises(BrokenPipeError):
        isoflop.run([command])


def test_results_that_nobody_reads_to_the_end_are_no_failure(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "workflows.plan", breaking())
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert isoflop.run(["plan"]) == 0


def breaking() -> SimpleNamespace:
    """A command's module, which finds a pipe broken."""

    def main(rest):
        raise BrokenPipeError

    return SimpleNamespace(main=main)
