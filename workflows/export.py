"""isoflop export: a run to a verified Hugging Face folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from configs.overrides import parse_command, reject_overrides
from data.corpus import Corpus
from data.dataset import open_corpora
from export.express import default_family
from export.write import ExportResult, export_run
from train.run_directory import RunDirectory
from workflows.load import Loaded, load, on_host

PROG = "isoflop export"
_LINES = 1000


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Writes a folder that `transformers` loads, reloads it and compares before saying done."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory."""
    family: str = ""
    """The architecture family to export as; the first that can express the model if not given."""
    out: Path | None = None
    """Folder to write; RUN/export/FAMILY if not given."""
    json: bool = False
    """Print the result as JSON."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop export`."""
    options, overrides = parse_command(
        ExportOptions, args, prog=PROG, description=ExportOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    run = RunDirectory.open(options.run)
    corpus = next(iter(open_corpora(run.config().data).values()))
    loaded = load(options.run)
    family = options.family or default_family(loaded.config, loaded.seq_len)
    out = options.out or options.run / "export" / family
    result = export_loaded(loaded, corpus, out, family)
    if options.json:
        print(json.dumps({"schema_version": 1, **export_record(result)}, indent=2))
    else:
        print(describe(result))
    return 0


def export_loaded(loaded: Loaded, corpus: Corpus, out: Path, family: str) -> ExportResult:
    """Exports and verifies, the tokenizers on lines of held-out text."""
    return export_run(
        on_host(loaded.params),
        loaded.config,
        loaded.tokenizer,
        out,
        family=family,
        seq_len=loaded.seq_len,
        lines=held_out_lines(corpus),
    )


def held_out_lines(corpus: Corpus, count: int = _LINES) -> list[str]:
    """The first lines of the held-out documents that are not blank."""
    lines: list[str] = []
    for document in corpus.documents("held_out"):
        text = corpus.tokenizer.decode(document.tokens.tolist())
        lines += [line for line in text.splitlines() if line.strip()]
        if len(lines) >= count:
            break
    return lines[:count]


def export_record(result: ExportResult) -> dict[str, object]:
    """The `export` entry of summary.json."""
    report = result.verification
    return {
        "path": str(result.path),
        "family": result.family,
        "params": result.num_params,
        "bytes": result.num_bytes,
        "verified_against": report.reference,
        "max_abs_logit_difference": report.max_abs_logit_difference,
        "greedy_tokens": report.greedy_tokens,
        "lines": report.num_lines,
    }


def describe(result: ExportResult) -> str:
    """One line for a person: where, how large, and against what it was verified."""
    report = result.verification
    greedy = f"{report.greedy_tokens} greedy tokens and " if report.greedy_tokens else ""
    return (
        f"{result.path}: {result.num_params:,} parameters, {result.num_bytes / 1e6:.1f} MB; "
        f"verified against {report.reference}: {report.num_tensors} tensors equal, "
        f"max |Δlogit| {report.max_abs_logit_difference:.1e}, {greedy}"
        f"{report.num_lines} tokenized lines equal"
    )
