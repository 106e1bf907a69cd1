"""The loop: what is written when, and going on after a stop as if there had been none."""

import io
import json
import math
import os
import shutil
import signal
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from configs.data_config import DataConfig
from configs.errors import InputError
from configs.schema import GuardConfig, MeshConfig, RunConfig
from data.dataset import training_rows
from tests.model.samples import tiny_model
from tests.train.samples import compile_steps_quickly, mesh_of, random_state, tiny_run
from tests.train.traces import traced_steps
from train import loop, training
from train.agreement import runs_one_program_at_a_time
from train.corruption import SilentCorruption, StateChecks
from train.preemption import Preempted
from train.programs import abstract_batch, compile_steps
from train.refusals import TooManyRefusals, read_culprit
from train.run_directory import RunDirectory
from train.state import abstract_state

NUM_STEPS = 7


def run_config(corpus, **training: Any) -> RunConfig:
    model = tiny_model(vocab_size=corpus.tokenizer.vocab_size, num_layers=1)
    defaults = {"num_steps": NUM_STEPS, "log_every": 2, "eval_every": 3, "checkpoint_every": 2}
    return tiny_run(model=model, mesh=MeshConfig(data=8), **(defaults | training))


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Compiles once, quickly, what every start of a run would; starts from NumPy's numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_steps", cache(compile_steps_quickly))
        patch.setattr(training, "init_state", random_state)
        yield


@pytest.mark.slow
def test_compiling_is_timed_and_tells_the_memory_a_device_needs(corpus):
    config = run_config(corpus)
    mesh = mesh_of(config)
    compiled = compile_steps(config, mesh)
    assert compiled.seconds > 0
    state = abstract_state(config, mesh)
    batch = abstract_batch(config, mesh, (8, config.data.seq_len))
    arguments = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves((state, batch))
    )
    assert compiled.peak_bytes > arguments
    assert compiled.peak_bytes < 50 * arguments


def train(
    config: RunConfig, path: Path, corpus, *, profile: str = "", said: io.StringIO | None = None
) -> loop.TrainingResult:
    with RunDirectory(path) as run:
        run.create("test")
        console = Console(file=said or io.StringIO(), width=100)
        return loop.train(
            config, run, {"corpus": corpus}, peak_flops=1e9, console=console, profile=profile
        )


def lines(path: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / name).read_text().splitlines()]


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = {
        "step_seconds", "tokens_per_second", "mfu", "mfu_palm", "train_seconds", "seconds",
        "goodput",
    }  # fmt: skip
    return [{k: v for k, v in record.items() if k not in timed} for record in records]


def events_of(path: Path) -> list[str]:
    """Names of the run's events, saves left out."""
    names = [event["event"] for event in lines(path, "events.jsonl")]
    return [name for name in names if name not in ("saving", "saved")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, corpus):
    path = tmp_path_factory.mktemp("whole")
    return path, train(run_config(corpus), path, corpus)


def test_records_evaluations_and_checkpoints_come_when_they_are_due(whole):
    path, result = whole
    metrics, evaluations = lines(path, "metrics.jsonl"), lines(path, "evaluations.jsonl")
    assert [record["step"] for record in metrics] == [1, 2, 4, 6, 7]
    assert [record["step"] for record in evaluations] == [3, 6, 7]
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == ["6", "7"]
    assert evaluations[-1] == {"step": 7} | result.evaluation._asdict()
    assert metrics[-1]["tokens"] == result.ledger.tokens_trained_on
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert {record["auxiliary_loss"] for record in metrics} == {0.0}
    assert set(evaluations[-1]["metrics"]) == {"token_accuracy"}
    assert result.ledger.rows == NUM_STEPS * 8
    assert (result.compile_seconds, result.peak_bytes) == (1.0, 1000)
    assert result.peak_rss_bytes > 1e7
    assert list((path / "tensorboard").iterdir())


