"""The options by which processes find each other reach what joins them."""

import errno
import io
import os
from typing import Any

import pytest
from rich.console import Console

from configs.errors import InputError
from train.progress import TrainingProgress
from workflows import runtime
from workflows.runtime import ProcessOptions, RuntimeOptions, prepare_runtime
from workflows.train import TrainOptions


@pytest.fixture
def joined(monkeypatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(runtime, "start_processes", lambda **options: calls.append(options))
    return calls


def test_options_are_passed_on(joined):
    options = ProcessOptions(
        coordinator="10.0.0.1:1234",
        num_processes=8,
        process_id=3,
        start_timeout=30,
        heartbeat_timeout=20,
        compilation_cache="none",
    )
    prepare_runtime(options, Console(file=io.StringIO()))
    assert joined == [
        {
            "coordinator": "10.0.0.1:1234",
            "num_processes": 8,
            "process_id": 3,
            "detect": False,
            "start_timeout": 30,
            "heartbeat_timeout": 20,
        }
    ]


def test_commands_of_one_process_join_none(joined, monkeypatch):
    monkeypatch.setenv("ISOFLOP_COORDINATOR", "127.0.0.1:1234")
    prepare_runtime(RuntimeOptions(compilation_cache="none"), Console(file=io.StringIO()))
    assert joined == []


def test_what_makes_no_sense_is_refused():
    options = ProcessOptions(process_id=1, compilation_cache="none")
    with pytest.raises(InputError, match="^process_id: got 1, expected --coordinator"):
        prepare_runtime(options, Console(file=io.StringIO()))


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("problem", [BrokenPipeError(), OSError(errno.EIO, "terminal closed")])
def test_a_run_does_not_end_for_want_of_a_reader(problem, is_terminal):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise problem

    console = Console(file=Gone(), force_terminal=is_terminal)
    prepare_runtime(RuntimeOptions(compilation_cache="none"), console)
    record = {"step": 2, "loss": 1.0, "tokens_per_second": None}
    with pytest.raises(InterruptedError, match="the one that counts"):
        with TrainingProgress(console, num_steps=2, start_step=0) as bar:
            bar.update(record)
            bar.note("a line above it")
            raise InterruptedError("the one that counts")


def test_others_can_write_where_the_reader_has_gone():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        prepare_runtime(RuntimeOptions(compilation_cache="none"), Console(file=stream))
        print("a line of a library's", file=stream, flush=True)
        assert os.fstat(stream.fileno()).st_rdev == os.stat(os.devnull).st_rdev


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"hang_seconds": -1.0}, r"options\.hang_seconds: got -1\.0, expected 0 or more"),
        ({"hang_multiple": float("nan")}, r"options\.hang_multiple: got nan, expected 0 or more"),
    ],
)
def test_a_hang_is_none_of_less_than_no_time(options, expected):
    with pytest.raises(InputError, match=f"^{expected}$"):
        TrainOptions(target="decoder_only/tiny", **options)
