"""isoflop evaluate: what a model learns from its prompt."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress

from configs.errors import require
from configs.folders import require_writable_folder
from configs.overrides import parse_command, reject_overrides
from configs.serialize import write_json
from data.tasks.library import held_out_files
from data.tasks.task import Task
from data.tasks.task_file import load_task, shipped_descriptions, shipped_tasks
from inference.few_shot import TaskScores, evaluate_task, require_decoder, require_shots
from inference.few_shot_loss import (
    PlaceLoss,
    PlacewiseLoss,
    RepeatedLoss,
    place_loss,
    repeated_loss,
    repeated_sequences,
    running_text,
)
from inference.generate import TextGenerator
from inference.scoring import Scorer
from report.pictures.canvas import save_png
from report.pictures.repeats import repeats_figure
from report.pictures.shots import shots_figure
from workflows.evaluate_report import (
    curve_of,
    describe_repeats,
    describe_task,
    panel_of,
    record_of,
)
from workflows.load import Loaded, load
from workflows.runtime import RuntimeOptions, prepare_runtime

PROG = "isoflop evaluate"
FOLDER = "in_context"  # under a run
_SCHEMA_VERSION = 1
_MAX_REPEATED = 512  # tokens of a row: a longer context tells no more of what is repeated


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(RuntimeOptions):
    """Zero-, one- and few-shot scores on tasks, and the loss on what a context repeats.

    Tasks ship with isoflop (--list) or are files of yours. Without --tasks and --repeated: all that
    ship, and the repeats.
    """

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """A run directory, or a Hugging Face folder."""
    tasks: tuple[str, ...] = ()
    """Names of tasks that ship, task files (.toml), or files of examples (.jsonl)."""
    shots: tuple[int, ...] = (0, 1, 4, 16)
    """Numbers of examples to show before each question."""
    limit: int = 200
    """Ask each task's first so many examples."""
    repeated: bool = False
    """Measure the loss on sequences that are repeated, and by a token's place in the context."""
    rows: int = 64
    """Rows of tokens for --repeated."""
    seed: int = 0
    """Draws the shots, and the rows of --repeated."""
    out: Path | None = None
    """Folder for results.json and the pictures; in_context in the run directory unless given, and
    for a Hugging Face folder none."""
    list: bool = False
    """List the tasks that ship, and stop."""
    json: bool = False
    """Print the results as one JSON object."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop evaluate`."""
    options, overrides = parse_command(
        EvaluateOptions, args, prog=PROG, description=EvaluateOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    if options.list:
        for name, description in shipped_descriptions().items():
            print(f"{name:20}  {description}")
        return 0
    tasks = _checked_tasks(options)
    if options.out is not None:
        require_writable_folder("out", options.out)
    assert options.run is not None
    prepare_runtime(options, Console(quiet=True))
    loaded = load(options.run)
    require_decoder(loaded.config)
    # Repeats are the loss of a text's next token: unasked for, of decoders alone.
    is_decoder = loaded.config.architecture == "decoder_only"
    measures_repeats = options.repeated or (not options.tasks and is_decoder)
    repeats, place = _measure_repeats(loaded, options) if measures_repeats else ([], None)
    scores = _evaluate(loaded, tasks, options)
    results = {
        "schema_version": _SCHEMA_VERSION,
        "model": str(options.run),
        "context": loaded.seq_len,
        "seed": options.seed,
        "limit": options.limit,
        **record_of(scores, repeats, place),
    }
    out = options.out
    if out is None and (options.run / "run.json").is_file():
        out = options.run / FOLDER
    files = _write(out, results, scores, repeats) if out else []
    if options.json:
        print(json.dumps(results))
    else:
        print("\n".join([*map(describe_task, scores), *describe_repeats(repeats, place)]))
        print("\n".join(map(str, files)))
    return 0


def _checked_tasks(options: EvaluateOptions) -> list[Task]:
    """The tasks asked for, after every check that needs no model."""
    require(options.run is not None, "run", "nothing", "a run directory or Hugging Face folder")
    require_shots(options.shots)
    require(options.limit >= 1, "limit", options.limit, "1 or more")
    require(options.rows >= 2, "rows", options.rows, "2 or more")
    names = options.tasks
    if not names and not options.repeated:
        names = tuple(shipped_tasks())
    tasks = [load_task(name) for name in names]
    for task in tasks:
        once = sum(other.name == task.name for other in tasks) == 1
        require(once, "tasks", task.name, "every task once, each with a name of its own")
    return tasks


def _evaluate(loaded: Loaded, tasks: Sequence[Task], options: EvaluateOptions) -> list[TaskScores]:
    if not tasks:
        return []
    model = (loaded.config, loaded.params, loaded.tokenizer)
    reading = {
        "prompt_is_prefix": loaded.prompt_is_prefix,
        "prompt_format": loaded.prompt_format,
    }
    scorer = Scorer(*model, seq_len=loaded.seq_len, **reading)
    generator = TextGenerator(*model, **reading)
    scores = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for task in tasks:
            bar = progress.add_task(task.name, total=len(set(options.shots)))
            scores.append(
                evaluate_task(
                    task,
                    loaded.config,
                    loaded.tokenizer,
                    scorer=scorer,
                    generator=generator,
                    shots=options.shots,
                    max_tokens=loaded.seq_len - 1,  # <s>, or </s> of an encoder's text
                    num_examples=options.limit,
                    seed=options.seed,
                    on_examples=lambda _, bar=bar: progress.advance(bar),
                )
            )
    return scores


def _measure_repeats(
    loaded: Loaded, options: EvaluateOptions
) -> tuple[list[RepeatedLoss], PlaceLoss]:
    """On the library's held-out files and on random tokens of theirs."""
    model = PlacewiseLoss(
        loaded.config, loaded.params, seq_len=loaded.seq_len, bos_id=loaded.tokenizer.bos_id
    )
    text = "".join(file.text for file in held_out_files())
    tokens = np.asarray(loaded.tokenizer.encode(text), np.int32)
    seq_len = min(loaded.seq_len, _MAX_REPEATED)
    sequences = repeated_sequences(tokens, seq_len=seq_len, rows=options.rows, seed=options.seed)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("repeated sequences", total=4)
        repeats = []
        for kind, sequences_BL in sequences:
            repeats.append(repeated_loss(model, kind, sequences_BL))
            progress.advance(bar)
        rows = running_text(tokens, loaded.seq_len, rows=options.rows, seed=options.seed)
        return repeats, place_loss(model, rows)


def _write(
    out: Path,
    results: dict[str, Any],
    scores: Sequence[TaskScores],
    repeats: Sequence[RepeatedLoss],
) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "results.json", results)
    files = [out / "results.json"]
    if scores:
        curves = [curve_of(one) for one in scores]
        files.append(save_png(shots_figure(curves), out / "shots.png"))
    if repeats:
        files.append(
            save_png(repeats_figure([panel_of(one) for one in repeats]), out / "repeats.png")
        )
    return files
