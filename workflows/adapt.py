"""isoflop adapt: a pretrained run to a task, or to more text."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from configs.errors import require
from configs.model_config import ClassHeadConfig
from configs.overrides import apply_overrides, parse_command
from configs.schema import RunConfig
from data.corpus import Corpus
from data.dataset import Corpora
from data.labelled import Kind, labels_of, read_records, require_labels
from data.labelled_corpus import (
    CUT_SHORT,
    HELD_OUT_NAME,
    LabelledRecords,
    read_labels,
    token_limits,
    write_labelled_corpus,
    write_labels,
)
from data.tasks.supervised import SUPERVISED_TASKS, supervised_task, task_records
from data.tokenizer import Tokenizer
from train.profile import profile_numbers
from train.run_directory import RunDirectory
from workflows.adapt_config import (
    Schedule,
    objective_for,
    supervised_config,
)
from workflows.adapt_data import split_records
from workflows.adapt_text import TextAdaptation, adapt_to_text, adapt_to_text_with_pieces
from workflows.initial_checkpoint import has_checkpoint, write_initial_checkpoint
from workflows.load import load
from workflows.prepare import describe
from workflows.runtime import prepare_runtime
from workflows.task_evaluation import evaluate_task
from workflows.train import create_run, finish_training
from workflows.training_options import TrainingOptions

PROG = "isoflop adapt"
CORPUS_FOLDER = "corpus"
_SAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(TrainingOptions):
    """Trains a pretrained run on: for a task, by --task or --data, or on more text, by --corpus.

    The result is a run like any other. The same command on a run that was interrupted goes on
    with it. Any field of the new config can be overridden: --training.log-every 50.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The pretrained run directory; `isoflop import` makes one of a Hugging Face folder."""
    out: Path
    """Run directory to write."""
    task: str = ""
    """A task from Python's standard library: token_classes, module_classes, docstrings,
    docstring_prompts."""
    data: Path | None = None
    """Labelled records of your own: a file of JSON lines (docs/adaptation.md)."""
    kind: (
        Literal["classification", "token_classification", "sequence_to_sequence", "instruction"]
        | None
    ) = None
    """What the records of --data are."""
    held_out: Path | None = None
    """Records to judge by; a tenth of --data, drawn by the seed, if not given."""
    corpus: Path | None = None
    """Text to go on pretraining on: a folder that `isoflop prepare --tokenizer RUN` wrote."""
    replay: float = 0.0
    """With --corpus: share of the rows that come from what the run was pretrained on."""
    extend_tokenizer: int = 0
    """With --corpus: so many pieces to add to the tokenizer for the new text."""
    learning_rate: float = 0.0
    """Peak; 0: 0.1 over the model's width, a rule of thumb."""
    epochs: float = 3.0
    """How often the records, or the new text, are read."""
    steps: int = 0
    """Steps instead of epochs; 0: what the epochs take."""
    batch_size: int = 32
    """Rows a step."""
    seed: int = 0
    """Of the order of the rows, of fresh parameters and of the part of --data that is held out."""
    from_scratch: bool = False
    """Start from fresh parameters instead: what the same training is worth without pretraining."""
    profile: str = ""
    """Steps to trace into OUT/profile: 10:13, or 3 for three steps from the fifth on."""
    json: bool = False
    """Print the task's metrics as one JSON object."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop adapt`."""
    options, overrides = parse_command(
        AdaptOptions, args, prog=PROG, description=AdaptOptions.__doc__ or ""
    )
    _check(options)
    console = Console(stderr=True, highlight=False)
    prepare_runtime(options, console)
    pretrained = RunDirectory.open(options.run)
    with RunDirectory(options.out) as run:
        if options.corpus is None:
            config, corpora = _task_config(options, pretrained, console)
            params = None
        else:
            config, corpora, params = _text(options, pretrained, console)
        config = apply_overrides(config, overrides)
        if run.exists():
            require(
                run.config() == config,
                "out",
                str(options.out),
                "a new folder, or the command the run there was started with",
            )
        needs_params = not options.from_scratch and not has_checkpoint(run)
        if needs_params and params is None:  # before the folder is a run: there may be none
            with console.status(f"reading {options.run}"):
                params = load(options.run).params
        if not run.exists():
            if options.corpus is None:
                write_labels(run.path, *read_labels(_only(corpora).path))
            create_run(run, config, corpora)
        if needs_params:
            assert params is not None
            if isinstance(config.model.head, ClassHeadConfig):
                # Another task's classes may be as many: their head is no beginning for these.
                params = {name: part for name, part in params.items() if name != "head"}
            write_initial_checkpoint(run, config, corpora, params)
            run.event("adapted", f"from {options.run}")
        if run.status != "complete":
            console.rule("training", align="left")
            status = finish_training(
                run, config, corpora, console, profile=options.profile, watch=options.watch
            )
            if status:
                return status
        if options.corpus is None:
            _judge(run, _only(corpora), options, console)
    return 0


