"""isoflop sweep: a grid of budgets and sizes, trained to the end, as rows of runs.csv."""

import csv
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from configs.errors import InputError, require
from configs.folders import require_writable_folder
from configs.overrides import apply_overrides, load_preset_or_file, parse_command
from configs.schema import RunConfig
from configs.serialize import write_text
from data.corpus import Corpus, open_corpus
from planner.accounting import total_params, training_flops_per_token
from planner.budget import Budget, Constraints, parse_count
from planner.outlook import params_by_law
from planner.plan import make_plan, seq_len_for, shape_text, sweep_sizes
from planner.promise import tokens_per_row
from train.run_directory import RunDirectory
from workflows.calibrate import describe_hardware
from workflows.runtime import prepare_runtime
from workflows.train import create_run, finish_training
from workflows.training_options import TrainingOptions

PROG = "isoflop sweep"
COLUMNS = (
    "budget_flops",
    "params",
    "total_params",
    "tokens",
    "flops",
    "epochs",
    "loss",
    "bits_per_byte",
    "num_layers",
    "emb_dim",
    "batch_tokens",
    "num_steps",
    "learning_rate",
    "train_seconds",
    "status",
    "run",
)


@dataclass(frozen=True, kw_only=True)
class SweepOptions(TrainingOptions):
    """Trains every size at every budget (IsoFLOP profiles) and collects the losses for
    `isoflop fit`.

    The same command on a sweep that was interrupted goes on with it: what is complete is not
    trained again. Batch, learning rate and warm-up follow the planner's rules for each budget and
    size; any field of the config can be overridden for all of them: --training.seed 1.
    """

    corpus: Path
    """Folder `isoflop prepare` wrote: one tokenizer for all, so that losses compare."""
    budgets: tuple[str, ...]
    """Training compute in model FLOPs, several: 1e12 3e12 1e13."""
    sizes: tuple[str, ...] = ()
    """Matmul parameters that a place meets, several: 50K 100K 200K. Without them each budget gets
    its own, about 20 tokens a parameter."""
    per_budget: int = 5
    """How many sizes a budget gets where none are given."""
    spread: float = 1.8
    """Factor between neighbouring sizes where none are given."""
    seq_len: int | None = None
    """Tokens a row; chosen by the largest model's size if not given, the same for all."""
    preset: str = "decoder_only"
    """What is no size (architecture, objective, norms, seeds) is taken from this preset or .json
    file."""
    out: Path = Path("runs/sweep")
    """Folder for runs.csv and the runs."""
    dry_run: bool = False
    """Only show the grid."""
    json: bool = False
    """Print the rows of runs.csv as JSON at the end; with --dry-run, the grid."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the grid: its budget in FLOPs, its config, the folder it is trained in."""

    budget_flops: float
    config: RunConfig
    folder: Path

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return self.config.total_places

    @property
    def flops(self) -> float:
        """Model FLOPs of training, counted for this shape."""
        c = self.config
        return training_flops_per_token(c.model, c.lengths).total * self.tokens

    @property
    def params(self) -> int:
        """Matmul parameters that a place meets."""
        return params_by_law("matmul", self.config.model, self.config.lengths)


def main(args: Sequence[str]) -> int:
    """Runs `isoflop sweep`."""
    options, overrides = parse_command(
        SweepOptions, args, prog=PROG, description=SweepOptions.__doc__ or ""
    )
    console = Console(stderr=True, highlight=False)
    prepare_runtime(options, console)
    corpus = open_corpus(options.corpus)
    require_writable_folder("out", options.out)
    cells = grid(options, overrides, corpus)
    console.print(describe(cells))
    if options.dry_run:
        if options.json:
            print_json("grid", [planned_row(cell) for cell in cells])
        return 0
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    for number, cell in enumerate(cells, start=1):
        elapsed = time.perf_counter() - start
        console.rule(f"run {number} of {len(cells)}, after {elapsed / 60:.1f} min", align="left")
        with RunDirectory(cell.folder) as run:
            if not run.exists():
                create_run(run, cell.config, {corpus.path.name: corpus})
            require(
                run.config() == cell.config,
                "out",
                str(run.path),
                "a run of this very sweep; its config differs: use another --out",
            )
            if run.status != "complete":
                corpora = {corpus.path.name: corpus}
                status = finish_training(run, cell.config, corpora, console, watch=options.watch)
                if status:
                    return status
            rows.append(row_of(cell, run, corpus))
        write_text(options.out / "runs.csv", as_csv(rows))
        jax.clear_caches()  # each shape is compiled once; nothing of it is wanted again
    if options.json:
        print_json("runs", rows)
    else:
        print(f"{options.out / 'runs.csv'}: {len(rows)} runs")
    return 0