@pytest.mark.parametrize("stop_at", [3, 4])
def test_a_run_asked_to_stop_saves_and_goes_on_bit_for_bit(
    whole, corpus, tmp_path, monkeypatch, stop_at
):
    # Step 4 is logged just before a save that is due; step 3 is evaluated and not saved.
    path, result = whole
    append = RunDirectory.append

    def append_and_stop(self, name, record):
        append(self, name, record)
        if record.get("step") == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "append", append_and_stop)
        with pytest.raises(Preempted, match=f"of {NUM_STEPS}"):
            train(run_config(corpus), tmp_path, corpus)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    again = train(run_config(corpus), tmp_path, corpus)
    jax.tree.map(np.testing.assert_array_equal, again.params, result.params)
    assert again.ledger == result.ledger
    assert again.evaluation[:5] == result.evaluation[:5]
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert without_times(lines(tmp_path, name)) == without_times(lines(path, name))
    assert events_of(tmp_path) == ["preempted", "resumed"]


def test_a_run_killed_after_its_last_save_only_evaluates(whole, corpus, tmp_path):
    path, result = whole
    shutil.copytree(path, tmp_path, dirs_exist_ok=True)
    again = train(run_config(corpus), tmp_path, corpus)
    jax.tree.map(np.testing.assert_array_equal, again.params, result.params)
    assert again.evaluation[:5] == result.evaluation[:5]
    assert again.step_seconds is None
    assert without_times(lines(tmp_path, "metrics.jsonl")) == without_times(
        lines(path, "metrics.jsonl")
    )
    assert without_times(lines(tmp_path, "evaluations.jsonl")) == without_times(
        lines(path, "evaluations.jsonl")
    )


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(whole, corpus, tmp_path):
    path, result = whole
    shutil.copytree(path, tmp_path, dirs_exist_ok=True)
    state = tmp_path / "checkpoints" / "7" / "state"
    largest = max((p for p in state.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    again = train(run_config(corpus), tmp_path, corpus)
    jax.tree.map(np.testing.assert_array_equal, again.params, result.params)
    assert events_of(tmp_path) == ["checkpoint_quarantined", "resumed"]
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert without_times(lines(tmp_path, name)) == without_times(lines(path, name))


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(whole, corpus, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints")
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"checkpoints: got none in .*, where step 7 was saved"):
        train(run_config(corpus), tmp_path, corpus)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


def test_a_state_whose_replicas_differ_is_not_saved(corpus, tmp_path, monkeypatch):
    def differ(self, state):
        if int(state.step) == 4:
            raise SilentCorruption("replicas hold unequal bits")

    monkeypatch.setattr(StateChecks, "require_equal_replicas", differ)
    with pytest.raises(SilentCorruption):
        train(run_config(corpus), tmp_path, corpus)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
    assert events_of(tmp_path) == ["corruption"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": tiny_model(vocab_size=64)}, "model.vocab_size: got 64, expected the tokenizer"),
        (
            {"mesh": MeshConfig(data=4)},
            "mesh: got data=4 = 4 devices",
        ),
        ({"data": DataConfig(seq_len=10**6)}, "data.seq_len: got 1000000, expected fewer"),
    ],
    ids=["another vocabulary", "a mesh that does not fit", "rows longer than the corpus"],
)
def test_a_config_that_does_not_fit_is_refused_before_any_compile(
    corpus, tmp_path, monkeypatch, change, message
):
    def compile_steps(*_):
        raise AssertionError("compiled")

    monkeypatch.setattr(loop, "compile_steps", compile_steps)
    config = RunConfig(**(vars(run_config(corpus)) | change))
    with pytest.raises(InputError, match=message):
        train(config, tmp_path, corpus)


class Fake:
    """Steps that note when they are begun and when they have run, in place of compiled ones."""

    def __init__(self, config: RunConfig, events: list[str]):
        self._compiled = loop.compile_steps(config, mesh_of(config))
        self._events, self._steps = events, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)

    def train_step(self, state, batch):
        self._steps += 1
        self._events.append(f"begin {self._steps}")
        return self._compiled.train_step(state, batch)


@pytest.fixture
def events(corpus, monkeypatch):
    """What the loop does with each step, in order: begin, await, read."""
    noted: list[str] = []
    fake = Fake(run_config(corpus), noted)
    read, block = loop.Recorder.read, jax.block_until_ready

    def noted_read(self, step, *args):
        noted.append(f"read {step}")
        return read(self, step, *args)

    def noted_block(arrays):
        noted.append("await")
        return block(arrays)

    monkeypatch.setattr(loop, "compile_steps", lambda *_: fake)
    monkeypatch.setattr(loop.Recorder, "read", noted_read)
    monkeypatch.setattr(loop.jax, "block_until_ready", noted_block)
    return noted


