"""Where the wall-clock of a run goes, over its restarts."""

import json
import time
from types import SimpleNamespace

import pytest

from train import goodput as goodput_module
from train.goodput import GOODPUT_FILE, Goodput, process_began
from train.run_directory import RunDirectory


@pytest.fixture
def clock(monkeypatch):
    """Both clocks, moved by the test."""
    now = SimpleNamespace(value=1000.0)
    monkeypatch.setattr(goodput_module.time, "time", lambda: now.value)
    monkeypatch.setattr(goodput_module.time, "perf_counter", lambda: now.value)
    monkeypatch.setattr(goodput_module.time, "monotonic", lambda: now.value)
    return now


def seconds(path) -> dict[str, float]:
    record = json.loads((path / GOODPUT_FILE).read_text())
    return {name: value for name, value in record["seconds"].items() if value}


def spend(goodput: Goodput, clock, name: str, amount: float) -> None:
    with goodput.phase(name):
        clock.value += amount


def test_every_second_is_counted_once_and_to_the_inner_phase(tmp_path, clock):
    goodput = Goodput(RunDirectory(tmp_path), began=997.0)
    spend(goodput, clock, "compile", 5.0)
    clock.value += 1.0
    with goodput.phase("step"):
        clock.value += 10.0
        spend(goodput, clock, "save", 2.0)
        clock.value += 10.0
    spend(goodput, clock, "evaluate", 100.0)
    goodput.write()
    assert seconds(tmp_path) == {
        "start": 3.0, "compile": 5.0, "other": 1.0, "step": 20.0, "save": 2.0, "evaluate": 100.0,
    }  # fmt: skip
    assert goodput.share() == pytest.approx(20 / 31)  # evaluation in neither side


def test_after_a_death_the_gap_and_the_steps_done_again_count_against_it(tmp_path, clock):
    first = Goodput(RunDirectory(tmp_path), began=clock.value)
    spend(first, clock, "step", 30.0)
    first.saved(3)
    spend(first, clock, "step", 20.0)
    first.write()
    clock.value += 8.0  # killed; the supervisor waits
    second = Goodput(RunDirectory(tmp_path), began=clock.value)
    clock.value += 4.0
    second.resumed(3)
    spend(second, clock, "step", 38.0)
    second.write()
    assert seconds(tmp_path) == {"step": 68.0, "lost": 20.0, "down": 8.0, "other": 4.0}
    assert second.share() == pytest.approx(0.68)
    assert json.loads((tmp_path / GOODPUT_FILE).read_text())["starts"] == 2


def test_the_time_after_a_stop_that_was_asked_for_is_not_the_runs(tmp_path, clock):
    first = Goodput(RunDirectory(tmp_path), began=clock.value)
    spend(first, clock, "step", 30.0)
    first.saved(3)
    first.write(stopped=True)
    clock.value += 5000.0
    second = Goodput(RunDirectory(tmp_path), began=clock.value - 2.0)
    second.resumed(3)
    second.write()
    assert seconds(tmp_path) == {"step": 30.0, "start": 2.0}


def test_writes_that_can_wait_are_few(tmp_path, clock):
    goodput = Goodput(RunDirectory(tmp_path), began=clock.value)
    goodput.write(is_due=False)
    written = (tmp_path / GOODPUT_FILE).read_bytes()
    spend(goodput, clock, "step", 1.0)
    goodput.write(is_due=False)
    assert (tmp_path / GOODPUT_FILE).read_bytes() == written
    spend(goodput, clock, "step", 10.0)
    goodput.write(is_due=False)
    assert (tmp_path / GOODPUT_FILE).read_bytes() != written


@pytest.mark.parametrize(
    "text", ["", "{}", '{"schema_version": 1, "seconds": {"step": "x"}, "marks": {}}']
)
def test_a_damaged_record_is_begun_anew(tmp_path, clock, text):
    (tmp_path / GOODPUT_FILE).write_text(text)
    goodput = Goodput(RunDirectory(tmp_path), began=clock.value)
    spend(goodput, clock, "step", 1.0)
    goodput.write()
    assert seconds(tmp_path) == {"step": 1.0}


def test_this_process_began_before_now():
    assert 0 < time.time() - process_began() < 3600 * 24
