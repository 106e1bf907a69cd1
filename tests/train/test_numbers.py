"""Real batches gone wrong, in real training: refused, told of, and passed over as configured."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from configs.schema import GuardConfig, MeshConfig, RunConfig
from tests.model.samples import tiny_model
from tests.train.samples import tiny_run
from train import loop
from train.refusals import TooManyRefusals
from train.run_directory import RunDirectory

pytestmark = pytest.mark.slow
NUM_STEPS, ROWS = 48, 8
SPIKES = GuardConfig(spike_sigma=6.0, spike_window=16)


def run_config(corpus: Any, guard: GuardConfig) -> RunConfig:
    config = tiny_run(
        model=tiny_model(vocab_size=corpus.tokenizer.vocab_size, num_layers=1),
        mesh=MeshConfig(data=8),
        num_steps=NUM_STEPS,
        log_every=1,
        checkpoint_every=10,
    )
    return replace(config, guard=guard)


def train(config: RunConfig, path: Path, corpus: Any) -> loop.TrainingResult:
    with RunDirectory(path) as run:
        run.create("test")
        return loop.train(
            config, run, {"corpus": corpus}, peak_flops=1e9, console=Console(file=io.StringIO())
        )


@pytest.fixture
def damage(monkeypatch):
    """Alters the batches whose first rows are those of these steps, whenever they come."""

    def alter(change: Any, steps: list[int]) -> None:
        feed = loop.feed

        def altered(*args: Any, **kwargs: Any) -> Any:
            for fed in feed(*args, **kwargs):
                is_bad = int(fed.rows[0]) in [ROWS * (step - 1) for step in steps]
                yield fed._replace(batch=change(fed.batch)) if is_bad else fed

        monkeypatch.setattr(loop, "feed", altered)

    return alter


def with_nan(batch: Any) -> Any:
    return batch._replace(loss_weights=batch.loss_weights.at[3, 5].set(jnp.nan))


def with_other_targets(batch: Any) -> Any:
    return batch._replace(targets=(batch.targets + 7) % 100 + 5)


def metrics(path: Path) -> dict[int, dict[str, Any]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines}


def refused(path: Path) -> list[dict[str, Any]]:
    return json.loads((path / "ledger.json").read_text())["refused"]


def test_a_batch_with_a_nan_leaves_no_trace_but_in_the_ledger(corpus, tmp_path, damage):
    damage(with_nan, [20])
    result = train(run_config(corpus, GuardConfig()), tmp_path, corpus)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params))
    records = metrics(tmp_path)
    assert [step for step, record in records.items() if not record["applied"]] == [20]
    assert records[20]["loss"] is None and records[21]["loss"] < records[1]["loss"]
    [entry] = refused(tmp_path)
    assert (entry["step"], entry["first_row"], entry["stop_row"]) == (20, 152, 160)
    assert entry["action"] == "skipped" and "loss is nan" in entry["reason"]


def test_nothing_but_nan_ends_the_run_at_the_limit(corpus, tmp_path, damage):
    damage(with_nan, list(range(20, 30)))
    with pytest.raises(TooManyRefusals, match="step 23: .*4 updates in a row"):
        train(run_config(corpus, GuardConfig(nonfinite_limit=4)), tmp_path, corpus)
    assert (tmp_path / "culprits" / "23.npz").is_file()


def test_a_spike_is_not_learnt_from(corpus, tmp_path, damage):
    damage(with_other_targets, [33])
    train(run_config(corpus, SPIKES), tmp_path, corpus)
    records = metrics(tmp_path)
    assert [step for step, record in records.items() if not record["applied"]] == [33]
    assert records[33]["loss"] > records[32]["loss"] + 0.5
    assert math.isclose(records[34]["loss"], records[32]["loss"], rel_tol=0.1)
    assert [(entry["step"], entry["action"]) for entry in refused(tmp_path)] == [(33, "skipped")]


def test_a_spike_can_send_the_run_back_past_the_rows_that_led_to_it(corpus, tmp_path, damage):
    damage(with_other_targets, [33])
    train(run_config(corpus, replace(SPIKES, spike_action="rewind")), tmp_path, corpus)
    records = metrics(tmp_path)
    assert list(records) == list(range(1, NUM_STEPS + 1))
    assert all(record["applied"] for record in records.values())
    [entry] = refused(tmp_path)
    assert (entry["action"], entry["first_row"], entry["stop_row"]) == ("rewound", 240, 264)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    [event] = [event for event in events if event["event"] == "rewound"]
    assert "back to step 30, rows 240 to 263 passed over" in event["detail"]
