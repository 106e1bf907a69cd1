"""`isoflop adapt`: a run to a task or to more text, resumed, judged, and refused in one line."""

import json
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

import isoflop as front_door
from configs.data_config import DataConfig
from configs.errors import InputError
from configs.labelled_config import SequenceClassificationConfig
from configs.model_config import MaskedLMHeadConfig, SequenceClassificationHeadConfig
from configs.objective_config import CausalLMConfig, MaskedLMConfig, SpanCorruptionConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from data.control_symbols import parse_symbols
from data.corpus import open_corpus
from data.dataset import open_corpora
from data.prepare import Preparation, prepare_corpus
from data.sources.text_files import TextFilesSource
from data.tokenizer import Tokenizer
from model.build import abstract_params
from tests.model.samples import random_params, tiny_model
from tests.train.conftest import write_texts
from tests.train.samples import compile_steps_quickly, random_state
from train import loop, training
from train.checkpoint_reading import restore_params
from train.run_directory import RunDirectory
from workflows import adapt, initial_checkpoint
from workflows.initial_checkpoint import merged, write_initial_checkpoint
from workflows.load import load
from workflows.train import create_run

OBJECTIVES: dict[str, Any] = {
    "decoder_only": CausalLMConfig(),
    "encoder_only": MaskedLMConfig(),
    "encoder_decoder": SpanCorruptionConfig(),
}
QUICK = ["--mesh.data=8", "--batch-size=8", "--training.eval-tokens=100"]


@pytest.fixture(scope="module")
def corpus_with_symbols(tmp_path_factory):
    texts = tmp_path_factory.mktemp("texts")
    write_texts(texts, num_files=8)
    preparation = Preparation(vocab_size=320, symbols=parse_symbols(("mask", "sentinels:8")))
    return prepare_corpus(TextFilesSource(str(texts)), tmp_path_factory.mktemp("c"), preparation)


@pytest.fixture
def make_run(corpus_with_symbols, tmp_path, monkeypatch):
    """Writes a run with random parameters, as if it had been pretrained; nothing is trained."""
    monkeypatch.chdir(tmp_path)
    quicken(monkeypatch)

    def make(architecture: str, *, num_checkpoints: int = 1) -> Any:
        is_encoder = architecture == "encoder_only"
        model = tiny_model(
            architecture=architecture,
            num_layers=1,
            num_encoder_layers=int(architecture == "encoder_decoder"),
            vocab_size=corpus_with_symbols.tokenizer.vocab_size,
            tie_embeddings=is_encoder,
            **({"head": MaskedLMHeadConfig()} if is_encoder else {}),
        )
        config = RunConfig(
            name="old",
            model=model,
            objective=OBJECTIVES[architecture],
            data=DataConfig(corpus=str(corpus_with_symbols.path), seq_len=32),
            mesh=MeshConfig(data=8),
            training=TrainingConfig(batch_size=8),
        )
        corpora, params = open_corpora(config.data), random_params(model)
        with RunDirectory(tmp_path / "old") as run:
            create_run(run, config, corpora)
            for _ in range(num_checkpoints):
                write_initial_checkpoint(run, config, corpora, params)
        return params

    return make


def quicken(monkeypatch) -> None:
    """Less to compile: quick code for the steps, none for fresh parameters."""
    monkeypatch.setattr(loop, "compile_steps", compile_steps_quickly)
    monkeypatch.setattr(training, "init_state", random_state)
    monkeypatch.setattr(initial_checkpoint, "init_state", random_state)


def write_records(path, kind: str, count: int = 40) -> None:
    records: list[dict[str, Any]] = []
    for number in range(count):
        name = ("row", "batch", "value")[number % 3]
        text = f"the {name} of token {number}"
        if kind == "classification":
            records.append({"text": text, "label": name})
        elif kind == "token_classification":
            span = {"start": 4, "end": 4 + len(name), "label": name.upper()}
            records.append({"text": text, "spans": [span]})
        else:
            records.append({"input": text, "target": f" {name}"})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def adapted(capsys, *args: str) -> dict[str, Any]:
    capsys.readouterr()
    assert front_door.run(["adapt", "old", "--out=new", "--json", *QUICK, *args]) == 0
    return json.loads(capsys.readouterr().out)


