"""What is known of chips, and how a step becomes a record."""

import io
import json
import math
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import pytest
from rich.console import Console

from configs.objective_config import SpanCorruptionConfig
from data.ledger import CorpusFacts, Ledger, RowEntry
from planner.flops import training_flops_per_token
from planner.hardware import CHIPS, chip_of_device
from tests.model.samples import tiny_model
from tests.train.samples import tiny_run
from train.goodput import Goodput
from train.metrics import TensorBoard, peak_flops_per_second
from train.progress import TrainingProgress
from train.recorder import Clock, Recorder
from train.run_directory import RunDirectory
from train.step import StepMetrics

DEVICE_KINDS = {
    "TPU v4": ("v4", 275e12),
    "TPU v5 lite": ("v5e", 197e12),
    "TPU v5e": ("v5e", 197e12),
    "TPU v5": ("v5p", 459e12),
    "TPU v5p": ("v5p", 459e12),
    "TPU v6 lite": ("v6e", 918e12),
    "TPU v6e": ("v6e", 918e12),
    "NVIDIA A100-SXM4-80GB": ("a100", 312e12),
    "NVIDIA H100 80GB HBM3": ("h100", 989e12),
    "NVIDIA H200": ("h200", 989e12),
    "NVIDIA B200": ("b200", 2250e12),
}


@pytest.mark.parametrize("device_kind", DEVICE_KINDS)
def test_a_known_device_has_its_vendors_peak(device_kind):
    name, flops = DEVICE_KINDS[device_kind]
    assert chip_of_device(device_kind) == CHIPS[name]
    peak, source = peak_flops_per_second([SimpleNamespace(device_kind=device_kind)] * 4)
    assert peak == 4 * flops
    assert source == f"{name} dense bf16, vendor's figure"


@pytest.mark.parametrize("device_kind", ["cpu", "", "NVIDIA GeForce RTX 4090", "TPU v99"])
def test_an_unknown_device_has_no_figures(device_kind):
    assert chip_of_device(device_kind) is None


def test_a_device_without_figures_is_measured():
    peak, source = peak_flops_per_second([SimpleNamespace(device_kind="cpu")])
    assert 1e8 < peak < 1e15
    assert "measured" in source


class Bar(TrainingProgress):
    """Keeps the records a progress bar would show."""

    def __init__(self):
        super().__init__(Console(file=io.StringIO()), num_steps=10, start_step=0)
        self.records = []

    def update(self, record: Mapping[str, Any]) -> None:
        self.records.append(record)


@pytest.fixture
def seconds(monkeypatch):
    """A clock that the test moves."""
    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr("train.recorder.time.perf_counter", lambda: now.value)
    return now


@pytest.fixture
def recorder(tmp_path, seconds):
    config = tiny_run(log_every=2)
    run, board, bar = RunDirectory(tmp_path), TensorBoard(tmp_path / "board"), Bar()
    goodput = Goodput(run, began=time.time())
    made = Recorder(config, run, board, Clock(already=7.0), goodput, peak_flops=1e9)

    def read(step: int, after: float, loss: float = 2.0, shape=(8, 16)) -> dict[str, float]:
        seconds.value += after
        metrics = StepMetrics(*map(jnp.float32, (loss, 3.0, 0.25, 0.5, 0.01, 100.0, 1.0, 0.0)))
        entry = RowEntry(0, 0, step, 200 * step, 120 * step, 0, 80 * step, 0, 0, 100 * step)
        ledger = Ledger(facts=(CorpusFacts("a", 1000, 20, 0),), entries={(0, 0): entry})
        return made.read(step, metrics, shape, lambda: ledger, bar)

    def records() -> list[dict]:
        path = tmp_path / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    yield SimpleNamespace(read=read, records=records, made=made, bar=bar, config=config)
    board.close()