def test_a_step_is_begun_before_the_one_before_it_is_read(corpus, tmp_path, events):
    config = run_config(corpus, num_steps=4, eval_every=0, checkpoint_every=0)
    train(config, tmp_path, corpus)
    steps = [event for event in events if event != "await"]
    assert steps[:7] == [
        "begin 1", "begin 2", "read 1", "begin 3", "read 2", "begin 4", "read 3",
    ]  # fmt: skip
    assert steps[7:] == ["read 4"]


def test_where_steps_must_not_overlap_each_is_awaited(corpus, tmp_path, events, monkeypatch):
    monkeypatch.setattr(loop, "runs_one_program_at_a_time", lambda devices: True)
    train(run_config(corpus, num_steps=3, eval_every=0, checkpoint_every=0), tmp_path, corpus)
    begun = [number for number, event in enumerate(events) if event.startswith("begin")]
    assert [events[number + 1] for number in begun] == ["await"] * 3


def test_only_several_processes_on_cpus_await_their_steps(corpus, monkeypatch):
    mesh = mesh_of(run_config(corpus))
    assert not runs_one_program_at_a_time(mesh.devices)
    monkeypatch.setattr(loop.jax, "process_count", lambda: 2)
    assert runs_one_program_at_a_time(mesh.devices)


def test_a_profile_holds_the_steps_asked_for_and_changes_no_result(whole, corpus, tmp_path):
    path, result = whole
    said = io.StringIO()
    again = train(run_config(corpus), tmp_path, corpus, profile="3:4", said=said)
    assert traced_steps(tmp_path / "profile") == [3, 4]
    assert f"profile: {tmp_path}" in said.getvalue().replace("\n", "")
    jax.tree.map(np.testing.assert_array_equal, again.params, result.params)
    assert without_times(lines(tmp_path, "metrics.jsonl")) == without_times(
        lines(path, "metrics.jsonl")
    )
    assert "compiled 2 programs in 1.0 s (0 of them from the cache)" in said.getvalue()


def test_a_profile_beyond_the_last_step_is_refused_before_any_compile(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "compile_steps", lambda *_: pytest.fail("compiled"))
    with pytest.raises(InputError, match=f"profile: got '5:9', expected .* to {NUM_STEPS}"):
        train(run_config(corpus), tmp_path, corpus, profile="5:9")


def test_a_signal_within_an_evaluation_puts_it_off(whole, corpus, tmp_path, monkeypatch):
    path, result = whole
    real, num_batches = training.evaluate, 0

    def evaluate(*args, after_batch, **kwargs):
        def stop_within() -> None:
            nonlocal num_batches
            num_batches += 1
            if num_batches == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            after_batch()

        return real(*args, after_batch=stop_within, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", evaluate)
        with pytest.raises(Preempted, match="saved step 3 of"):
            train(run_config(corpus, eval_tokens=0), tmp_path, corpus)
    assert not (tmp_path / "evaluations.jsonl").exists()
    train(run_config(corpus), tmp_path, corpus)
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert without_times(lines(tmp_path, name)) == without_times(lines(path, name))


class Refusing:
    """Compiled steps of which some batches, known by a token, are refused."""

    def __init__(self, compiled: Any, bad: list[Any], **metrics: float):
        self._compiled, self._bad, self._metrics = compiled, bad, metrics

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)

    def train_step(self, state, batch):
        before = jax.tree.map(jnp.copy, state)
        after, metrics = self._compiled.train_step(state, batch)
        if not any(np.array_equal(batch.inputs, inputs) for inputs in self._bad):
            return after, metrics
        told = {name: jnp.float32(value) for name, value in self._metrics.items()}
        refused = metrics._replace(applied=jnp.float32(0), **told)
        return before._replace(step=after.step), refused


def refusing_from(monkeypatch, corpus, config, steps: list[int], **metrics: float) -> None:
    """Has the batches of these steps, as they are in an undisturbed run, refused wherever met."""
    source = training_rows(config, {"corpus": corpus})
    bad = [source.batch(np.arange(8 * (step - 1), 8 * step), length=None) for step in steps]
    compiled = loop.compile_steps(config, mesh_of(config))
    fake = Refusing(compiled, [served.batch.inputs for served in bad], **metrics)
    monkeypatch.setattr(loop, "compile_steps", lambda *_: fake)