def lines_of(path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def params_of(folder) -> Any:
    run = RunDirectory.open(folder)
    return restore_params(run.checkpoints, abstract_params(run.config().model))


KINDS = [
    ("encoder_only", "classification", "accuracy", 15),
    pytest.param("decoder_only", "classification", "accuracy", 2, marks=pytest.mark.slow),
    pytest.param("encoder_only", "token_classification", "entity_f1", 2, marks=pytest.mark.slow),
    pytest.param("encoder_decoder", "sequence_to_sequence", "rouge_l", 2, marks=pytest.mark.slow),
    pytest.param("decoder_only", "instruction", "rouge_l", 2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("architecture", "kind", "metric", "steps"), KINDS)
def test_a_run_learns_a_task_from_a_file_of_records(
    make_run, tmp_path, capsys, architecture, kind, metric, steps
):
    make_run(architecture)
    write_records(tmp_path / "data.jsonl", kind)
    args = ["--data=data.jsonl", f"--kind={kind}", f"--steps={steps}", "--learning-rate=0.01"]
    metrics = adapted(capsys, *args)
    run = RunDirectory.open(tmp_path / "new")
    summary = run.read("summary.json")
    assert run.status == "complete" and summary["num_steps"] == steps
    assert metrics["kind"] == kind and metrics["records"] == 4 and 0 <= metrics[metric] <= 1
    assert summary["task"] == {name: metrics[name] for name in metrics if name != "schema_version"}
    samples = lines_of(tmp_path / "new/samples.jsonl")
    assert len(samples) == 4 and {"prompt", "text", "expected", "step"} == set(samples[0])
    labels = load(tmp_path / "new").labels
    expected = {"classification": 3, "token_classification": 7}.get(kind, 0)
    assert len(labels) == expected
    if steps == 15:  # three classes, each said by a word of the text
        [evaluation] = lines_of(tmp_path / "new/evaluations.jsonl")
        assert evaluation["nats_per_token"] < 0.8 * np.log(3)
    # The same command again finds everything done, and says the same.
    assert adapted(capsys, *args) == metrics
    assert len((tmp_path / "new/samples.jsonl").read_text().splitlines()) == 4


def test_training_begins_with_the_pretrained_parameters_and_a_fresh_head(
    make_run, tmp_path, capsys, monkeypatch
):
    params = make_run("encoder_only")
    write_records(tmp_path / "data.jsonl", "classification")
    monkeypatch.setattr(
        adapt, "finish_training", lambda *_, **__: 143
    )  # stopped before the first step
    command = ["adapt", "old", "--out=new", "--data=data.jsonl", "--kind=classification"]
    command += ["--steps=3", *QUICK]
    assert front_door.run(command) == 143
    begun = params_of(tmp_path / "new")
    for name in params:
        if name != "head":
            jax.tree.map(np.testing.assert_array_equal, begun[name], params[name])
    assert set(begun["head"]) == {"classes"}
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    quicken(monkeypatch)
    assert front_door.run(command) == 0  # goes on
    assert RunDirectory.open(tmp_path / "new").status == "complete"
    # A run that is there is not replaced by another one.
    capsys.readouterr()
    assert front_door.run([*command, "--seed=1"]) == 2
    assert "corpus of other records" in capsys.readouterr().err


def test_from_scratch_takes_nothing_of_the_run(make_run, tmp_path, monkeypatch):
    make_run("encoder_only", num_checkpoints=0)
    write_records(tmp_path / "data.jsonl", "classification")
    monkeypatch.setattr(adapt, "finish_training", lambda *_, **__: 143)
    command = ["adapt", "old", "--out=new", "--data=data.jsonl", "--kind=classification"]
    assert front_door.run([*command, "--from-scratch", *QUICK]) == 143
    assert not list((tmp_path / "new/checkpoints").glob("*"))


def test_steps_to_trace_are_told_to_training(make_run, tmp_path, monkeypatch):
    make_run("encoder_only", num_checkpoints=0)
    write_records(tmp_path / "data.jsonl", "classification")
    asked = []
    monkeypatch.setattr(
        adapt, "finish_training", lambda *_, profile, watch: asked.append(profile) or 143
    )
    command = ["adapt", "old", "--out=new", "--data=data.jsonl", "--kind=classification"]
    assert front_door.run([*command, "--from-scratch", "--profile=2:3", *QUICK]) == 143
    assert asked == ["2:3"]


@pytest.mark.slow
def test_a_run_goes_on_with_other_text_and_some_of_the_old(make_run, tmp_path):
    params = make_run("decoder_only")
    folder = tmp_path / "domain"
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(12):
        (texts / f"{number}.txt").write_text(f"self value {number} row data " * 60)
    command = ["prepare", str(texts), f"--out={folder}", "--tokenizer=old"]
    assert front_door.run(command) == 0
    arguments = ["adapt", "old", "--out=new", f"--corpus={folder}", "--replay=0.25"]
    assert front_door.run([*arguments, "--steps=4", "--learning-rate=0.001", *QUICK]) == 0
    config = RunDirectory.open(tmp_path / "new").config()
    assert config.data.mixture.kind == "weighted" and config.objective == CausalLMConfig()
    assert config.data.corpora[0] == str(folder) and len(config.data.corpora) == 2
    assert config.optimizer.schedule.warmup_steps == 1
    record = json.loads((tmp_path / "new/evaluations.jsonl").read_text().splitlines()[-1])
    assert len(record["corpora"]) == 2
    changed = params_of(tmp_path / "new")
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), changed, params)
    assert 0 < max(jax.tree.leaves(moved)) < 0.02  # four small steps away from where it began