def _check(options: AdaptOptions) -> None:
    """Raises InputError where options do not go together."""
    given = [
        name for name in ("task", "data", "corpus") if getattr(options, name) not in ("", None)
    ]
    require(len(given) == 1, "options", " and ".join(given) or "none", "--task, --data or --corpus")
    require(
        (options.data is None) == (options.kind is None),
        "kind",
        options.kind,
        "a kind with --data, and none without",
    )
    require(options.data is not None or options.held_out is None, "held_out", "it", "--data too")
    require(0 <= options.replay < 1, "replay", options.replay, "a fraction from 0 to below 1")
    for name in ("replay", "extend_tokenizer"):
        value = getattr(options, name)
        require(options.corpus is not None or not value, name, value, "--corpus with it")
    for name in ("steps", "learning_rate", "extend_tokenizer"):
        require(getattr(options, name) >= 0, name, getattr(options, name), "0 or more")
    require(options.epochs > 0, "epochs", options.epochs, "more than 0")
    require(options.batch_size > 0, "batch_size", options.batch_size, "1 or more rows")
    if options.task:
        supervised_task(options.task)
    if options.profile:
        profile_numbers(options.profile)


def _schedule(options: AdaptOptions) -> Schedule:
    return Schedule(
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        num_steps=options.steps,
        batch_size=options.batch_size,
        seed=options.seed,
    )


def _task_config(
    options: AdaptOptions, pretrained: RunDirectory, console: Console
) -> tuple[RunConfig, Corpora]:
    """The records as a corpus beside the run, and the config that trains on it."""
    config = pretrained.config()
    kind: Kind | None = options.kind
    if options.task:
        kind = supervised_task(options.task).kind
    assert kind is not None
    objective = objective_for(kind, config.model.architecture)
    start = time.perf_counter()
    with console.status("preparing the records"):
        records = _records(options, kind)
        corpus = write_labelled_corpus(
            options.out / CORPUS_FOLDER,
            records,
            Tokenizer.load(pretrained.tokenizer),
            token_limits(objective, config.data.seq_len),
            seed=options.seed,
        )
    console.print(describe(corpus, time.perf_counter() - start))
    console.print(f"  {CUT_SHORT}: {corpus.card['source'][CUT_SHORT]}")
    adapted = supervised_config(
        config, kind, records.labels, corpus, _schedule(options), name=options.out.name
    )
    return adapted, {corpus.path.name: corpus}


def _records(options: AdaptOptions, kind: Kind) -> LabelledRecords:
    if options.task:
        train, held_out = task_records(SUPERVISED_TASKS[options.task])
        source = {"from": f"the standard library, task {options.task}"}
    else:
        assert options.data is not None
        train = read_records(options.data, kind)
        source = {"from": str(options.data)}
        if options.held_out:
            held_out = read_records(options.held_out, kind)
        else:
            train, held_out = split_records(train, seed=options.seed)
    labels = labels_of(train, kind)
    require_labels(held_out, labels, kind)
    return LabelledRecords(kind, labels, train, held_out, source)


def _text(options: AdaptOptions, pretrained: RunDirectory, console: Console) -> TextAdaptation:
    """The config that goes on pretraining on another corpus, and its corpora."""
    assert options.corpus is not None
    schedule, name = _schedule(options), options.out.name
    if not options.extend_tokenizer:
        return adapt_to_text(pretrained, options.corpus, schedule, replay=options.replay, name=name)
    return adapt_to_text_with_pieces(
        pretrained,
        options.corpus,
        schedule,
        replay=options.replay,
        name=name,
        new_pieces=options.extend_tokenizer,
        out=options.out / CORPUS_FOLDER,
        console=console,
    )


def _only(corpora: Corpora) -> Corpus:
    [corpus] = corpora.values()
    return corpus


def _judge(run: RunDirectory, corpus: Corpus, options: AdaptOptions, console: Console) -> None:
    """Answers the held-out records, unless that was done, and shows how well."""
    summary = run.read("summary.json")
    if "task" not in summary:
        kind, labels = read_labels(run.path)
        records = read_records(corpus.path / HELD_OUT_NAME, kind)
        with console.status(f"answering {len(records):,} held-out records"):
            result = evaluate_task(load(run.path), kind, labels, records)
        summary["task"] = {"kind": kind, **result.metrics}
        step = summary["num_steps"]
        for record, answer in list(zip(records, result.answers, strict=True))[:_SAMPLES]:
            prompt, expected = list(record.values())[:2]
            shown = answer if isinstance(answer, str) else json.dumps(answer)
            wanted = expected if isinstance(expected, str) else json.dumps(expected)
            sample = {"step": step, "prompt": prompt, "text": shown, "expected": wanted}
            run.append("samples.jsonl", sample)
        run.write("summary.json", summary)
    metrics = summary["task"]
    if options.json:
        print(json.dumps({"schema_version": 1, **metrics}))
        return
    for name, value in metrics.items():
        if isinstance(value, dict):
            parts = ", ".join(f"{label} {score:.3f}" for label, score in value.items())
            print(f"{name.replace('_', ' ')}: {parts}")
        else:
            shown = f"{value:.4f}" if isinstance(value, float) else value
            print(f"{name.replace('_', ' ')}: {shown}")
