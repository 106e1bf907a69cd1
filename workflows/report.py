"""isoflop report: a run directory to one self-contained HTML page."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from configs.overrides import parse_command, reject_overrides
from report.compare import comparison_rows
from report.page import write_report
from report.read import RunRecord, read_run

PROG = "isoflop report"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Writes RUN/report.html: plan against actual, curves, ledger, samples."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, finished or still training."""
    json: bool = False
    """Print plan against actual as JSON instead of writing the page."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop report`."""
    options, overrides = parse_command(
        ReportOptions, args, prog=PROG, description=ReportOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    if options.json:
        print(json.dumps(comparison_record(read_run(options.run)), indent=2))
    else:
        print(write_report(options.run))
    return 0


def comparison_record(run: RunRecord) -> dict[str, Any]:
    """Plan against actual as JSON types: a row a quantity, with units, difference and verdict."""
    rows = [asdict(row) for row in comparison_rows(run)]
    return {"schema_version": 1, "run": run.name, "plan_against_actual": rows}
