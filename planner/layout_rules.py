"""Why a layout is as it is, in numbers."""

from configs.schema import RunConfig
from planner.hardware import Hardware
from planner.hyperparameters import Rule
from planner.links import group_links
from planner.on_hardware import executed_flops, needed_bytes
from planner.roofline import collective_seconds
from planner.rows import Rows
from planner.topology import Topology
from planner.traffic import StepSeconds, step_seconds


def mesh_text(config: RunConfig) -> str:
    """'data=2 fsdp=8', or 'one device'."""
    cut = [f"{name}={size}" for name, size in config.mesh.axis_sizes.items() if size > 1]
    return " ".join(cut) or "one device"


def tokens_to_hide_gathers(config: RunConfig, topology: Topology) -> float:
    """Tokens of a device and microbatch from which products take longer than moving kernels.

    P kernel scalars of 2 bytes, cut t times by `tensor`, are gathered twice and their gradients
    scattered once over links of W bytes a second: 6·(P/t)/W seconds, against 6·P·T/peak for the
    products of T tokens. So T = peak / (W·t). 0 where nothing is gathered.
    """
    chip, mesh = topology.chip, config.mesh
    assert chip is not None, "pretended devices have no peak"
    axes = [axis for axis in mesh.rules.embed if mesh.axis_sizes[axis] > 1]
    if not axes:
        return 0.0
    links = group_links(topology, mesh.axis_sizes, axes)
    seconds_per_byte = collective_seconds("all-gather", 1.0, links)
    return seconds_per_byte * chip.bf16_flops / chip.devices / mesh.tensor


def layout_rules(
    config: RunConfig, hardware: Hardware, topology: Topology, rows: Rows
) -> list[Rule]:
    """The reason of every axis, of rematerialisation and of microbatches.

    Args:
      topology: of real chips. rows: how the batch came about.
    """
    sizes, seconds = config.mesh.axis_sizes, step_seconds(config, topology)
    rules = [
        Rule(
            field="mesh",
            value=mesh_text(config),
            rule=_mesh_reason(config, hardware, topology, seconds),
        )
    ]
    between_slices = sum(
        part for axes, part in seconds.parameters_by_axes.items() if "replica" in axes.split("+")
    )

    def taking(part: float) -> str:
        return f"{1e3 * part:,.3g} ms beside products of {1e3 * seconds.products:,.4g}"

    def of(axis: str) -> str:
        return taking(seconds.by_axes.get(axis, 0.0))

    reasons = {
        "replica": "one a slice: between them only gradients go over the data-centre network, "
        f"{taking(between_slices)}",
        "expert": f"experts stay on their devices and tokens travel, {of('expert')}",
        "sequence": f"{_row_reason(rows, sizes)}; keys and values are gathered, {of('sequence')}",
        "tensor": f"{_row_reason(rows, sizes)}; activations are summed over it, {of('tensor')}",
    }
    rules += [
        Rule(field=f"mesh.{axis}", value=sizes[axis], rule=reason)
        for axis, reason in reasons.items()
        if sizes[axis] > 1
    ]
    rules += _remat_rules(config, topology)
    needed = needed_bytes(config, hardware).total
    rules += [
        Rule(
            field="training.num_microbatches",
            value=config.training.num_microbatches,
            rule=f"the fewest that fit: a step needs {_gb(needed)} of {_gb(hardware.memory_bytes)} "
            "a device",
        ),
        Rule(
            field="mfu at most",
            value=f"{seconds.mfu:.0%}",
            rule=_mfu_reason(seconds),
        ),
    ]
    return rules


def _mesh_reason(
    config: RunConfig, hardware: Hardware, topology: Topology, seconds: StepSeconds
) -> str:
    mesh, t = config.mesh, config.training
    held = needed_bytes(config, hardware)
    state = held.params + held.optimizer
    if mesh.num_devices == 1:
        return f"parameters and optimizer take {_gb(state)}"
    bound = tokens_to_hide_gathers(config, topology)
    if not bound:
        return f"parameters and optimizer, {_gb(state)}, fit on each device: replicated"
    tokens = config.batch_tokens / t.num_microbatches / mesh.num_devices
    relation = "above" if tokens >= bound else "below"
    verdict = ""
    if seconds.parameters > seconds.products:
        verdict = ": kernels are waited for"
    elif tokens < bound:
        verdict = ", and scores and recomputation make up for it"
    return (
        f"parameters and optimizer are cut to {_gb(state)} a device; {tokens:,.0f} tokens a device "
        f"and microbatch are {relation} the {bound:,.0f} whose products hide the gathering of "
        f"kernels{verdict}"
    )


def _mfu_reason(seconds: StepSeconds) -> str:
    longest = "products at peak"
    if seconds.parameters > seconds.products:
        axes = max(seconds.parameters_by_axes, key=lambda axes: seconds.parameters_by_axes[axes])
        longest = f"kernels and gradients along {axes}"
    waits = f", and {seconds.activations / seconds.total:.0%} for activations' collectives"
    return (
        f"a step takes {1e3 * seconds.total:,.4g} ms or more, by {longest}"
        f"{waits if seconds.activations else ''}; {seconds.model / seconds.products:.0%} of what "
        "is multiplied is the model's"
    )


def _row_reason(rows: Rows, sizes: dict[str, int]) -> str:
    shared = sizes["sequence"] * sizes["tensor"]
    if shared <= rows.devices_a_row:
        return rows.rule or f"{shared} devices share a row"
    return f"{shared} devices share a row, so that more of it fits, or kernels are waited for less"


def _remat_rules(config: RunConfig, topology: Topology) -> list[Rule]:
    model = config.model
    if model.remat == "none":
        return []
    flops = executed_flops(config, topology)
    without = flops.total - flops.recomputation
    rule = (
        f"activations do not fit, or only in more microbatches than cost less; repeats "
        f"{flops.recomputation / without:.0%} of the FLOPs"
    )
    text = model.remat
    rules = [Rule(field="model.remat", value=text, rule=rule)]
    if "keep" in model.remat_pattern:
        kept = model.remat_pattern.count("keep") / len(model.remat_pattern)
        rules.append(
            Rule(
                field="model.remat_pattern",
                value=" ".join(model.remat_pattern),
                rule=f"{kept:.0%} of the layers can keep everything",
            )
        )
    return rules


def _gb(size: float) -> str:
    return f"{size / 1e9:,.3g} GB"
