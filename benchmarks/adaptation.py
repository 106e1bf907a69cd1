"""Adapting a pretrained model against training the same model from nothing, with equal steps.

    .venv/bin/python benchmarks/adaptation.py --encoder RUN --encoder-decoder RUN

Three tasks from the standard library (docs/adaptation.md), two starts, three learning rates each,
three seeds: 54 trainings. A seed decides the order of the records and every fresh parameter. The
learning rate is chosen by its mean score over the seeds on a validation part, every tenth train
file; what is reported is scored on the records of held-out files, with the learning rate chosen.

Finished trainings are kept in the JSON file and not repeated. The table goes to stdout.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh
from rich.console import Console

from configs.schema import RunConfig
from configs.serialize import write_json
from data.batches import Cursor
from data.corpus import Corpus
from data.dataset import training_rows
from data.labelled import labels_of
from data.labelled_corpus import LabelledRecords, token_limits, write_labelled_corpus
from data.sources.stdlib import StdlibSource
from data.sources.text_source import Document, documents_of
from data.tasks.supervised import Record, SupervisedTask, spread, supervised_task
from train.evaluate import evaluate
from train.feed import feed
from train.mesh import make_mesh
from train.programs import CompiledSteps, compile_steps
from train.run_directory import RunDirectory
from train.state import init_state
from train.step import batch_sharding
from workflows.adapt_config import Schedule, objective_for, supervised_config
from workflows.initial_checkpoint import merged
from workflows.load import Loaded, load
from workflows.task_evaluation import evaluate_task

STARTS = ("pretrained", "from scratch")
SEEDS = (0, 1, 2)
VALIDATE_EVERY = 10


@dataclass(frozen=True, kw_only=True)
class Case:
    """One task of the comparison.

    rates: learning rates of either start. metrics: what it is judged by, more is better.
    chosen_by: one of them, or "nats", the loss, of which less is better: answering in words takes
    long.
    """

    task: str
    run: str
    num_steps: int
    batch_size: int
    rates: tuple[float, ...]
    metrics: tuple[str, ...]
    chosen_by: str


CASES = (
    Case(
        task="token_classes",
        run="encoder",
        num_steps=200,
        batch_size=32,
        rates=(1e-3, 3e-3, 1e-2),
        metrics=("entity_f1",),
        chosen_by="entity_f1",
    ),
    Case(
        task="module_classes",
        run="encoder",
        num_steps=200,
        batch_size=32,
        rates=(3e-4, 1e-3, 3e-3),
        metrics=("macro_f1", "accuracy"),
        chosen_by="macro_f1",
    ),
    Case(
        task="docstrings",
        run="encoder_decoder",
        num_steps=200,
        batch_size=8,
        rates=(1e-3, 3e-3, 1e-2),
        metrics=("rouge_l", "bleu"),
        chosen_by="nats",
    ),
)


class Split(NamedTuple):
    """Records of train files, of the validation part of train files, and of held-out files."""

    train: list[Record]
    validation: list[Record]
    test: list[Record]


class Prepared(NamedTuple):
    """A case with what does not depend on learning rate, seed and start."""

    case: Case
    task: SupervisedTask
    labels: tuple[str, ...]
    records: Split
    validation: Corpus
    test: Corpus
    run: RunConfig
    pretrained: Loaded


def main() -> None:
    """Runs what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", type=Path, default=Path("runs/encoder_only"))
    parser.add_argument("--encoder-decoder", type=Path, default=Path("runs/encoder_decoder"))
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation.json"))
    parser.add_argument("--work", type=Path, default=Path("corpora/adaptation"))
    parser.add_argument("--tasks", nargs="*", default=[case.task for case in CASES])
    options = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    results = json.loads(options.out.read_text()) if options.out.exists() else {"trainings": {}}
    documents = list(documents_of(StdlibSource()))
    for case in CASES:
        if case.task not in options.tasks:
            continue
        folder = options.encoder if case.run == "encoder" else options.encoder_decoder
        if not (folder / "run.json").is_file():
            console.print(f"{case.task}: passed over, {folder} is no run (isoflop pretrain)")
            continue
        prepared = prepare(case, folder, documents, options.work)
        run_case(prepared, results["trainings"], options.out, console)
    print(table(results["trainings"]))


def prepare(case: Case, folder: Path, documents: list[Document], work: Path) -> Prepared:
    """Records and corpora of a case."""
    task, loaded = supervised_task(case.task), load(folder)
    records = split_records(task, documents)
    labels = labels_of(records.train, task.kind)
    run = RunDirectory.open(folder).config()
    objective = objective_for(task.kind, run.model.architecture)
    limits = token_limits(objective, run.data.seq_len)

    def corpus(name: str, held_out: list[Record]) -> Corpus:
        return write_labelled_corpus(
            work / f"{case.task}-{name}",
            LabelledRecords(task.kind, labels, records.train, held_out, {"task": case.task}),
            loaded.tokenizer,
            limits,
        )

    return Prepared(
        case,
        task,
        labels,
        records,
        corpus("validation", records.validation),
        corpus("test", records.test),
        run,
        loaded,
    )


