"""One writer, whole files, and records cut back to what a checkpoint knows."""

import json
import os
import subprocess
import sys

import pytest

from configs.errors import InputError
from configs.serialize import save
from tests.train.samples import tiny_run
from train.run_directory import RunDirectory


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path):
    with RunDirectory(tmp_path / "run"):
        with pytest.raises(InputError, match="which another process is writing"):
            RunDirectory(tmp_path / "run").__enter__()
    with RunDirectory(tmp_path / "run"):
        pass


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from train.run_directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])):\n"
        "    print('locked', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match="which another process is writing"):
            RunDirectory(tmp_path / "run").__enter__()
        holder.kill()
    with RunDirectory(tmp_path / "run"):
        pass


def test_what_a_kill_within_a_write_left_is_removed(tmp_path):
    with RunDirectory(tmp_path / "run") as run:
        run.create("first")
    (tmp_path / "run" / ".run.json.123.tmp").write_text("{")
    (tmp_path / "run" / "metrics.jsonl.tmp").write_text("{")
    (tmp_path / "run" / "events.jsonl").write_text('{"event": "resu')
    with RunDirectory(tmp_path / "run") as run:
        run.event("resumed", "after step 3")
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"run.json", ".lock", "events.jsonl"}
    first, second = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    assert first == '{"event": "resu' and json.loads(second)["event"] == "resumed"


def test_a_folder_made_for_a_run_that_never_was_goes_again(tmp_path):
    with pytest.raises(InputError), RunDirectory(tmp_path / "deep" / "run"):
        raise InputError("model.num_layers: got 0, expected 1 or more")
    assert not (tmp_path / "deep").exists()


def test_of_several_processes_one_writes(tmp_path):
    with RunDirectory(tmp_path / "run") as run:
        run.create("first")
        with RunDirectory(tmp_path / "run", is_writer=False) as other:
            other.create("second")
            other.write("ledger.json", {})
            other.append("metrics.jsonl", {"step": 1})
            other.set_status("failed")
            other.event("saved", "step 1")
            other.event("hang", "nothing for 5 s", from_any_process=True)
        assert (run.status, run.read("run.json")["name"]) == ("created", "first")
        assert {p.name for p in run.path.iterdir()} == {"run.json", ".lock", "events.jsonl"}
        [line] = (run.path / "events.jsonl").read_text().splitlines()
        assert json.loads(line)["event"] == "hang"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="run: got .*expected a folder that can be written"):
        RunDirectory(tmp_path / "file" / "run").__enter__()


@pytest.mark.parametrize("make", [True, False], ids=["empty folder", "no folder"])
def test_what_is_no_run_is_refused_for_reading(tmp_path, make):
    if make:
        (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=r"expected a run directory \(with a run.json\)"):
        RunDirectory.open(tmp_path / "run")


@pytest.fixture
def run(tmp_path):
    with RunDirectory(tmp_path / "run") as opened:
        opened.create("first")
        yield opened


def test_a_run_is_created_once_and_keeps_its_record(run):
    created = run.read("run.json")
    assert created["schema_version"] == 1
    assert (created["name"], created["status"]) == ("first", "created")
    run.create("second")
    assert run.read("run.json") == created
    run.set_status("training")
    assert RunDirectory.open(run.path).status == "training"
    assert run.read("run.json")["created"] == created["created"]


def test_the_config_comes_back(run):
    save(tiny_run(), run.config_file)
    assert RunDirectory.open(run.path).config() == tiny_run()


def test_events_are_dated_lines(run):
    run.event("resumed", "after step 3")
    run.event("preempted", "saved step 5")
    lines = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["resumed", "preempted"]
    assert lines[0]["detail"] == "after step 3"
    assert lines[0]["time"].endswith("Z")


def test_records_beyond_the_restored_step_are_dropped(run):
    for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl"):
        for step in (1, 2, 3, 4):
            run.append(name, {"step": step, "loss": step / 3})
    run.event("preempted", "saved step 2")
    events = (run.path / "events.jsonl").read_bytes()
    whole = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    run.cut_back(2)
    for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl"):
        assert (run.path / name).read_text() == "".join(whole[:2])
    assert (run.path / "events.jsonl").read_bytes() == events
    run.cut_back(0)
    assert (run.path / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize("kept_characters", [1, 8, 20])
def test_a_line_that_a_kill_cut_short_is_dropped(run, kept_characters):
    run.append("metrics.jsonl", {"step": 1, "loss": 0.5})
    whole = (run.path / "metrics.jsonl").read_text()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2, "loss": 0.25})[:kept_characters])
    run.cut_back(5)
    assert (run.path / "metrics.jsonl").read_text() == whole
    run.append("metrics.jsonl", {"step": 2, "loss": 0.25})
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 2


DAMAGED_LINES = [
    b'{"step": 2, "l',
    b'{"stfp": 2}',
    b'{"step": "2"}',
    b"[2]",
    b'{"step": 2, "\xff": 1}',
]


@pytest.mark.parametrize("line", DAMAGED_LINES, ids=repr)
def test_a_damaged_line_costs_no_other_and_is_kept_aside(run, line):
    content = b'{"step": 1}\n' + line + b'\n{"step": 3}\n'
    (run.path / "metrics.jsonl").write_bytes(content)
    run.cut_back(5)
    assert (run.path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n{"step": 3}\n'
    assert (run.path / "metrics.jsonl.damaged").read_bytes() == content
    [event] = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    assert event["event"] == "record_damaged"
    assert event["detail"].startswith("metrics.jsonl: 1 unreadable lines left out")


def test_a_line_that_the_disk_has_no_room_for_leaves_nothing(run, monkeypatch):
    run.append("metrics.jsonl", {"step": 1})
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:5]))
        with pytest.raises(OSError, match="No space left"):
            run.append("metrics.jsonl", {"step": 2})
    run.append("metrics.jsonl", {"step": 3})
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 3}\n'


def test_the_last_saved_step_is_found_among_damaged_lines(run):
    assert run.last_saved() == ""
    run.event("saved", "step 10: 1.0 s, 0.1 s of them in the way, 5.0 MB")
    run.event("saved", "step 20: 1.0 s, 0.1 s of them in the way, 5.0 MB")
    with (run.path / "events.jsonl").open("ab") as file:
        file.write(b"\xff{\n[1]\n")
    run.event("resumed", "after step 10")
    assert run.last_saved() == "20"


def test_a_last_line_that_lacks_only_its_end_is_completed(run):
    (run.path / "metrics.jsonl").write_text('{"step": 1}')
    run.cut_back(1)
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_text_of_any_characters_survives_being_cut_back(run):
    # Line separators that str.splitlines() splits at, half a surrogate pair, and quotes.
    record = {"step": 1, "text": 'a\u2028b\x85c\x0cd\n"e" \ud83d 🎉'}
    run.append("samples.jsonl", record)
    run.cut_back(1)
    (line,) = (run.path / "samples.jsonl").read_text().split("\n")[:-1]
    assert json.loads(line) == record


def test_nothing_to_cut_back_is_fine(run):
    run.cut_back(3)
    assert not (run.path / "metrics.jsonl").exists()
