"""The options by which processes find each other reach what joins them."""

import io
from typing import Any

import pytest
from rich.console import Console

from configs.errors import InputError
from workflows import runtime
from workflows.runtime import ProcessOptions, RuntimeOptions, prepare_runtime


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
