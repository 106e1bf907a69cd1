"""Train steps compiled for GPUs that are not here: memory beside the plan, cuDNN's calls, traffic.

    .venv-cuda/bin/python -m benchmarks.gpu_compiled --out gpu_compiled.json
    .venv-cuda/bin/python -m benchmarks.gpu_compiled --cases 8b-8192-8xh200 --kernel blockwise

Cases are benchmarks/gpu_cases.py's; the compiler is the CUDA plugin's (`make setup-cuda`). A table
goes to stdout as Markdown. Without a GPU nothing is tuned and nothing runs: memory and collectives
count, times do not.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks.gpu_attention import cudnn_calls
from benchmarks.gpu_cases import COMPILED_CASES, CompiledCase
from configs.errors import InputError, require
from configs.model_config import Kernel
from configs.serialize import did_you_mean, write_json
from planner.memory import training_bytes
from planner.topology import parse_topology
from workflows.compile_config import axes_text


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compiles train steps for GPUs that are not here; prints a table and keeps it as JSON."""

    cases: tuple[str, ...] = tuple(case.name for case in COMPILED_CASES)
    """Names of benchmarks/gpu_cases.py; all by default."""
    kernel: Kernel = "auto"
    """Attention kernel of every case."""
    out: Path = Path("gpu_compiled.json")
    """File for the records."""


def main(args: Sequence[str]) -> int:
    """Runs the command; 0 if every case fits its GPUs, 1 otherwise."""
    options = tyro.cli(Options, args=args, prog="gpu_compiled", description=Options.__doc__)
    known = {case.name: case for case in COMPILED_CASES}
    for name in options.cases:
        require(name in known, "cases", name, ", ".join(known) + did_you_mean(name, known))
    console, records = Console(stderr=True), {}
    for name in options.cases:
        with console.status(f"compiling {name}"):
            records[name] = compiled_record(known[name], options.kernel)
        write_json(options.out, {"kernel": options.kernel, "cases": records})
    print(table(records))
    return 0 if all(record["fits"] for record in records.values()) else 1


def compiled_record(case: CompiledCase, kernel: str = "auto") -> dict[str, Any]:
    """Compiles a case: the record of `isoflop compile --json`, with `cudnn_calls`,
    `mesh_text` and `planned_bytes`.

    Args:
      kernel: attention kernel.

    Raises:
      InputError: the CUDA plugin is not installed.
    """
    config, topology = case.config(), parse_topology(case.topology)
    attention = replace(config.model.attention, kernel=kernel)
    config = replace(config, model=replace(config.model, attention=attention))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # this machine's own devices stay out of it
    from workflows.compile_report import compile_report  # loads JAX

    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.hlo"
        report = compile_report(config, topology, save_hlo=program)
        text = program.read_text() if program.exists() else ""
    return report.to_json() | {
        "cudnn_calls": cudnn_calls(text),
        "mesh_text": axes_text(config),
        "planned_bytes": training_bytes(config, platform="gpu").total,
    }


def table(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, a line a case; GB = 1e9 bytes of one GPU, collectives of one GPU and step."""
    lines = [
        "| case | mesh | rows × tokens | remat | arguments | temporaries | together | plan | fits "
        "| cuDNN fwd/bwd | collectives |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, record in records.items():
        program = record["program"]
        memory = program["memory"]
        arguments = memory["params"] + memory["optimizer"] + memory["batch"] + memory["padding"]
        calls = record["cudnn_calls"]
        lines.append(
            f"| {name} | {record['mesh_text']} | {record['batch_size']} × {record['seq_len']:,} "
            f"| {record['remat']} | {arguments / 1e9:.2f} | {memory['temporaries'] / 1e9:.2f} "
            f"| {record['needed_bytes'] / 1e9:.2f} "
            f"| {record['planned_bytes'] / 1e9:.2f} "
            f"| {'yes' if record['fits'] else 'no'} "
            f"| {calls['forward']}/{calls['backward']} | {_traffic(program['traffic'])} |"
        )
    return "\n".join(lines)


def _traffic(traffic: Sequence[Mapping[str, Any]]) -> str:
    """'all-gather 386 calls 28.97 GB, …', those under 50 MB left out; '–' without any."""
    parts = [
        f"{part['kind']} {part['calls']} calls {part['payload_bytes'] / 1e9:.2f} GB"
        for part in traffic
        if part["payload_bytes"] >= 5e7
    ]
    return ", ".join(parts) or "–"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        print(f"gpu_compiled: {error}", file=sys.stderr)
        sys.exit(2)
