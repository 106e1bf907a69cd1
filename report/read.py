"""Reads a run directory, at any stage of its life, into one typed record."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.earlier_versions import READABLE_VERSIONS
from configs.errors import InputError

SCHEMA_VERSION = 1

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What is in a run directory; None or empty where a file is not there (yet).

    Attributes:
        path: the run directory.
        run: run.json.
        plan, config, fingerprint, ledger, goodput, summary: the JSON files of those names, or None.
        metrics, evaluations: lines of the .jsonl files, one per step, in order of step.
        samples: lines of samples.jsonl, in order of step; one per step and prompt.
        events: lines of events.jsonl as written.
        problems: one sentence per file, or part of a file, that could not be used.
    """

    path: Path
    run: Record
    plan: Record | None = None
    config: Record | None = None
    fingerprint: Record | None = None
    ledger: Record | None = None
    goodput: Record | None = None
    summary: Record | None = None
    metrics: list[Record] = field(default_factory=list)
    evaluations: list[Record] = field(default_factory=list)
    samples: list[Record] = field(default_factory=list)
    events: list[Record] = field(default_factory=list)
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return text(self.run, "name") or self.path.name

    @property
    def status(self) -> str:
        return text(self.run, "status") or "unknown"

    @property
    def is_trained(self) -> bool:
        """Whether training is over: then summary.json is there, export and report may yet come."""
        return self.status == "complete" or number(self.summary, "num_steps") is not None


def read_run(run_dir: str | Path) -> RunRecord:
    """Reads every file of a run directory that the report uses.

    A file that is not there is left out. A file that is there but damaged is left out too, and
    said so in `problems`; only run.json, which marks a folder as a run, must be sound. The last
    line of a .jsonl file may be half written (a run that is training, or was killed): it is
    ignored.

    Raises:
        InputError: `run_dir` is not a folder, has no run.json, or its run.json is not one that
            this version reads.
    """
    path = Path(run_dir)
    if not path.is_dir():
        raise InputError(f"run: got {str(path)!r}, expected a run directory")
    if not (path / "run.json").is_file():
        raise InputError(f"run: got {str(path)!r}, expected a folder that holds run.json")
    problems: list[str] = []
    run = _read_object(path / "run.json", problems)
    if run is None:
        raise InputError(f"run: got {problems[0]}, expected a run.json that isoflop wrote")

    def lines(name: str) -> list[Record]:
        return _read_lines(path / name, problems)

    objects = {
        name: _read_object(path / f"{name}.json", problems)
        for name in ("plan", "config", "fingerprint", "ledger", "goodput", "summary")
    }
    return RunRecord(
        path=path,
        run=run,
        metrics=_last_per_key(lines("metrics.jsonl"), "step"),
        evaluations=_last_per_key(lines("evaluations.jsonl"), "step"),
        samples=_last_per_key(lines("samples.jsonl"), "step", "prompt"),
        events=lines("events.jsonl"),
        problems=tuple(problems),
        **objects,
    )


def lookup(record: Record | None, *keys: str) -> Any:
    """`record[key][key]...`, or None where anything on the way is missing or no object."""
    value: Any = record
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def number(record: Record | None, *keys: str) -> float | None:
    """The number at `keys` (it may be NaN or infinite), or None where there is no number."""
    value = lookup(record, *keys)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def text(record: Record | None, *keys: str) -> str | None:
    """The string at `keys`, or None where there is no string."""
    value = lookup(record, *keys)
    return value if isinstance(value, str) else None


def entries(record: Record | None, *keys: str) -> list[Record]:
    """The objects of the list at `keys`; empty where there is no list."""
    value = lookup(record, *keys)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _read_object(path: Path, problems: list[str]) -> Record | None:
    """One JSON object, or None (with a line in `problems` unless the file is just not there)."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(f"{path.name}: {error.strerror or 'not readable'}")
        return None
    except (ValueError, RecursionError):
        problems.append(f"{path.name}: not valid JSON")
        return None
    if not isinstance(value, dict):
        problems.append(f"{path.name}: not a JSON object")
        return None
    version = value.get("schema_version")
    expected = READABLE_VERSIONS if path.name == "config.json" else (SCHEMA_VERSION,)
    if version not in expected:
        readable = " or ".join(map(str, expected))
        problems.append(f"{path.name}: schema_version {version!r}, not {readable}")
        return None
    return value


def _read_lines(path: Path, problems: list[str]) -> list[Record]:
    """The objects of a .jsonl file; damaged lines are counted, save the last, which may be."""
    try:
        raw_lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{path.name}: {error.strerror or 'not readable'}")
        return []
    records: list[Record] = []
    damaged = 0
    for position, raw_line in enumerate(raw_lines):
        if not raw_line.strip():
            continue
        try:
            value = json.loads(raw_line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            records.append(value)
        elif position < len(raw_lines) - 1:
            damaged += 1
    if damaged:
        problems.append(f"{path.name}: {damaged} damaged line(s) left out")
    return records


def _last_per_key(records: list[Record], *keys: str) -> list[Record]:
    """One record per key, the last written, in order of step; those without a step left out.

    After a restart a step may have been written twice.
    """
    latest: dict[tuple, Record] = {}
    for record in records:
        step = number(record, "step")
        if step is None or step != step:
            continue
        latest[(step, *(repr(record.get(key)) for key in keys if key != "step"))] = record
    return sorted(latest.values(), key=lambda record: number(record, "step") or 0.0)
