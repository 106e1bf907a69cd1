"""What the scripts that break runs see, aim at and conclude; no run is needed for that."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reliability.chaos import next_aim, part_of_start_up
from benchmarks.reliability.elastic import LEGS, compared
from benchmarks.reliability.failures import cases, happened
from benchmarks.reliability.goodput import Seen, goodput_config
from benchmarks.reliability.processes import launched_processes, marked_processes, shell_status
from benchmarks.reliability.promises import Promise, conclude
from benchmarks.reliability.run_files import Watch, last_record, other_files, records, step_of
from benchmarks.reliability.scene import Scene
from benchmarks.reliability.small_run import MARK, make_job, small_config
from configs.serialize import save


def append(path: Path, *lines: Mapping[str, object]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def event(name: str, detail: str) -> dict[str, object]:
    return {"time": "2026-01-31T12:00:00Z", "event": name, "detail": detail}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    save(small_config(tmp_path, num_steps=100, eval_every=10), folder / "config.json")
    return folder


def test_phases_follow_from_what_the_run_has_written(run: Path):
    metrics, evaluations, events = (
        run / f"{name}.jsonl" for name in ("metrics", "evaluations", "events")
    )
    watch = Watch(run)
    assert watch.phase() == "start-up" and watch.steps() == 0
    append(metrics, *({"step": step} for step in range(1, 10)))
    assert watch.phase() == "steps" and watch.steps() == 9
    append(metrics, {"step": 10})
    assert watch.phase() == "evaluation"
    append(evaluations, {"step": 10})
    assert watch.phase() == "steps"
    append(events, event("saving", "step 10"))
    assert watch.phase() == "save" and watch.saves() == 0
    append(metrics, {"step": 11})  # the save runs behind the steps
    assert watch.phase() == "save"
    append(events, event("saved", "step 10: 1.2 s, 0.3 s of them in the way, 12.3 MB"))
    assert watch.phase() == "steps" and watch.saves() == 1


def test_a_new_start_owes_nothing_to_the_lines_of_the_one_before(run: Path):
    append(run / "metrics.jsonl", *({"step": step} for step in range(1, 15)))
    append(run / "events.jsonl", event("saving", "step 10"), event("saving", "step 12"))
    time.sleep(0.02)
    watch = Watch(run)
    assert watch.phase() == "start-up" and watch.events() == []
    append(run / "events.jsonl", event("resumed", "after step 10"))
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {n}}}\n' for n in range(1, 11)))
    assert watch.phase() == "start-up" and watch.steps() == 0
    append(run / "metrics.jsonl", {"step": 11})
    assert watch.phase() == "steps" and watch.steps() == 11


def test_lines_that_were_cut_short_are_no_records(tmp_path: Path):
    path = tmp_path / "lines.jsonl"
    assert records(path) == [] and last_record(path) is None
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert records(path) == [{"step": 1}, {"step": 2}]
    assert last_record(path) == {"step": 2}
    path.write_text("".join(f'{{"step": {n}, "pad": "{"x" * 100}"}}\n' for n in range(500)))
    last = last_record(path)
    assert last and last["step"] == 499


def test_an_event_names_its_step():
    assert step_of(event("resumed", "after step 120")) == 120
    assert step_of(event("data_warning", "few rows")) == 0


def test_leftovers_are_files_that_an_undisturbed_run_has_none_like(tmp_path: Path):
    for name in ("whole", "broken"):
        for file in ("metrics.jsonl", "tensorboard/events.1", "checkpoints/100/state/d/17"):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    (broken / "checkpoints/100/state/d/18").touch()
    (broken / "tensorboard/events.2").touch()
    assert other_files(whole, broken) == []
    (broken / "checkpoints/saving-120").mkdir()
    (broken / "metrics.jsonl.tmp").touch()
    assert other_files(whole, broken) == ["checkpoints/saving-120", "metrics.jsonl.tmp"]


def test_the_last_kills_go_for_saves_while_these_are_too_few():
    rng = np.random.default_rng(0)
    aims = [next_aim(rng, least_saves=5, kills_left=50, saves_hit=0) for _ in range(200)]
    assert {aim.phase for aim in aims} == {"start-up", "steps", "evaluation", "save"}
    assert all(0 <= aim.share < 1 for aim in aims)
    late = [next_aim(rng, least_saves=5, kills_left=3, saves_hit=2) for _ in range(20)]
    assert {aim.phase for aim in late} == {"save"}


def test_a_start_up_is_told_by_what_it_printed():
    line = "cpu · huge pages: on · XLA_FLAGS: none · compilation cache: here\n"
    assert part_of_start_up("") == "imports"
    assert part_of_start_up(line) == "compile"
    assert part_of_start_up(line + "  compiled 2 programs in 3.2 s\n") == "restore"


def test_processes_are_found_by_their_mark(tmp_path: Path):
    mark = str(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        env={MARK: mark, "ISOFLOP_PROCESS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout and process.stdout.readline()
        assert list(marked_processes(mark)) == [process.pid]
        assert launched_processes(mark) == {1: process.pid}
    finally:
        process.kill()
        process.wait()
        process.communicate()
    assert marked_processes(mark) == {}


def test_statuses_are_a_shells():
    assert [shell_status(status) for status in (0, 42, -9, -15)] == [0, 42, 137, 143]


def test_a_broken_promise_fails_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    kept = Promise("a | b", "1", "1", True)
    out = tmp_path / "record.json"
    assert conclude([kept], {"seed": 3}, out) == 0
    assert json.loads(out.read_text())["promises"] == [kept._asdict()]
    assert conclude([kept, Promise("c", "1", "2", False)], {}) == 1
    assert conclude([], {}) == 1  # nothing was shown
    lines = capsys.readouterr().out.splitlines()
    assert "| a / b | 1 | 1 | yes |" in lines and "| c | 1 | 2 | **no** |" in lines


def test_a_case_that_cannot_be_tried_is_no_kept_promise(tmp_path: Path):
    def refused(scene: Scene) -> list[Promise]:
        raise RuntimeError("no small disk can be mounted here")

    [promise] = happened("full_disk", refused, Scene(tmp_path))
    assert not promise.kept and "not tried: no small disk" in promise.seen


def test_every_phase_meets_both_signals():
    names = set(cases())
    for phase in ("imports", "compile", "steps", "evaluation", "save"):
        assert {f"sigterm_in_{phase}", f"sigint_in_{phase}"} <= names
    assert {"full_disk", "two_jobs", "coordinator_killed", "worker_killed", "hang"} <= names


def trained(losses: list[float], tokens: list[int]) -> list[dict[str, float]]:
    return [
        {"step": n, "loss": loss, "tokens": count, "tokens_read": count, "tokens_padded": 0,
         "epochs": 0.1}
        for n, (loss, count) in enumerate(zip(losses, tokens, strict=True), start=1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "losses, tokens, kept",
    [
        ([3.0, 2.0004, 1.0], [10, 21, 30], [True, True, True]),
        ([3.0, 2.002, 1.0], [10, 21, 30], [True, True, False]),
        ([3.0, 2.0, 1.0], [10, 20, 30], [True, False, True]),
        ([3.0, 2.0], [10, 21], [False, False, False]),
    ],
)
def test_a_moved_run_is_held_to_its_batches_and_losses(losses, tokens, kept):
    whole = trained([3.0, 2.0, 1.0], [10, 21, 30])
    assert [promise.kept for promise in compared(whole, trained(losses, tokens))] == kept


def test_legs_fill_their_meshes():
    assert all(leg.mesh.num_devices == leg.processes for leg in LEGS)
    assert [leg.processes for leg in LEGS] == [1, 4, 2]


def test_goodput_from_outside_leaves_evaluation_apart():
    seen = Seen(seconds=110.0, evaluation=10.0, steps=900, step_seconds=0.1, kills=0)
    assert seen.goodput == pytest.approx(0.9)


def test_intervals_follow_from_the_time_of_a_step(tmp_path: Path):
    config = goodput_config(tmp_path, 0.25, minutes=2, save_seconds=20, batch_size=64)
    assert config.training.num_steps == 480
    assert config.training.checkpoint_every == 80
    assert config.training.eval_every == 120


def test_a_job_is_found_by_its_run_and_gets_one_device(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    monkeypatch.setenv("ISOFLOP_COORDINATOR", "elsewhere:1")
    config = small_config(tmp_path, num_steps=10)
    alone = make_job(tmp_path, "alone", config)
    assert alone.command[-1] == "--resume"
    assert alone.environment[MARK] == str((tmp_path / "alone").resolve())
    assert not {"XLA_FLAGS", "ISOFLOP_COORDINATOR"} & set(alone.environment)
    launched = make_job(tmp_path, "two", config, processes=2)
    place = launched.command.index("launch")
    assert launched.command[place : place + 3] == ("launch", "--processes", "2")
    assert "--resume" not in launched.command
