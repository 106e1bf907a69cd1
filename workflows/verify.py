"""A plan against the compiler: the planned step compiled for the planned chips, and not run."""

import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from configs.errors import require
from planner.hardware import Hardware
from planner.layout import USABLE
from planner.on_hardware import executed_flops, known_topology, needed_bytes
from planner.promise import CompiledStep, Plan
from planner.roofline import Traffic
from planner.topology import Topology, parse_topology
from planner.traffic import planned_traffic

if TYPE_CHECKING:
    from workflows.compile_report import CompileReport

_FORCED_DEVICES = "--xla_force_host_platform_device_count"


def before_jax(topology: Topology | None) -> None:
    """Keeps JAX off this machine's accelerators where others are compiled for, and has it pretend
    as many CPU devices as `cpu:COUNT` asks for; does nothing for this machine's own (None)."""
    if topology is None:
        return
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    flags = os.environ.get("XLA_FLAGS", "")
    if topology.chip is None and _FORCED_DEVICES not in flags and "jax" not in sys.modules:
        forced = f"{_FORCED_DEVICES}={topology.num_devices}"
        os.environ["XLA_FLAGS"] = f"{flags} {forced}".strip()


def verified(
    plan: Plan, topology: Topology | None, console: Console
) -> tuple[Plan, "CompileReport"]:
    """The plan with what the compiler says of its step, and the compiler's whole report.

    Args:
      topology: what to compile for; None: the devices of this machine.
      console: where progress is shown.

    Raises:
      InputError: another number of devices than planned for; the compiler's package is missing.
    """
    config = plan.config
    topology = topology or _of_this_machine(plan.hardware)
    require(
        topology.num_devices == config.mesh.num_devices,
        "topology",
        topology.name,
        f"{config.mesh.num_devices:,} devices, those of the plan's mesh",
    )
    from workflows.compile_report import compile_report  # loads JAX

    with console.status(f"compiling for {topology}"):
        report = compile_report(config, topology)
    usable = USABLE * plan.hardware.memory_bytes
    if report.usable_bytes is not None and topology.chip is not None:
        # The chip's own share, unless --memory says that there is less.
        stated = plan.hardware.memory_bytes * topology.chip.devices / topology.chip.memory_bytes
        usable = min(stated, 1.0) * report.usable_bytes
    flops = 0.0
    if report.program is not None:
        flops = report.program.flops + report.kernel_flops
    compiled = CompiledStep(
        topology=str(topology),
        needed_bytes=report.needed_bytes,
        usable_bytes=usable,
        planned_bytes=needed_bytes(config, plan.hardware).total,
        flops=flops,
        planned_flops=executed_flops(config, topology).total / topology.num_devices,
        traffic=report.program.traffic if report.program else (),
        planned_traffic=planned_traffic(config),
        failure=report.failure,
    )
    return replace(plan, compiled=compiled), report


def print_verdict(plan: Plan, console: Console) -> None:
    """What is sent along each axis, planned and compiled, and whether the promise holds."""
    compiled = plan.compiled
    assert compiled is not None
    planned, found = _by_axes(compiled.planned_traffic), _by_axes(compiled.traffic)
    if planned or found:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("  sent along")
        for heading in ("planned", "compiled"):
            table.add_column(heading, justify="right")
        for axes in sorted({*planned, *found}, key=lambda axes: -max(planned[axes], found[axes])):
            table.add_row(
                f"  {axes}", f"{planned[axes] / 1e9:,.3f} GB", f"{found[axes] / 1e9:,.3f} GB"
            )
        console.print()
        console.print(table, highlight=False)
    needed = f"{compiled.needed_bytes / 1e9:,.2f}" if compiled.needed_bytes else "more than"
    verdict, style = ("verified: fits", "green") if compiled.fits else ("does not fit", "red")
    console.print(
        f"\n  {verdict}: {needed} of {compiled.usable_bytes / 1e9:,.2f} GB usable, "
        f"{compiled.planned_bytes / 1e9:,.2f} planned",
        style=style,
        highlight=False,
    )


def _of_this_machine(hardware: Hardware) -> Topology:
    """Chips as the compilers know them; a CPU's devices as JAX pretends them."""
    return known_topology(hardware) or parse_topology(f"cpu:{hardware.num_devices}")


def _by_axes(traffic: Iterable[Traffic]) -> Counter[str]:
    """Payload of all kinds along the same axes, an all-reduce counting twice: it is a
    reduce-scatter and an all-gather."""
    sent: Counter[str] = Counter()
    for part in traffic:
        twice = 2 if part.kind == "all-reduce" else 1
        sent["+".join(part.axes)] += round(twice * part.payload_bytes)
    return sent
