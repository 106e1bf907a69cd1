"""isoflop report: a run directory to one self-contained HTML page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from configs.overrides import parse_command, reject_overrides
from report.page import write_report

PROG = "isoflop report"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Writes RUN/report.html: plan against actual, curves, ledger, samples."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, finished or still training."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop report`."""
    options, overrides = parse_command(
        ReportOptions, args, prog=PROG, description=ReportOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    print(write_report(options.run))
    return 0
