"""The folder in which every case is tried: a corpus, runs, a Hugging Face folder, small files.

    text/            three documents            records.jsonl  labelled records, two classes
    corpus/          their corpus               other_corpus/  one with another tokenizer
    pretrained/      a decoder's run, at step 0 encoder/       an encoder's run, at step 0
    foreign/         the decoder as a Hugging Face folder      runs.csv  what a sweep leaves
    config.json      of a run on corpus/

Nothing is trained: runs begin with fresh parameters, as `isoflop import` makes them.
"""

import contextlib
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from configs.overrides import apply_overrides, load_preset_or_file
from configs.schema import RunConfig
from configs.serialize import save
from data.batches import Cursor
from data.dataset import open_corpora, training_rows
from data.ledger import Ledger
from data.prepare import Preparation, prepare_corpus
from data.sources import open_source
from export.convert import to_hf
from export.express import express
from export.families import get_family
from export.tensors import write_tensors
from export.tokenizer import special_ids, write_tokenizer
from model.build import Params
from train.checkpoint import Checkpoints
from train.mesh import make_mesh
from train.run_directory import RunDirectory
from train.state import abstract_state
from train.training import Progress
from workflows.train import create_run

TINY = [
    "--data.corpus=corpus",
    "--model.vocab-size=400",
    "--model.emb-dim=32",
    "--model.num-layers=2",
    "--model.attention.num-heads=2",
    "--model.attention.num-kv-heads=1",
    "--model.attention.head-dim=16",
    "--model.mlp.mlp-dim=64",
    "--data.seq-len=32",
    "--training.batch-size=8",
    "--mesh.data=8",  # as many devices as tests see
    "--training.num-steps=20",
    "--optimizer.schedule.warmup-steps=2",
]
# An encoder's preset has as many heads as key/value heads.
TINY_ENCODER = [option for option in TINY if "heads" not in option] + [
    "--model.attention.num-heads=2",
    "--model.attention.num-kv-heads=2",
]


def make_workspace(folder: Path) -> None:
    """Fills an empty folder. Configs name the corpus relative to it: it can be copied."""
    with contextlib.chdir(folder):
        _write_text(Path("text"))
        _write_records(Path("records.jsonl"))
        _prepare(Path("corpus"), vocab_size=400)
        _prepare(Path("other_corpus"), vocab_size=390)
        config = apply_overrides(load_preset_or_file("decoder_only/tiny"), TINY)
        save(config, "config.json")
        params = _write_run(Path("pretrained"), config)
        encoder = apply_overrides(load_preset_or_file("encoder_only/tiny"), TINY_ENCODER)
        _write_run(Path("encoder"), encoder)
        _write_foreign(Path("foreign"), config, params)
        Path("runs.csv").write_text(_runs())


def _write_text(folder: Path) -> None:
    folder.mkdir()
    for number in range(12):
        lines = [f"def add_{number}_{i}(x, y={i}):\n    return x + y * {i % 7}" for i in range(30)]
        (folder / f"document_{number}.py").write_text("\n\n".join(lines) + "\n")


def _write_records(path: Path) -> None:
    records = [
        {"text": f"def f_{i}(): pass" if i % 2 else f"see page {i}", "label": "ab"[i % 2]}
        for i in range(20)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _prepare(out: Path, *, vocab_size: int) -> None:
    preparation = Preparation(vocab_size=vocab_size, symbols=("<mask>",), workers=1)
    prepare_corpus(open_source("text"), out, preparation)


def _write_run(path: Path, config: RunConfig) -> Params:
    config = replace(config, name=path.name)
    corpora = open_corpora(config.data)
    rng = np.random.default_rng(0)
    # Made by NumPy, on one device: JAX would compile a program for each shape and placement.
    state = jax.tree.map(
        lambda leaf: jax.device_put((0.02 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)),
        abstract_state(config, make_mesh(config.mesh)),
    )
    with RunDirectory(path) as run:
        create_run(run, config, corpora)
        with closing(Checkpoints(run.checkpoints)) as checkpoints:
            ledger = Ledger(facts=training_rows(config, corpora).facts)
            checkpoints.save(state, Progress(Cursor(), ledger, 0.0).to_json())
    return jax.tree.map(np.asarray, state.params)


def _write_foreign(folder: Path, config: RunConfig, params: Params) -> None:
    folder.mkdir()
    model_bytes = Path("corpus/tokenizer.model").read_bytes()
    family, seq_len = get_family("llama"), config.data.seq_len
    theirs = express(config.model, family, seq_len, special_ids(model_bytes))
    (folder / "config.json").write_text(json.dumps(theirs))
    write_tensors(to_hf(params, config.model, family), folder)
    write_tokenizer(model_bytes, folder, seq_len)


def _runs() -> str:
    rows = [
        f"{n},{d},{1.7 + 400 / n**0.34 + 400 / d**0.28:.6f}"
        for n in (1e7, 3e7, 1e8, 3e8)
        for d in (1e8, 1e9, 1e10)
    ]
    return "\n".join(["params,tokens,loss", *rows]) + "\n"