def split_records(task: SupervisedTask, documents: list[Document]) -> Split:
    """Records by file: a file's are all in one part."""
    held_out = StdlibSource().pinned_held_out
    train = [document for document in documents if document.id not in held_out]
    test = [document for document in documents if document.id in held_out]
    validation = train[::VALIDATE_EVERY]
    train = [document for number, document in enumerate(train) if number % VALIDATE_EVERY]
    return Split(
        spread(list(task.records(train)), task.max_train),
        spread(list(task.records(validation)), task.max_held_out),
        spread(list(task.records(test)), task.max_held_out),
    )


def run_case(prepared: Prepared, trainings: dict[str, Any], out: Path, console: Console) -> None:
    """Every training of a case that is not there yet."""
    case = prepared.case
    for rate in case.rates:
        config = config_of(prepared, rate, seed=0)
        mesh = make_mesh(config.mesh)
        steps: CompiledSteps | None = None
        for start in STARTS:
            for seed in SEEDS:
                key = f"{case.task} | {start} | {rate:g} | {seed}"
                if key in trainings:
                    continue
                steps = steps or compile_steps(config, mesh)
                begun = time.perf_counter()
                trainings[key] = training(prepared, start, rate, seed, steps, mesh)
                trainings[key]["seconds"] = time.perf_counter() - begun
                write_json(out, {"trainings": trainings})
                console.print(f"{key}: {trainings[key]}")


def config_of(prepared: Prepared, rate: float, seed: int) -> RunConfig:
    """The run's config, as `isoflop adapt` would make it."""
    case = prepared.case
    schedule = Schedule(
        learning_rate=rate, num_steps=case.num_steps, batch_size=case.batch_size, seed=seed
    )
    return supervised_config(
        prepared.run,
        prepared.task.kind,
        prepared.labels,
        prepared.validation,
        schedule,
        name=case.task,
    )


def training(
    prepared: Prepared, start: str, rate: float, seed: int, steps: CompiledSteps, mesh: Mesh
) -> dict[str, Any]:
    """Trains once; scores on both parts."""
    config = config_of(prepared, rate, seed)
    source = training_rows(config, {"train": prepared.validation})
    sharding = batch_sharding(config, mesh)
    state = init_state(config, mesh)
    if start == "pretrained":
        state = state._replace(params=merged(state.params, prepared.pretrained.params))
    batches = feed(
        source, Cursor(), config.training, first_step=0, sharding=sharding, num_threads=1
    )
    loss = 0.0
    for fed in batches:
        state, metrics = steps.train_step(state, fed.batch)
        loss = metrics.loss
    loaded = replace(prepared.pretrained, config=config.model, params=state.params)
    record: dict[str, Any] = {"train_loss": float(loss)}
    for name, corpus in (("validation", prepared.validation), ("test", prepared.test)):
        nats = evaluate(
            steps.eval_step, state.params, config, {name: corpus}, sharding=sharding
        ).nats_per_token
        record[name] = {"nats": nats}
        records = getattr(prepared.records, name)
        if prepared.case.chosen_by != "nats" or name == "test":
            result = evaluate_task(loaded, prepared.task.kind, prepared.labels, records)
            record[name] |= {metric: result.metrics[metric] for metric in prepared.case.metrics}
    return record


def chosen_rate(trainings: dict[str, Any], case: Case, start: str) -> float | None:
    """The learning rate with the best mean on the validation part; None while one is missing."""
    means = {}
    for rate in case.rates:
        scores = _scores(trainings, case, start, rate, "validation", case.chosen_by)
        if len(scores) < len(SEEDS):
            return None
        means[rate] = statistics.mean(scores)
    best = min if case.chosen_by == "nats" else max
    return best(means, key=means.__getitem__)


def _scores(
    trainings: dict[str, Any], case: Case, start: str, rate: float, part: str, metric: str
) -> list[float]:
    keys = [f"{case.task} | {start} | {rate:g} | {seed}" for seed in SEEDS]
    return [trainings[key][part][metric] for key in keys if key in trainings]


def table(trainings: dict[str, Any]) -> str:
    """Test scores by task and start, at the chosen learning rate: mean, and each seed's."""
    lines = [
        "| task | start | learning rate | metric | mean | seeds 0, 1, 2 |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        for metric in (*case.metrics, "nats"):
            for start in STARTS:
                rate = chosen_rate(trainings, case, start)
                if rate is None:
                    continue
                scores = _scores(trainings, case, start, rate, "test", metric)
                shown = ", ".join(f"{score:.3f}" for score in scores)
                mean = statistics.mean(scores)
                lines.append(
                    f"| {case.task} | {start} | {rate:g} | {metric} | {mean:.3f} | {shown} |"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
