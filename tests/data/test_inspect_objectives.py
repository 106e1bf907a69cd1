"""`isoflop inspect` on runs of objectives with an encoder, a prefix or masks."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import isoflop as front_door
from configs.data_config import BestFitConfig, DataConfig
from configs.objective_config import (
    DenoisingConfig,
    FillInTheMiddleConfig,
    MaskedLMConfig,
    PrefixLMConfig,
    SpanCorruptionConfig,
    UL2Config,
)
from configs.serialize import save
from data.corpus import open_corpus
from data.dataset import corpora_record, open_corpora, training_rows
from tests.data.conftest import objective_run
from train.run_directory import RunDirectory
from workflows.inspect import step_rows

OBJECTIVES = [
    PrefixLMConfig(),
    PrefixLMConfig(architecture="encoder_decoder"),
    FillInTheMiddleConfig(),
    MaskedLMConfig(),
    SpanCorruptionConfig(),
    DenoisingConfig(),
    UL2Config(),
]


@pytest.fixture
def make_run(symbol_corpus, tmp_path, monkeypatch):
    """Writes the run directory "run" of an objective; nothing is trained."""
    monkeypatch.chdir(tmp_path)

    def make(objective):
        folder = tmp_path / "text"
        shutil.copytree(symbol_corpus.path, folder)
        corpus = open_corpus(folder)
        config = objective_run(objective, DataConfig(seq_len=64, packing=BestFitConfig()), corpus)
        config = replace(config, training=replace(config.training, batch_size=4))
        with RunDirectory(tmp_path / "run") as run:
            save(config, run.config_file)
            run.tokenizer.write_bytes(corpus.tokenizer.model_bytes)
            record = {"corpora": corpora_record(open_corpora(config.data))}
            run.write("fingerprint.json", record)
            run.create("run")
        rows = training_rows(config, {"text": corpus})
        return rows.batch(step_rows(config.training, 3)).batch

    return make


def inspect(capsys, *args: str) -> str:
    capsys.readouterr()
    assert front_door.run(["inspect", "run", "--step=3", "--rows=0", *args]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.kind)
def test_the_record_holds_every_place_of_both_sides(objective, make_run, capsys):
    batch = make_run(objective)
    record = json.loads(inspect(capsys, "--json"))
    lengths = objective.lengths(64)
    assert record["batch_shape"] == [4, lengths.length]
    assert record["encoder_length"] == lengths.encoder_length
    for place, row in enumerate(record["rows"]):

        def shown(segments: str, field: str, row=row) -> list[int]:
            return [value for segment in row[segments] for value in segment[field]]

        assert shown("segments", "tokens") == batch.inputs[place].tolist()
        assert shown("segments", "targets") == batch.targets[place].tolist()
        prefix = np.zeros(lengths.length, int) if batch.prefix is None else batch.prefix[place]
        assert shown("segments", "prefix") == prefix.tolist()
        encoder = [] if batch.encoder_inputs is None else batch.encoder_inputs[place].tolist()
        assert shown("encoder_segments", "tokens") == encoder


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.kind)
def test_the_page_shows_what_the_objective_does(objective, make_run, capsys):
    make_run(objective)
    lines = inspect(capsys).splitlines()
    lengths = objective.lengths(64)
    has_encoder = lengths.encoder_length > 0
    size = f"64 + {lengths.length}" if has_encoder else "64"
    assert f"batch 4 × {size} · {objective.kind}, best_fit, seed 0" in lines[0]
    assert ("⟬prefix⟭" in lines[1]) == lengths.has_prefix
    assert any(line.startswith("    encoder  │ ") for line in lines) == has_encoder
    assert any(line.startswith("    decoder  │ ") for line in lines) == has_encoder
    symbols = [name for name in objective.symbols(64) if any(name in line for line in lines)]
    assert bool(symbols) == bool(objective.symbols(64))
    assert len(inspect(capsys, "--tokens").splitlines()) >= len(lines) + 4 * lengths.places
