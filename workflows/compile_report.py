"""What `isoflop compile` finds out, as a record and as tables."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from configs.schema import RunConfig
from planner.accounting import training_bytes
from planner.flops import training_flops_per_row
from planner.memory import TrainingBytes
from planner.on_hardware import compiler_of, executed_flops
from planner.roofline import Roofline, roofline
from planner.topology import Topology
from train.ahead_of_time import CompiledStep, CompilerOutOfMemory, compile_train_step
from train.compile_devices import group_links, make_topology
from train.compiled import CompiledProgram, analyse
from train.mesh import make_mesh
from workflows.compile_config import Advice, advice, axes_text

_VERSIONED = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin")
_USABLE = {"tpu": 0.95, "gpu": 0.92}  # of memory; GPUs leave room for CUDA's and NCCL's own
# Products over the scores in one run of a flash attention kernel (Dao 2023, arXiv 2307.08691): its
# backward pass computes them again, once, or once for queries and once for keys and values.
_FORWARD, _QUERIES, _KEYS, _BACKWARD = 2, 3, 4, 5
_MODEL_PRODUCTS = 6  # that the model's FLOPs count: 2 forward, 4 backward
ASSUMPTIONS = (
    "peak: the vendor's dense bf16 FLOP/s; every resource used to the full",
    "bytes: each instruction reads and writes main memory once (an upper bound)",
    "links: ring algorithm over all links of an axis, both ways where the torus closes",
    "network between TPU slices: 25 GB/s a host of 4 chips; between GPU hosts 50 GB/s a GPU",
    "floor: everything overlaps, memory traffic not counted; serial: nothing overlaps",
)


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """Everything about one compilation; `program` and `compile_seconds` are None where the compiler
    ran out of memory.

    model_flops: of one device in one step, the convention of MFU. kernel_flops: of attention
    kernels whose FLOPs the program does not tell, by formula. planned_flops: executed, by the
    planner. usable_bytes: of a device, None where it has no limit of its own.
    """

    config: RunConfig
    topology: Topology
    notes: list[str]
    program: CompiledProgram | None
    needed_bytes: int
    usable_bytes: float | None
    planned: TrainingBytes
    model_flops: float
    planned_flops: float
    kernel_flops: float
    roofline: Roofline | None
    trace_seconds: float
    compile_seconds: float | None
    rematerializations: tuple[str, ...]
    failure: str
    advice: list[Advice]

    @property
    def fits(self) -> bool:
        if self.program is None:
            return False
        return self.usable_bytes is None or self.needed_bytes <= self.usable_bytes

    def to_json(self) -> dict[str, Any]:
        """The record `--json` prints."""
        t = self.topology
        return {
            "schema_version": 1,
            "name": self.config.name,
            "topology": {
                "name": t.name,
                "sold_as": t.sold_as,
                "num_slices": t.num_slices,
                "num_chips": t.num_chips,
                "num_devices": t.num_devices,
            },
            "mesh": self.config.mesh.axis_sizes,
            "batch_size": self.config.training.batch_size,
            "num_microbatches": self.config.training.num_microbatches,
            "seq_len": self.config.data.seq_len,
            "remat": self.config.model.remat,
            "notes": self.notes,
            "versions": versions(),
            "trace_seconds": self.trace_seconds,
            "compile_seconds": self.compile_seconds,
            "fits": self.fits,
            "failure": self.failure or None,
            "needed_bytes": self.needed_bytes,
            "usable_bytes": self.usable_bytes,
            "program": self.program and self.program.to_json(),
            "planned_memory": asdict(self.planned),
            "model_flops": self.model_flops,
            "kernel_flops": self.kernel_flops,
            "planned_flops": self.planned_flops,
            "roofline": self.roofline
            and asdict(self.roofline) | {"axis_seconds": dict(self.roofline.axis_seconds)},
            "assumptions": list(ASSUMPTIONS),
            "rematerializations": list(self.rematerializations),
            "advice": [item.to_json() for item in self.advice],
        }


def versions() -> dict[str, str]:
    """Of what decides the program, where installed."""
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def compile_report(
    config: RunConfig,
    topology: Topology,
    *,
    notes: list[str] | None = None,
    save_hlo: Path | None = None,
) -> CompileReport:
    """Compiles the config's train step for the topology and reads the program.

    Args:
      config: its mesh has the topology's number of devices (`workflows.compile_config`).
      save_hlo: file for the program's text.

    Raises:
      InputError: the compiler's package is missing, or the mesh does not go onto the topology.
    """
    mesh = make_mesh(config.mesh, make_topology(topology))
    devices, rows = topology.num_devices, config.training.batch_size
    chip = topology.chip
    usable = None
    if chip is not None:
        share = _USABLE["tpu" if chip.is_tpu else "gpu"]
        usable = share * chip.memory_bytes / chip.devices
    model = training_flops_per_row(config.model, config.lengths)
    program, step, failure, needed = None, None, "", 0
    try:
        step = compile_train_step(config, mesh)
        program = analyse(step.compiled, mesh, step.state, step.batch)
        needed = program.memory.needed
        if save_hlo is not None:
            save_hlo.write_text(step.compiled.as_text())
    except CompilerOutOfMemory as error:
        failure, needed = str(error), error.needed_bytes
    kernel_flops = 0.0
    if program is not None and program.uncounted_kernels:
        kernel_flops = attention_kernel_flops(
            program.uncounted_kernels, model.attention_scores * rows / devices
        )
    planned_flops = executed_flops(config, topology).total / devices
    bounds = None
    if program is not None and chip is not None:
        bounds = roofline(
            flops=_certain_flops(program, planned_flops) + kernel_flops,
            memory_bytes=program.memory_bytes,
            traffic=program.traffic,
            links={
                part.axes: group_links(mesh.devices, mesh.axis_names, part.axes, topology)
                for part in program.traffic
            },
            peak_flops=chip.bf16_flops / chip.devices,
            memory_bytes_per_second=chip.memory_bytes_per_second / chip.devices,
            model_flops=model.total * rows / devices,
        )
    does_fit = program is not None and (usable is None or needed <= usable)
    return CompileReport(
        config=config,
        topology=topology,
        notes=notes or [],
        program=program,
        needed_bytes=needed,
        usable_bytes=usable,
        planned=training_bytes(config, platform=compiler_of(topology)),
        model_flops=model.total * rows / devices,
        planned_flops=planned_flops,
        kernel_flops=kernel_flops,
        roofline=bounds,
        trace_seconds=step.trace_seconds if step else 0.0,
        compile_seconds=step.compile_seconds if step else None,
        rematerializations=_rematerializations(step),
        failure=failure,
        advice=[] if does_fit else advice(config, topology),
    )


def _certain_flops(program: CompiledProgram, planned_flops: float) -> float:
    """What a device multiplies at least: of branches that may not run, what the planner expects."""
    return max(program.flops - program.optional_flops, min(program.flops, planned_flops))


def attention_kernel_flops(calls: Mapping[str, int], model_flops: float) -> float:
    """FLOPs of attention kernels that do not tell theirs, from how often which of them runs.

    Args:
      calls: kernel -> runs in one step; only flash attention's count (names with fwd, dq, dkv).
      model_flops: of the scores' products in one step of one device, masked pairs not counted.

    Returns:
      `model_flops` as often as the kernels do its products: 0.0 without such kernels.
    """
    forward, queries, keys = (
        sum(count for name, count in calls.items() if part in name)
        for part in ("fwd", "_dq", "_dkv")
    )
    backward = _KEYS if queries else _BACKWARD  # the keys' kernel may do the queries' too
    products = _FORWARD * forward + _QUERIES * queries + backward * keys
    passes = keys or forward
    return model_flops * products / (_MODEL_PRODUCTS * passes) if passes else 0.0


def _rematerializations(step: CompiledStep | None) -> tuple[str, ...]:
    return step.messages.rematerializations if step else ()


def print_report(report: CompileReport, console: Console) -> None:
    """Tables for a person."""
    _print_head(report, console)
    _print_memory(report, console)
    if report.program is not None:
        _print_work(report, console)
    if report.roofline is not None:
        _print_roofline(report.roofline, console)
    if report.program is not None and report.program.uncounted_kernels:
        calls = report.program.uncounted_kernels
        names = ", ".join(f"{name} × {count:,}" for name, count in calls.items())
        console.print(
            f"  note: kernels that do not tell their FLOPs: {names}; attention's are counted by "
            f"formula, {report.kernel_flops:.4g}",
            highlight=False,
        )
    for loop in report.program.unknown_loops if report.program else ():
        _warn(f"loop {loop} runs a number of times that is not known here: counted once", console)
    if names := report.rematerializations:
        _warn(
            f"the partitioner gathers {len(names)} arrays whole on every device "
            f"({', '.join(names[:3])}{', …' if len(names) > 3 else ''}): a sharding is missing",
            console,
        )
    if report.advice:
        _print_advice(report, console)


def _warn(text: str, console: Console) -> None:
    console.print(f"  warning: {text}", style="yellow", highlight=False)


def _print_head(report: CompileReport, console: Console) -> None:
    c, table = report.config, _table()
    table.add_row("  topology", str(report.topology))
    table.add_row("  mesh", f"{axes_text(c)}")
    table.add_row(
        "  step",
        f"{c.training.batch_size:,} rows × {c.lengths.places:,} tokens, "
        f"{c.training.num_microbatches} microbatches, remat {c.model.remat}, "
        f"{c.model.compute_dtype}",
    )
    for note in report.notes:
        table.add_row("  changed", note)
    named = ", ".join(f"{name} {version}" for name, version in versions().items())
    if report.compile_seconds is None:
        table.add_row("  compiled with", named)
    else:
        table.add_row("  compiled in", f"{report.compile_seconds:.1f} s with {named}")
    console.print(table, highlight=False)


def _print_memory(report: CompileReport, console: Console) -> None:
    console.print("\n  memory of one device", highlight=False)
    planned, table = report.planned, _table("", "compiled", "planned", "")
    if report.program is None:
        console.print(f"  {report.failure}", style="red", highlight=False)
    else:
        m = report.program.memory
        last = [("together", m.needed, planned.total, "")]
        if m.peak != m.total:
            last = [("together", m.total + m.code, None, ""), ("at once", *last[0][1:])]
        for name, size, plan, note in (
            ("parameters", m.params, planned.params, "fp32"),
            ("optimizer", m.optimizer, planned.optimizer, ""),
            ("batch", m.batch, None, ""),
            ("padding", m.padding, None, "layouts of the arguments"),
            ("outputs", m.outputs, None, "not in the place of an argument"),
            (
                "temporaries",
                m.temporaries,
                planned.total - planned.params - planned.optimizer,
                f"planned at its peak; activations {_gb(planned.activations + planned.layer)}, "
                f"gradients {_gb(planned.gradients)}, logits {_gb(planned.logits)}",
            ),
            ("program", m.code, None, ""),
            *last,
        ):
            table.add_row(f"  {name}", _gb(size), "" if plan is None else _gb(plan), note)
        console.print(table, highlight=False)
        if m.host:
            console.print(f"  and {_gb(m.host)} on the host", highlight=False)
    if report.usable_bytes is not None:
        word, style = ("fits", "green") if report.fits else ("does not fit", "red")
        needed = f"{_gb(report.needed_bytes)} of " if report.needed_bytes else ""
        console.print(
            f"  {word}: {needed}{_gb(report.usable_bytes)} usable", style=style, highlight=False
        )


def _print_work(report: CompileReport, console: Console) -> None:
    program, table = report.program, _table("", "", "", "")
    assert program is not None
    console.print("\n  work of one device and step", highlight=False)
    executed = program.flops + report.kernel_flops
    ratio = f"{executed / report.planned_flops:.2f} × the planner's {report.planned_flops:.3g}"
    table.add_row("  FLOPs executed", f"{executed:.4g}", ratio)
    if program.optional_flops:
        table.add_row("  of them in branches", f"{program.optional_flops:.4g}", "that may not run")
    share = f"{report.model_flops / executed:.0%} of executed" if executed else ""
    table.add_row("  FLOPs of the model", f"{report.model_flops:.4g}", share)
    table.add_row("  bytes accessed", f"{program.memory_bytes:.4g}", "at most")
    console.print(table, highlight=False)
    if not program.traffic:
        return
    table = _table("  collective", "along", "calls", "payload", "")
    for part in program.traffic:
        table.add_row(
            f"  {part.kind}",
            "+".join(part.axes),
            f"{part.calls:,}",
            _gb(part.payload_bytes),
        )
    console.print(table, highlight=False)


def _print_roofline(bounds: Roofline, console: Console) -> None:
    console.print("\n  least time of a step", highlight=False)
    table = _table("", "ms", "MFU", "")
    table.add_row("  matrix products at peak", _ms(bounds.compute_seconds), "", "")
    table.add_row("  memory traffic", _ms(bounds.memory_seconds), "", "at most")
    for axes, seconds in bounds.axis_seconds.items():
        table.add_row(f"  collectives along {axes}", _ms(seconds), "", "")
    for name, seconds, mfu, note in (
        ("floor", bounds.floor_seconds, bounds.mfu_bound, f"bound by {bounds.bound_by}"),
        (
            "with memory traffic",
            bounds.overlapped_seconds,
            bounds.mfu_overlapped,
            "everything overlaps",
        ),
        ("one after another", bounds.serial_seconds, bounds.mfu_serial, "nothing overlaps"),
    ):
        table.add_row(f"  {name}", _ms(seconds), f"{mfu:.1%}", note)
    console.print(table, highlight=False)


def _print_advice(report: CompileReport, console: Console) -> None:
    console.print("\n  to make it fit, by the planner's count, cheapest first", highlight=False)
    table = _table("  change", "saves", "option", "")
    for item in report.advice:
        table.add_row(f"  {item.change}", _gb(item.saved_bytes), item.options, "")
    console.print(table, highlight=False)


def _table(*headings: str) -> Table:
    table = Table(show_header=any(headings), box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        right = heading in ("compiled", "planned", "calls", "ms", "MFU", "saves", "payload")
        table.add_column(heading, justify="right" if right else "left")
    return table


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 5e7 else f"{size / 1e6:,.2f} MB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.4g}"