def print_json(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """The rows under `name` on stdout."""
    print(json.dumps({"schema_version": 1, name: list(rows)}, indent=2))


def grid(options: SweepOptions, overrides: Sequence[str], corpus: Corpus) -> list[Cell]:
    """Every run of the sweep, smallest budget first, planned and checked before any is trained.

    Raises:
      InputError: a budget or size that is no positive number, or too small for any model.
    """
    budgets = sorted(parse_count("budgets", text) for text in _items(options.budgets))
    require(bool(budgets), "budgets", "none", "at least one, such as 1e15")
    require(options.per_budget >= 1, "per_budget", options.per_budget, "at least 1")
    require(options.spread > 1, "spread", options.spread, "a factor above 1")
    given = [parse_count("sizes", text) for text in _items(options.sizes)]
    template = apply_overrides(load_preset_or_file(options.preset), overrides)
    template = replace(template, data=replace(template.data, corpus=str(options.corpus)))
    hardware = describe_hardware()
    sizes_of = {
        flops: given or sweep_sizes(flops, options.per_budget, options.spread) for flops in budgets
    }
    seq_len = options.seq_len or seq_len_for(
        max(size for sizes in sizes_of.values() for size in sizes), template.model.position
    )
    cells: dict[Path, Cell] = {}
    for flops, sizes in sizes_of.items():
        for params in sizes:
            config = make_plan(
                Budget(kind="flops", value=flops),
                template=template,
                hardware=hardware,
                constraints=Constraints(vocab_size=corpus.tokenizer.vocab_size, seq_len=seq_len),
                params=params,
            ).config
            # Only the end counts: the held-out loss after the last step of a finished schedule.
            config = replace(config, training=replace(config.training, eval_every=0))
            config = apply_overrides(config, overrides)
            name = f"c{flops:.3g}-n{params_by_law('matmul', config.model, config.lengths)}"
            config = replace(config, name=name)
            cell = Cell(budget_flops=flops, config=config, folder=options.out / "runs" / name)
            cells[cell.folder] = cell  # two sizes may round to one shape
    return list(cells.values())


def describe(cells: Sequence[Cell]) -> Table:
    """The grid as a table for a person."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("budget", "parameters", "tokens", "a parameter", "steps", "shape"):
        table.add_column(heading, justify="right")
    for cell in cells:
        model = cell.config.model
        table.add_row(
            f"{cell.budget_flops:.3g}",
            f"{cell.params:,}",
            f"{cell.tokens:,}",
            f"{cell.tokens / cell.params:.1f}",
            f"{cell.config.training.num_steps:,}",
            shape_text(model),
        )
    return table


def planned_row(cell: Cell) -> dict[str, Any]:
    """What a row of runs.csv holds before the run: sizes, steps and rates."""
    config = cell.config
    return {
        "budget_flops": cell.budget_flops,
        "params": cell.params,
        "total_params": total_params(config.model),
        "tokens": cell.tokens,
        "flops": cell.flops,
        "num_layers": config.model.num_layers,
        "emb_dim": config.model.emb_dim,
        "batch_tokens": config.batch_tokens,
        "num_steps": config.training.num_steps,
        "learning_rate": config.optimizer.learning_rate,
        "run": cell.folder.name,
    }


def row_of(cell: Cell, run: RunDirectory, corpus: Corpus) -> dict[str, Any]:
    """What a finished run adds to runs.csv (docs/planner.md)."""
    summary, lengths = run.read("summary.json"), cell.config.lengths
    tokens_read = summary["tokens"] * tokens_per_row(lengths) / lengths.places
    return planned_row(cell) | {
        "tokens": summary["tokens"],
        "flops": summary["flops"],
        "epochs": tokens_read / corpus.stream("train").num_tokens,
        "loss": summary["nats_per_token"],
        "bits_per_byte": summary["bits_per_byte"],
        "train_seconds": summary["train_seconds"],
        "status": run.status,
    }


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows under a header of COLUMNS."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([row[name] for name in COLUMNS] for row in rows)
    return text.getvalue()


def _items(texts: Sequence[str]) -> list[str]:
    """'1e12,3e12' and '1e12' '3e12' are the same."""
    items = [item.strip() for text in texts for item in text.split(",")]
    if "" in items:
        raise InputError(f"budgets, sizes: got {' '.join(texts)!r}, expected numbers")
    return items
