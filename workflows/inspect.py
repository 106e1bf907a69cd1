"""isoflop inspect: what a batch of a run holds, or what a corpus holds, as text."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress

from configs.errors import InputError, require
from configs.overrides import parse_command, reject_overrides
from configs.schema import RunConfig, TrainingConfig
from configs.serialize import read_json
from data.batches import Batch, Cursor, advance, take_rows
from data.corpus import Corpus, EncodedDocument, open_corpus, verify_corpus
from data.corpus_card import CARD_NAME, card_page
from data.dataset import open_corpora, require_same_corpora, training_rows, with_corpora
from data.labelled_corpus import LABELS_NAME, read_labels
from data.ledger import RowEntry
from data.objectives import Example
from data.rows import RowSource, ServedBatch
from data.segments import encoder_segments, segments
from data.show import Mark, MarkedToken, PieceTable, TextView
from data.tokenizer import BOS_ID, EOS_ID, Tokenizer
from train.refusals import CULPRITS_FOLDER, read_culprit
from train.run_directory import RunDirectory

PROG = "isoflop inspect"
_NARROWEST = 40


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Shows exactly what a step of a run trains on, or what a corpus holds and whether it is whole.

    A step need not be trained yet: which rows it reads follows from the run's config alone.
    """

    target: Annotated[Path, tyro.conf.Positional]
    """A run directory, or a corpus that `isoflop prepare` wrote."""
    step: int | None = None
    """Of a run: show the batch of this step; step 1, the default, is the first update."""
    culprit: int | None = None
    """Of a run that gave up on its numbers: show the batch that it kept of this step."""
    rows: int = 4
    """Of a run: show the first so many rows of the batch; 0: all."""
    tokens: bool = False
    """Of a run: also a line for every place, with ids, pieces and loss weight."""
    corpus: tuple[Path, ...] = ()
    """Of a run: its corpora's folders where they have moved, in the config's order."""
    verify: Literal["quick", "full"] = "quick"
    """Of a corpus: full reads every byte of it; quick checks sizes, file ends and the tokenizer."""
    documents: int = 0
    """Of a corpus: show its first so many documents instead of its card."""
    split: Literal["train", "held_out"] = "train"
    """Which documents."""
    json: bool = False
    """Print one JSON object."""
    color: Literal["auto", "always", "never"] = "auto"
    """auto: on a terminal, unless NO_COLOR is set. Without colours, brackets mark tokens."""
    width: int = 0
    """Cells a line; 0: the terminal's, or as long as a line of text takes where there is none."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop inspect`."""
    options, overrides = parse_command(
        InspectOptions, args, prog=PROG, description=InspectOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    for name, number in (("rows", options.rows), ("documents", options.documents)):
        require(number >= 0, name, number, "0 or more")
    require(
        options.width == 0 or options.width >= _NARROWEST,
        "width",
        options.width,
        f"{_NARROWEST} or more, or 0 for the terminal's",
    )
    if (options.target / "run.json").is_file():
        _reject(options, "a corpus", "documents", "verify", "split")
        lines = inspect_run(options)
    elif (options.target / CARD_NAME).is_file():
        _reject(options, "a run", "step", "culprit", "rows", "tokens", "corpus")
        lines = inspect_corpus(options)
    else:
        raise InputError(
            f"target: got {options.target}, expected a run directory (with a run.json) or a "
            f"corpus (with a {CARD_NAME})"
        )
    for line in lines:
        print(line)
    return 0


def inspect_run(options: InspectOptions) -> Iterable[str]:
    """Lines on a step's batch.

    Raises:
      InputError: a damaged run, a step it does not have, or corpora that are not the run's.
    """
    run = RunDirectory.open(options.target)
    config = run.config()
    if options.culprit is not None:
        require(options.step is None, "step", options.step, "--step or --culprit")
    asked = options.step if options.culprit is None else options.culprit
    step = 1 if asked is None else asked
    num_steps = config.training.num_steps
    require(1 <= step <= num_steps, "step", step, f"1 to {num_steps}, the run's steps")
    if options.corpus:
        config = with_corpora(config, options.corpus)
    corpora = open_corpora(config.data)
    require_same_corpora(corpora, run.read("fingerprint.json").get("corpora"))
    source = training_rows(config, corpora)
    kept: Batch | None = None
    if options.culprit is None:
        numbers = step_rows(config.training, step, skipped=_skipped(run))
    else:
        numbers, kept, reason = read_culprit(run.path / CULPRITS_FOLDER, step)
        print(reason, file=sys.stderr)
    shown = numbers[: options.rows or len(numbers)]
    served = source.batch(shown, length=source.batch_length(numbers))
    if kept is not None:
        served = _as_kept(served, kept, numbers)
    tokenizer = Tokenizer.load(run.tokenizer)
    if options.json:
        return [json.dumps(_record(config, step, numbers, source, served, tokenizer))]
    view = _view(options, tokenizer, read_labels(run.path)[1] if run.has(LABELS_NAME) else ())
    return _batch_lines(config, step, numbers, source, served, view, options)


def _as_kept(served: ServedBatch, kept: Batch, numbers: np.ndarray) -> ServedBatch:
    """The rows as training had them, with a word where the corpus gives others now."""
    count = len(served.entries)
    had = Batch(*(None if field is None else field[:count] for field in kept))  # type: ignore[arg-type]
    for place in range(count):
        rows = [
            (ours[place], now[place])
            for ours, now in zip(had, served.batch, strict=True)
            if ours is not None and now is not None
        ]
        if any(not np.array_equal(ours, now) for ours, now in rows):
            print(
                f"row {numbers[place]:,} is not what the corpus holds: it was altered on its way",
                file=sys.stderr,
            )
    return served._replace(batch=had)


def step_rows(
    training: TrainingConfig, step: int, *, skipped: Sequence[tuple[int, int]] = ()
) -> np.ndarray:
    """The row numbers [B] of the batch whose update makes step `step`, 1 or more."""
    start = advance(Cursor(skipped=tuple(skipped)), training.rows_before(step - 1))
    return take_rows(start, training.batch_size_at(step - 1))[0]


def inspect_corpus(options: InspectOptions) -> Iterable[str]:
    """Lines on a corpus: its card, or its first documents.

    Raises:
      InputError: it is damaged; names the file.
    """
    if options.split != "train":
        require(options.documents > 0, "split", options.split, "--documents with it")
    if options.verify == "full":
        corpus = _verified(options)
    else:
        corpus = open_corpus(options.target)
    if options.documents:
        documents = islice(corpus.documents(options.split), options.documents)
        if options.json:
            return [json.dumps(_documents_record(corpus, options.split, documents))]
        return _document_lines(corpus, options, documents)
    if options.json:
        return [json.dumps(corpus.card)]
    return card_page(corpus.card).splitlines()


def _verified(options: InspectOptions) -> Corpus:
    console = Console(stderr=True, highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"verifying {options.target}", total=1.0)
        corpus = verify_corpus(options.target, lambda done: bar.update(task, completed=done))
    files = corpus.card["files"]
    num_bytes = sum(entry["bytes"] for entry in files.values())
    num_chunks = sum(split.chunks for split in corpus.splits.values())
    summary = f"intact: {len(files):,} files, {num_bytes:,} bytes, {num_chunks:,} chunks"
    # stdout holds nothing but the JSON where that was asked for.
    print(summary, file=sys.stderr if options.json else sys.stdout)
    return corpus


def _view(options: InspectOptions, tokenizer: Tokenizer, classes: Sequence[str] = ()) -> TextView:
    is_terminal = sys.stdout.isatty()
    wants_color = is_terminal and not os.environ.get("NO_COLOR")
    color = {"auto": wants_color, "always": True, "never": False}[options.color]
    width = options.width or (shutil.get_terminal_size().columns if is_terminal else 0)
    return TextView(PieceTable.of(tokenizer), color=color, width=width, classes=classes)


def _batch_lines(
    config: RunConfig,
    step: int,
    numbers: np.ndarray,
    source: RowSource,
    served: ServedBatch,
    view: TextView,
    options: InspectOptions,
) -> Iterator[str]:
    gaps = int(numbers[-1] - numbers[0]) + 1 - len(numbers)
    yield " · ".join(
        [
            f"step {step:,} of {config.training.num_steps:,}",
            f"rows {numbers[0]:,} to {numbers[-1]:,}" + (f", {gaps:,} skipped" if gaps else ""),
            f"batch {len(numbers):,} × {_places(served)}",
            f"{config.objective.kind}, {config.data.packing.kind}, seed {config.data.seed}",
        ]
    )
    yield view.legend(has_prefix=served.batch.prefix is not None)
    for number, example, entry in _rows(numbers, served):
        yield ""
        yield f"row {number:,} · {source.names[entry.corpus]}, epoch {entry.epoch} · " + (
            f"{entry.places:,} places: {entry.read:,} read, {entry.repeated:,} repeated, "
            f"{entry.padded:,} padded · {entry.trained_on:,} with loss · {entry.cuts:,} cut, "
            f"{entry.truncated:,} truncated"
        )
        yield from view.example(example, with_tokens=options.tokens)
    if len(served.entries) < len(numbers):
        yield f"\n{len(served.entries):,} of {len(numbers):,} rows; --rows 0 shows all"


def _record(
    config: RunConfig,
    step: int,
    numbers: np.ndarray,
    source: RowSource,
    served: ServedBatch,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "step": step,
        "first_row": int(numbers[0]),
        "last_row": int(numbers[-1]),
        "batch_shape": [len(numbers), served.batch.inputs.shape[1]],
        "encoder_length": _encoder_length(served),
        "objective": config.objective.kind,
        "packing": config.data.packing.kind,
        "rows": [
            {
                "row": number,
                "corpus": source.names[entry.corpus],
                "epoch": entry.epoch,
                "counts": _counts(entry),
                "segments": [
                    {
                        "segment": segment.number,
                        "text": tokenizer.decode(segment.inputs),
                        "tokens": segment.inputs.tolist(),
                        "targets": segment.targets.tolist(),
                        "loss_weights": segment.loss_weights.tolist(),
                        "positions": segment.positions.tolist(),
                        "prefix": segment.prefix.astype(int).tolist(),
                    }
                    for segment in segments(example)
                ],
                "encoder_segments": [
                    {
                        "segment": segment.number,
                        "text": tokenizer.decode(segment.inputs),
                        "tokens": segment.inputs.tolist(),
                        "positions": segment.positions.tolist(),
                    }
                    for segment in encoder_segments(example)
                ],
            }
            for number, example, entry in _rows(numbers, served)
        ],
    }


def _rows(numbers: np.ndarray, served: ServedBatch) -> Iterator[tuple[int, Example, RowEntry]]:
    """The rows that were read: number, example, ledger entry."""
    for place, entry in enumerate(served.entries):
        fields = (None if field is None else field[place] for field in served.batch)
        example = Example(*fields)  # type: ignore[arg-type]
        yield int(numbers[place]), example, entry


def _places(served: ServedBatch) -> str:
    """Places in each row of a batch: "512", or "512 + 114" of an encoder and a decoder."""
    encoder = _encoder_length(served)
    return (f"{encoder:,} + " if encoder else "") + f"{served.batch.inputs.shape[1]:,}"


def _encoder_length(served: ServedBatch) -> int:
    encoder = served.batch.encoder_inputs
    return 0 if encoder is None else encoder.shape[1]


def _counts(entry: RowEntry) -> dict[str, int]:
    """A row's counts under the names that ledger.json has for them."""
    named = ("places", "cuts")
    counts = entry._asdict()
    return {
        name if name in named else f"tokens_{name}": counts[name]
        for name in ("places", "read", "repeated", "padded", "truncated", "cuts", "trained_on")
    }


def _document_lines(
    corpus: Corpus, options: InspectOptions, documents: Iterable[EncodedDocument]
) -> Iterator[str]:
    view = _view(options, corpus.tokenizer)
    total = corpus.splits[options.split].documents
    for number, document in enumerate(documents, start=1):
        tokens = [BOS_ID, *document.tokens.tolist(), EOS_ID]
        yield (
            f"--- {options.split} document {number:,} of {total:,} · {len(tokens):,} tokens · "
            f"{document.num_bytes:,} bytes"
        )
        yield from view.lines([MarkedToken(token, Mark()) for token in tokens])


def _documents_record(
    corpus: Corpus, split: str, documents: Iterable[EncodedDocument]
) -> dict[str, Any]:
    records = [
        {
            "document": number,
            "num_tokens": len(document.tokens) + 2,  # <s> and </s>, as the card counts
            "bytes": document.num_bytes,
            "text": corpus.tokenizer.decode(document.tokens),
        }
        for number, document in enumerate(documents, start=1)
    ]
    return {"schema_version": 1, "split": split, "documents": records}


def _reject(options: InspectOptions, kind: str, *names: str) -> None:
    """Raises InputError where an option was given that is for the other kind of target."""
    for name in names:
        value = getattr(options, name)
        require(
            value == InspectOptions.__dataclass_fields__[name].default,
            name,
            value,
            f"{kind} as the target, which {options.target} is not",
        )


def _skipped(run: RunDirectory) -> tuple[tuple[int, int], ...]:
    """Rows that training passes over, as the newest readable checkpoint says; no array is read."""
    folders = [folder for folder in run.checkpoints.glob("*") if folder.name.isdigit()]
    for folder in sorted(folders, key=lambda folder: int(folder.name), reverse=True):
        try:
            progress = read_json(folder / "progress" / "metadata")
            return Cursor.from_json(progress["cursor"]).skipped
        except (InputError, KeyError, TypeError):
            continue  # training would put it aside and use the one before
    return ()
