"""Train steps compiled for TPUs that are not here, side by side with MaxText's.

    .venv-tpu/bin/python -m benchmarks.tpu_compiled --maxtext-python PYTHON --out FOLDER
    .venv-tpu/bin/python -m benchmarks.tpu_compiled --ours-only --cases 405b-v5p-4096

Cases are benchmarks/tpu_cases.py's; PYTHON is that of MaxText's environment (see
benchmarks/maxtext.txt). Each program is compiled in a process of its own, one after the other,
with the same devices, the same libtpu (asserted) and no XLA flags (but one that MaxText sets, on
how random bits are drawn: its step draws none); both texts are counted by the same code. FOLDER
keeps for each case and side the program's text, its record, and the compiler's chatter;
`table.json` there has the table.

A run reuses no earlier result unless `--reuse` says so.
"""

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.tpu_cases import CASES, TpuCase
from configs.errors import InputError, require
from configs.serialize import did_you_mean
from planner.topology import parse_topology

ROOT = Path(__file__).resolve().parents[1]

# The device's part of a ring: what each collective sends for each byte of its payload, n devices.
_SENT = {
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "ragged-all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
    "collective-broadcast": lambda n: 1.0,
}
# Figure -> the most of MaxText's that ours may be.
_GOALS = {"hbm_bytes": 1.0, "collective_bytes": 1.05, "compile_seconds": 0.7}

Side = Literal["ours", "maxtext"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compiles train steps for TPUs, ours and MaxText's; prints the table and keeps it as JSON."""

    cases: tuple[str, ...] = tuple(case.name for case in CASES)
    """Names of benchmarks/tpu_cases.py; all by default."""
    maxtext_python: Path | None = None
    """Python of MaxText's environment."""
    ours_only: bool = False
    """Leave MaxText out."""
    out: Path = Path("tpu_compiled")
    """Folder for programs, records and the table."""
    reuse: bool = False
    """Take programs that lie in the folder instead of compiling them anew."""
    dump: bool = False
    """Also dump every program's buffers (`*-memory-usage-report.txt`); compile times then count
    for nothing."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one side of a case, per device and step.

    Attributes:
      hbm_bytes: arguments + temporaries.
      collective_bytes: sent over the links, loops counted as often as they run; a collective of n
        devices as a ring: payload · (n−1)/n, an all-reduce twice that.
      sent_by_kind: the same by kind of collective.
      flops: of matrix products, kernels (attention) not counted.
      compile_seconds, compile_cpu_seconds: of the compiler alone, tracing left out.
    """

    argument_bytes: int
    temporary_bytes: int
    hbm_bytes: int
    collective_bytes: float
    sent_by_kind: Mapping[str, float]
    flops: float
    lower_seconds: float
    compile_seconds: float
    compile_cpu_seconds: float
    load_average: float
    versions: Mapping[str, str]


def main(args: Sequence[str]) -> int:
    """Runs the command; 0 if every case compiled, 1 otherwise, 2 on bad input."""
    options = tyro.cli(Options, args=args, prog="tpu_compiled", description=Options.__doc__)
    known = {case.name: case for case in CASES}
    for name in options.cases:
        require(name in known, "cases", name, ", ".join(known) + did_you_mean(name, known))
    if not options.ours_only:
        python = options.maxtext_python
        require(
            python is not None and python.exists(),
            "maxtext-python",
            str(python),
            "the Python of MaxText's environment (benchmarks/maxtext.txt), or --ours-only",
        )
    options.out.mkdir(parents=True, exist_ok=True)
    console, failed = Console(stderr=True), False
    rows: dict[str, dict[Side, Figures]] = {}
    for name in options.cases:
        rows[name] = {}
        for side in _sides(known[name], options):
            with console.status(f"compiling {name}, {side}"):
                error = _compile(known[name], side, options)
            if error:
                failed = True
                console.print(f"{name}, {side}: {error}", markup=False)
            else:
                rows[name][side] = read_figures(known[name], options.out / f"{name}.{side}")
        check_same_compiler(name, rows[name])
        _write_json(rows, options.out / "table.json")
    print_table(rows, Console(width=None if sys.stdout.isatty() else 160))
    return 1 if failed else 0


def _sides(case: TpuCase, options: Options) -> tuple[Side, ...]:
    return ("ours",) if options.ours_only or not case.maxtext else ("maxtext", "ours")


def _compile(case: TpuCase, side: Side, options: Options) -> str:
    """Compiles in a process of its own; the error it ended with if it failed, else ''."""
    out = options.out / f"{case.name}.{side}"
    if options.reuse and Path(f"{out}.json").exists():
        return ""
    for stale in (Path(f"{out}.json"), Path(f"{out}.hlo.gz")):
        stale.unlink(missing_ok=True)
    flags = f"--xla_dump_to={out}.xla --xla_dump_hlo_as_text" if options.dump else ""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "XLA_FLAGS": flags,
    }
    compiler = "ours_compile.py" if side == "ours" else "maxtext_compile.py"
    python = sys.executable if side == "ours" else str(options.maxtext_python)
    what = [case.name] if side == "ours" else case.maxtext
    command = [python, str(ROOT / "benchmarks" / compiler), str(out.resolve()), *what]
    with open(f"{out}.log", "w") as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    if done.returncode == 0:
        return ""
    lines = Path(f"{out}.log").read_text(errors="replace").strip().splitlines() or ["no output"]
    error = next((line for line in reversed(lines) if "Error" in line), lines[-1])
    return f"exit {done.returncode}: {error[:400]} ({out}.log)"


