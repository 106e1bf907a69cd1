"""isoflop compile: a config's train step compiled for machines that are not here."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from configs.errors import InputError
from configs.folders import require_writable_file
from configs.overrides import apply_overrides, load_preset_or_file, parse_command
from planner.topology import Topology, parse_topology
from workflows.compile_config import on_topology

PROG = "isoflop compile"
_WIDTH = 120  # of tables that go into a file or a pipe
_FORCED_DEVICES = "--xla_force_host_platform_device_count"


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """Compiles the train step for hardware that is not here, and says whether and how well it fits.

    Memory per device by kind, FLOPs and bytes with loops counted as often as they run, collectives
    by mesh axis, and the least time a step can take. TPUs need the extra tpu (make setup-tpu),
    GPUs the extra cuda (make setup-cuda); nothing needs an accelerator. Any field of the config
    can be overridden: --mesh.fsdp 64. Exit status 0: fits; 1: does not; 2: bad input.
    """

    target: Annotated[str, tyro.conf.Positional]
    """A preset (decoder_only/llama3_8b) or a config's .json file."""
    topology: str
    """CHIP:GRID. TPU chips: v5p:8x8x8, v6e:16x16, or their number, v5p:512. GPUs: h200:8, or
    hosts and GPUs of each, h100:2x8. cpu:8: eight pretended devices."""
    slices: int = 1
    """So many such TPU slices, joined by the data-centre network."""
    save_hlo: Path | None = None
    """Write the compiled program's text here."""
    json: bool = False
    """Print one JSON object instead of tables."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop compile`; 0 if the step fits into the devices' memory, 1 if it does not."""
    options, overrides = parse_command(
        CompileOptions, args, prog=PROG, description=CompileOptions.__doc__ or ""
    )
    topology = parse_topology(options.topology, options.slices)
    config = apply_overrides(load_preset_or_file(options.target), overrides)
    config, notes = on_topology(
        config, topology, mesh_given=any(name.startswith("--mesh.") for name in overrides)
    )
    if options.save_hlo is not None:
        require_writable_file("save-hlo", options.save_hlo)
    _before_jax(topology)
    from workflows.compile_report import compile_report, print_report  # loads JAX

    console = Console(stderr=True)
    with console.status(f"compiling for {topology}"):
        report = compile_report(config, topology, notes=notes, save_hlo=options.save_hlo)
    if options.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        print_report(report, Console(width=None if sys.stdout.isatty() else _WIDTH))
    return 0 if report.fits else 1


def _before_jax(topology: Topology) -> None:
    """Keeps JAX off this machine's own accelerators; shows it as many CPU devices as asked for.

    Raises:
      InputError: XLA_FLAGS ask for fewer.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if topology.chip is not None:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if _FORCED_DEVICES not in flags and "jax" not in sys.modules:
        forced = f"{_FORCED_DEVICES}={topology.num_devices}"
        os.environ["XLA_FLAGS"] = f"{flags} {forced}".strip()
    if os.environ["JAX_PLATFORMS"] != "cpu":
        raise InputError(
            f"topology: got {topology.name}, expected JAX_PLATFORMS=cpu "
            f"(it is {os.environ['JAX_PLATFORMS']!r})"
        )