def test_a_refused_update_is_told_of_and_passed_over(whole, corpus, tmp_path, monkeypatch):
    config = run_config(corpus)
    refusing_from(monkeypatch, corpus, config, [2, 5], loss=math.nan)
    result = train(config, tmp_path, corpus)
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    expected = [
        {"step": step, "first_row": 8 * step - 8, "stop_row": 8 * step, "reason": "loss is nan",
         "action": "skipped"}
        for step in (2, 5)
    ]  # fmt: skip
    assert ledger["refused"] == expected
    assert events_of(tmp_path) == ["update_refused"] * 2
    second = next(record for record in lines(tmp_path, "metrics.jsonl") if record["step"] == 2)
    assert (second["loss"], second["applied"]) == (None, False)
    assert result.ledger == whole[1].ledger  # the rows were read


@pytest.mark.slow
def test_too_many_refused_updates_end_the_run_with_the_batch_kept(corpus, tmp_path, monkeypatch):
    config = replace(run_config(corpus), guard=GuardConfig(nonfinite_limit=3))
    refusing_from(monkeypatch, corpus, config, [3, 4, 5], loss=math.inf)
    with pytest.raises(TooManyRefusals, match="step 5: loss is inf"):
        train(config, tmp_path, corpus)
    rows, batch, reason = read_culprit(tmp_path / "culprits", 5)
    assert rows.tolist() == list(range(32, 40)) and "loss is inf" in reason
    served = training_rows(config, {"corpus": corpus}).batch(rows, length=None)
    np.testing.assert_array_equal(batch.inputs, served.batch.inputs)
    assert events_of(tmp_path)[-1] == "gave_up"


@pytest.mark.slow
def test_a_spike_rewinds_the_run_and_its_rows_are_never_read_again(corpus, tmp_path, monkeypatch):
    guard = GuardConfig(spike_sigma=9.0, spike_window=8, spike_action="rewind")
    config = replace(run_config(corpus), guard=guard)
    refusing_from(monkeypatch, corpus, config, [6], loss=99.0, is_spike=1.0)
    go_back = training.Training.go_back

    def with_one_state(self, rewind):
        """No frame is left that holds the state which is given up: there may be room for one."""
        assert (rewind.__traceback__, rewind.__context__, sys.exc_info()[1]) == (None, None, None)
        return go_back(self, rewind)

    monkeypatch.setattr(training.Training, "go_back", with_one_state)
    train(config, tmp_path, corpus)
    # Saved after steps 2 and 4; the batch of step 6 sent it back to 4 and past rows 32 to 47.
    ledger = json.loads((tmp_path / "ledger.json").read_text())
    assert ledger["refused"] == [
        {"step": 6, "first_row": 32, "stop_row": 48, "reason": "a spike: loss 99",
         "action": "rewound"}
    ]  # fmt: skip
    assert ledger["rows"] == 8 * NUM_STEPS
    progress = json.loads((tmp_path / "checkpoints" / "7" / "progress" / "metadata").read_text())
    assert progress["cursor"] == {"next_row": 8 * NUM_STEPS + 16, "skipped": [[32, 48]]}
    assert [record["step"] for record in lines(tmp_path, "metrics.jsonl")] == [1, 2, 4, 6, 7]
    assert events_of(tmp_path) == ["rewound"]


@pytest.mark.slow
def test_a_rewind_is_the_same_when_a_kill_comes_between(corpus, tmp_path, monkeypatch):
    guard = GuardConfig(spike_sigma=9.0, spike_window=8, spike_action="rewind")
    config = replace(run_config(corpus), guard=guard)
    refusing_from(monkeypatch, corpus, config, [6], loss=99.0, is_spike=1.0)
    result = train(config, tmp_path / "whole", corpus)
    append = RunDirectory.append

    def append_and_stop(self, name, record):
        append(self, name, record)
        if record.get("step") == 6 and not (tmp_path / "cut" / "stopped").exists():
            (tmp_path / "cut" / "stopped").touch()
            raise KeyboardInterrupt

    monkeypatch.setattr(RunDirectory, "append", append_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", corpus)
    again = train(config, tmp_path / "cut", corpus)
    jax.tree.map(np.testing.assert_array_equal, again.params, result.params)
    ledgers = [(tmp_path / name / "ledger.json").read_text() for name in ("whole", "cut")]
    assert ledgers[0] == ledgers[1]
