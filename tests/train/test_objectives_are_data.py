"""A new objective, or architecture, is no business of the training room."""

import ast
import io
import json
import re
import typing
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from rich.console import Console

from configs.model_config import Architecture
from configs.objective_config import ExampleLengths, ObjectiveConfig
from configs.schema import MeshConfig
from data.objectives import OBJECTIVES, Objective
from data.objectives.example import Example
from tests.model.samples import tiny_model
from tests.train.samples import compile_steps_quickly, random_state, tiny_run
from train import loop, training
from train.run_directory import RunDirectory

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class TokenBeforeConfig:
    """For an encoder: name the token `distance` places before each place, of the same document."""

    kind: str = "token_before"
    distance: int = 1

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return ("encoder_only",)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        return ()

    def lengths(self, seq_len: int) -> ExampleLengths:
        return ExampleLengths(seq_len, 0, seq_len)


def token_before(config, row, generator, context) -> Example:
    d = config.distance
    targets = np.concatenate([np.zeros(d, np.int32), row.tokens[:-d]])
    return Example(
        inputs=row.tokens,
        targets=targets,
        loss_weights=((row.positions >= d) & (row.segment_ids > 0)).astype(np.float32),
        positions=row.positions,
        segment_ids=row.segment_ids,
    )


def accuracy(config, batch, is_correct_BL, context) -> dict[str, float]:
    counts = batch.loss_weights > 0
    return {"token_before_accuracy": float(is_correct_BL[counts].mean())}


def reconstruct(config, example, context) -> list[np.ndarray]:
    return [example.inputs]


def test_an_objective_added_to_the_table_trains(monkeypatch, tmp_path, corpus):
    entry = Objective(token_before, accuracy, reconstruct)
    monkeypatch.setitem(OBJECTIVES, TokenBeforeConfig, entry)
    monkeypatch.setattr(loop, "compile_steps", compile_steps_quickly)
    monkeypatch.setattr(training, "init_state", random_state)
    model = tiny_model(
        architecture="encoder_only", vocab_size=corpus.tokenizer.vocab_size, num_layers=1
    )
    config = tiny_run(
        model=model,
        objective=TokenBeforeConfig(),
        mesh=MeshConfig(data=8),
        num_steps=12,
        log_every=1,
    )
    with RunDirectory(tmp_path) as run:
        run.create("test")
        console = Console(file=io.StringIO())
        result = loop.train(config, run, {"corpus": corpus}, peak_flops=1e9, console=console)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 12
    assert records[-1]["loss"] < records[0]["loss"] - 0.3
    evaluation = result.evaluation
    assert evaluation.bits_per_byte is None
    assert set(evaluation.metrics) == {"token_before_accuracy"}
    assert evaluation.metrics["token_before_accuracy"] > 2 / model.vocab_size
    # Held-out documents with <s> and </s>: each token but a row's first is followed by a target.
    documents = [len(d.tokens) + 2 for d in corpus.documents("held_out")]
    rows = [min(16, length - begin) for length in documents for begin in range(0, length, 16)]
    assert evaluation.tokens == sum(row - 1 for row in rows)


def words_of(source: str) -> set[str]:
    """Every name and every word of every string and comment of a source."""
    return set(re.findall(r"\w+", source))


def test_the_training_room_names_no_architecture_and_no_objective():
    configs = typing.get_args(ObjectiveConfig)
    kinds = {field.default for c in configs for field in fields(c) if field.name == "kind"}
    banned = {*typing.get_args(Architecture), *kinds, *(c.__name__ for c in configs)}
    assert {"encoder_decoder", "masked_lm", "UL2Config"} <= banned and len(kinds) == len(configs)
    files = sorted((ROOT / "train").glob("*.py"))
    assert len(files) > 10
    for file in files:
        assert not words_of(file.read_text()) & banned, file.name


def test_the_training_room_reads_no_kind_and_no_architecture():
    # Neither config.objective.kind nor config.model.architecture may steer a step or the loop.
    for file in sorted((ROOT / "train").glob("*.py")):
        if file.name.startswith(("hlo", "compiled")):  # where collectives have kinds
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("kind", "architecture"), f"{file.name}:{node.lineno}"