def test_a_record_says_how_fast_the_steps_since_the_last_one_were(recorder):
    for step, after in [(1, 5.0), (2, 0.5), (3, 1.0), (4, 2.0)]:
        recorder.read(step, after)
    first, second, fourth = recorder.records()
    assert [record["step"] for record in (first, second, fourth)] == [1, 2, 4]
    assert first["step_seconds"] is first["tokens_per_second"] is first["mfu"] is None
    assert second["step_seconds"] == 0.5
    assert fourth["step_seconds"] == 1.5  # the mean of steps 3 and 4
    speed = 8 * 16 / 1.5
    assert fourth["tokens_per_second"] == pytest.approx(speed)
    model = recorder.config.model
    lengths = recorder.config.lengths
    flops = training_flops_per_token(model, lengths).total
    palm = training_flops_per_token(model, lengths, causal=False).total
    assert fourth["mfu"] == pytest.approx(speed * flops / 1e9)
    assert fourth["mfu_palm"] == pytest.approx(speed * palm / 1e9)
    assert (fourth["tokens"], fourth["tokens_read"], fourth["tokens_padded"]) == (400, 480, 320)
    assert fourth["epochs"] == 0.2
    assert (fourth["loss"], fourth["z_loss"], fourth["grad_norm"]) == (2.0, 3.0, 0.5)
    assert fourth["auxiliary_loss"] == 0.25
    assert recorder.made.median_step_seconds() == 1.0
    assert recorder.bar.records == recorder.records()


def test_speed_counts_the_places_of_batches_of_several_shapes(recorder):
    recorder.read(1, 1.0)
    recorder.read(2, 1.0)
    recorder.read(3, 0.5, shape=(4, 16))
    recorder.read(4, 1.5, shape=(8, 32))
    record = recorder.records()[-1]
    assert record["tokens_per_second"] == pytest.approx((4 * 16 + 8 * 32) / 2.0)
    model = recorder.config.model
    lengths_of = recorder.config.objective.lengths
    flops = 4 * 16 * training_flops_per_token(model, lengths_of(16)).total
    flops += 8 * 32 * training_flops_per_token(model, lengths_of(32)).total
    assert record["mfu"] == pytest.approx(flops / 2.0 / 1e9)


def test_speed_counts_the_places_of_both_sides(tmp_path, seconds):
    objective = SpanCorruptionConfig()
    config = tiny_run(
        model=tiny_model(architecture="encoder_decoder"), objective=objective, log_every=2
    )
    run, board = RunDirectory(tmp_path), TensorBoard(tmp_path / "board")
    goodput = Goodput(run, began=time.time())
    recorder = Recorder(config, run, board, Clock(already=0.0), goodput, peak_flops=1e9)
    metrics = StepMetrics(*map(jnp.float32, (2.0, 3.0, 0.0, 0.5, 0.01, 100.0, 1.0, 0.0)))
    for step in (1, 2):
        seconds.value += 1.5
        ledger = Ledger(facts=(CorpusFacts("a", 1000, 20, 0),))
        recorder.read(step, metrics, (8, 16), lambda ledger=ledger: ledger, Bar())
    board.close()
    lengths = objective.lengths(16)
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    speed = 8 * (16 + lengths.length) / 1.5
    assert record["tokens_per_second"] == pytest.approx(speed)
    flops = training_flops_per_token(config.model, lengths).total
    assert record["mfu"] == pytest.approx(speed * flops / 1e9)


def test_train_seconds_go_on_counting_from_before_a_restart(recorder):
    recorder.read(1, 3.0)
    assert recorder.records()[0]["train_seconds"] == 7.0 + 3.0


def test_what_happens_in_a_pause_is_not_part_of_a_step(recorder):
    recorder.read(1, 1.0)
    recorder.read(2, 1.0)
    recorder.made.pause()
    recorder.read(3, 60.0)
    recorder.read(4, 1.0)
    assert recorder.records()[-1]["step_seconds"] == 1.0
    assert recorder.made.median_step_seconds() == 1.0


def test_the_last_step_is_always_recorded(recorder):
    for step in (9, 10):
        recorder.read(step, 1.0)
    assert [record["step"] for record in recorder.records()] == [10]


def test_nothing_was_timed_before_two_steps(recorder):
    recorder.read(1, 1.0)
    assert recorder.made.median_step_seconds() is None


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_given_back_and_recorded_as_none(recorder, loss):
    recorder.read(1, 1.0)
    values = recorder.read(2, 1.0, loss)
    assert not math.isfinite(values["loss"])
    assert recorder.records()[-1]["loss"] is None
