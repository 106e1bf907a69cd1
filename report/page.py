"""Puts the page together, and writes it."""

import base64
import hashlib
import os
import tempfile
from pathlib import Path

from report.curves import curves_section
from report.goodput import goodput_section
from report.ledger import ledger_section
from report.read import RunRecord, read_run
from report.sections import (
    comparison_section,
    config_section,
    escaped,
    events_section,
    export_section,
    header_section,
    headline_section,
    provenance_section,
    samples_section,
)
from report.style import CSS, SCRIPT


def build_report(run_dir: str | Path) -> str:
    """The report of a run as one HTML document that loads nothing from anywhere.

    Args:
        run_dir: a run directory, at any stage: without a plan, before the first step, training.

    Raises:
        InputError: `run_dir` is not a run directory.
    """
    return _document(read_run(run_dir))


def write_report(run_dir: str | Path) -> Path:
    """Writes `report.html` into the run directory, replacing an older one at once.

    Returns:
        Path of the page.

    Raises:
        InputError: `run_dir` is not a run directory.
    """
    # A lone surrogate (JSON can spell one) has no UTF-8: it becomes a question mark.
    page = build_report(run_dir).encode("utf-8", errors="replace")
    path = Path(run_dir) / "report.html"
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".report.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _document(run: RunRecord) -> str:
    sections = (
        header_section,
        headline_section,
        comparison_section,
        curves_section,
        samples_section,
        ledger_section,
        goodput_section,
        provenance_section,
        export_section,
        events_section,
        config_section,
    )
    body = "\n".join(section(run) for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_content_policy()}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(run.name)}: isoflop run report</title><style>{CSS}</style></head>\n"
        f"<body><main>\n{body}\n<footer>Written by isoflop from the files of the run directory. "
        "MFU and FLOPs count model FLOPs: 6 per matmul parameter and token, plus attention "
        "halved for the causal mask; recomputation is not counted.</footer></main>\n"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _content_policy() -> str:
    """Lets the page run its own script and nothing else: a second wall behind the escaping."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