def test_a_tokenizer_takes_pieces_for_the_new_text(make_run, tmp_path, monkeypatch):
    params = make_run("decoder_only")
    folder, texts = tmp_path / "domain", tmp_path / "texts"
    texts.mkdir()
    for number in range(12):
        (texts / f"{number}.txt").write_text(f"zygote quixotic {number} zygote\n" * 60)
    command = ["prepare", str(texts), f"--out={folder}", "--tokenizer=old"]
    assert front_door.run(command) == 0
    monkeypatch.setattr(adapt, "finish_training", lambda *_, **__: 143)
    arguments = ["adapt", "old", "--out=new", f"--corpus={folder}", "--replay=0.5"]
    arguments += ["--extend-tokenizer=24", *QUICK]
    assert front_door.run([*arguments, "--steps=2"]) == 143
    old, new = (RunDirectory.open(tmp_path / name) for name in ("old", "new"))
    pieces = [Tokenizer.load(run.tokenizer).pieces for run in (old, new)]
    assert pieces[1][: len(pieces[0])] == pieces[0] and len(pieces[1]) == len(pieces[0]) + 24
    assert new.config().model.vocab_size == old.config().model.vocab_size + 24
    begun = params_of(tmp_path / "new")
    size = len(pieces[0])
    old_table, table = (p["token_embedding"]["embedding"] for p in (params, begun))
    np.testing.assert_array_equal(table[:size], old_table)
    before, after = (open_corpus(path) for path in (folder, new.config().data.corpora[0]))
    assert after.bytes_per_token > before.bytes_per_token
    for split in ("train", "held_out"):
        assert sorted(texts_of(after, split)) == sorted(texts_of(before, split))


def texts_of(corpus, split: str) -> list[str]:
    return [corpus.tokenizer.decode(d.tokens) for d in corpus.documents(split)]


def test_parameters_of_another_shape_are_refused():
    fresh = {"token_embedding": {"embedding": np.zeros((4, 2))}, "head": {"kernel": np.zeros(3)}}
    given = {"token_embedding": {"embedding": np.zeros((5, 2))}}
    with pytest.raises(InputError, match="parameters of token_embedding"):
        merged(fresh, given)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "options: got 'none', expected --task, --data or --corpus"),
        (["--task=docstrings", "--corpus=x"], "options: got 'task and corpus'"),
        (["--task=docstring"], "task: got 'docstring'"),
        (["--task=docstrings"], "kind: got 'sequence_to_sequence'"),
        (["--task=module_classes", "--replay=0.1"], "replay: got 0.1, expected --corpus with it"),
        (["--corpus=x", "--replay=1"], "replay: got 1.0"),
        (["--data=data.jsonl"], "kind: got None"),
        (["--data=none.jsonl", "--kind=classification"], "none.jsonl' (No such file"),
        (["--data=data.jsonl", "--kind=token_classification"], "data.jsonl:1: spans: got 'none'"),
        (["--task=module_classes", "--epochs=0"], "epochs: got 0.0"),
        (["--task=module_classes", "--batch-size=0"], "batch_size: got 0"),
        (["--task=module_classes", "--steps=-1"], "steps: got -1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make_run, tmp_path, capsys, args, message):
    make_run("encoder_only", num_checkpoints=0)
    write_records(tmp_path / "data.jsonl", "classification")
    capsys.readouterr()
    assert front_door.run(["adapt", "old", "--out=new", *args]) == 2
    said = capsys.readouterr().err.splitlines()
    [error] = [line for line in said if not line.startswith("cpu · ")]  # how programs are compiled
    assert message in error
    assert not (tmp_path / "new/run.json").exists()


def test_a_run_that_is_none_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert front_door.run(["adapt", "old", "--out=new", "--task=docstrings"]) == 2
    assert "run: got old" in capsys.readouterr().err


def test_a_head_of_classes_needs_its_objective():
    model = tiny_model(architecture="encoder_only", head=SequenceClassificationHeadConfig())
    with pytest.raises(InputError, match=r"model.head.kind.*objective masked_lm"):
        RunConfig(model=model, objective=MaskedLMConfig())
    with pytest.raises(InputError, match=r"model.head.kind"):
        other = replace(model, head=MaskedLMHeadConfig())
        RunConfig(model=other, objective=SequenceClassificationConfig())