def read_figures(case: TpuCase, out: Path) -> Figures:
    """Reads `out`.json and counts the program `out`.hlo.gz."""
    from train.hlo import program_costs
    from train.hlo_collectives import SLICES, group_size

    record = json.loads(Path(f"{out}.json").read_text())
    with gzip.open(f"{out}.hlo.gz", "rt") as file:
        costs = program_costs(file.read())
    require(not costs.unknown_loops, f"{out.name}.hlo.gz", costs.unknown_loops, "known trip counts")
    # Groups other than that of the slices number the devices of one.
    num_devices = parse_topology(case.topology).num_devices
    sent: Counter[str] = Counter()
    for collective, count in costs.collectives.items():
        is_between = collective.groups == SLICES
        n = case.num_slices if is_between else group_size(collective.groups, num_devices)
        sent[collective.kind] += count * collective.payload_bytes * _SENT[collective.kind](n)
    arguments, temporaries = record["argument_bytes"], record["temporary_bytes"]
    return Figures(
        argument_bytes=arguments,
        temporary_bytes=temporaries,
        hbm_bytes=arguments + temporaries,
        collective_bytes=sum(sent.values()),
        sent_by_kind=dict(sent.most_common()),
        flops=costs.flops,
        lower_seconds=record["lower_seconds"],
        compile_seconds=record["compile_seconds"],
        compile_cpu_seconds=record["compile_cpu_seconds"],
        load_average=record["load_average"],
        versions=record["versions"],
    )


def check_same_compiler(name: str, sides: Mapping[Side, Figures]) -> None:
    """Raises InputError where the two sides of a case were compiled by different compilers."""
    for package in ("libtpu", "jaxlib"):
        found = {side: figures.versions[package] for side, figures in sides.items()}
        require(
            len(set(found.values())) <= 1, f"{name}: {package}", found, "the same on both sides"
        )


def ratios(sides: Mapping[Side, Figures]) -> dict[str, float]:
    """Ours over MaxText's of the figures that have a goal; {} where a side is missing."""
    if set(sides) != {"ours", "maxtext"}:
        return {}
    ours, theirs = sides["ours"], sides["maxtext"]
    return {name: getattr(ours, name) / getattr(theirs, name) for name in _GOALS}


def print_table(rows: Mapping[str, Mapping[Side, Figures]], console: Console) -> None:
    """One line for each side, below a pair its ratios; a ratio over its goal in red."""
    table = Table(
        "case", "side", "arguments GB", "temporaries GB", "HBM GB", "matmul TFLOP",
        "collectives GB", "lower s", "compile s", "CPU s", "load",
        title="per device and step; GB = 1e9 bytes",
    )  # fmt: skip
    for name, sides in rows.items():
        for side, f in sides.items():
            table.add_row(
                name,
                side,
                f"{f.argument_bytes / 1e9:.2f}",
                f"{f.temporary_bytes / 1e9:.2f}",
                f"{f.hbm_bytes / 1e9:.2f}",
                f"{f.flops / 1e12:.1f}",
                f"{f.collective_bytes / 1e9:.2f}",
                f"{f.lower_seconds:.1f}",
                f"{f.compile_seconds:.1f}",
                f"{f.compile_cpu_seconds:.1f}",
                f"{f.load_average:.1f}",
            )
        if found := ratios(sides):
            cells = {
                key: f"[{'green' if found[key] <= goal else 'red'}]{found[key]:.2f}[/]"
                for key, goal in _GOALS.items()
            }
            table.add_row(
                "", "ratio", "", "", cells["hbm_bytes"], "", cells["collective_bytes"], "",
                cells["compile_seconds"], "", "", end_section=True,
            )  # fmt: skip
    console.print(table)


def _write_json(rows: Mapping[str, Mapping[Side, Figures]], path: Path) -> None:
    record = {
        name: {side: vars(figures) for side, figures in sides.items()} | {"ratios": ratios(sides)}
        for name, sides in rows.items()
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        print(f"tpu_compiled: {error}", file=sys.stderr)
        sys.exit(2)
