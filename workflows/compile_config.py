"""A config on a topology: a mesh of as many devices, and what would make it need less memory."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from configs.errors import InputError
from configs.schema import RunConfig
from configs.sharding import MESH_AXES
from planner.accounting import training_bytes
from planner.on_hardware import compiler_of
from planner.topology import Topology

_OUTERMOST = MESH_AXES[0]  # its collectives may go over the slowest links
_LARGEST_TENSOR = 8


def on_topology(
    config: RunConfig, topology: Topology, *, mesh_given: bool
) -> tuple[RunConfig, list[str]]:
    """The config with a mesh of the topology's devices, and a line for everything changed.

    A mesh of that many devices stays. Otherwise, unless it was given on purpose, parameters are cut
    over as many devices of a slice as the model's widths divide by, and what is left, and the
    slices, are replicas; microbatches become fewer where they must.

    Raises:
      InputError: a mesh given on purpose has another number of devices; the batch has too few rows
        for one a device.
    """
    devices = topology.num_devices
    if config.mesh.num_devices == devices:
        sizes = config.mesh.axis_sizes
        replicas = sizes["data"] * sizes.get("replica", 1)
        if replicas % topology.num_slices == 0:
            return config, []
        return config, [
            f"nothing, but {topology.num_slices} slices do not divide the {replicas} replicas: "
            "parameters are gathered over the slow network between them"
        ]
    if mesh_given:
        axes = " × ".join(f"{name}={size}" for name, size in config.mesh.axis_sizes.items())
        raise InputError(
            f"mesh: got {axes} = {config.mesh.num_devices} devices, expected {devices}, those of "
            f"{topology}"
        )
    t = config.training
    if t.batch_size % devices:
        raise InputError(
            f"training.batch_size: got {t.batch_size}, expected a multiple of {devices}, the "
            f"devices of {topology}; --training.batch-size, or a mesh that cuts rows less"
        )
    per_slice = devices // topology.num_slices
    for fsdp in _divisors(per_slice):
        axes = dict.fromkeys(MESH_AXES, 1) | {"fsdp": fsdp, "data": per_slice // fsdp}
        axes[_OUTERMOST] *= topology.num_slices
        for microbatches in _divisors(t.num_microbatches):
            try:
                changed = replace(
                    config,
                    mesh=replace(config.mesh, **axes),
                    training=replace(t, num_microbatches=microbatches),
                )
            except InputError:  # a width or the batch does not divide
                continue
            notes = [f"mesh {axes_text(changed)}, instead of {axes_text(config)}"]
            if microbatches != t.num_microbatches:
                notes.append(f"{microbatches} microbatches, instead of {t.num_microbatches}")
            return changed, notes
    raise InputError(
        f"mesh: got {topology} for a config whose widths and batch do not divide over it, "
        "expected --mesh.… options for it"
    )


def axes_text(config: RunConfig) -> str:
    """'data=2 fsdp=8', or 'one device'."""
    cut = [f"{name}={size}" for name, size in config.mesh.axis_sizes.items() if size > 1]
    return " ".join(cut) or "one device"


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A change that lets a step need less memory.

    saved_bytes, needed_bytes: per device, by the planner's count (not the compiler's).
    """

    change: str
    options: str
    saved_bytes: int
    needed_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def advice(config: RunConfig, topology: Topology) -> list[Advice]:
    """What to change when a step does not fit: cheapest first, each by itself.

    Rematerialisation, microbatches, parameters cut over more devices, a tensor axis, more chips;
    those that the config refuses, or that the planner's count sees no saving in, are left out.
    """
    platform = compiler_of(topology)
    before = training_bytes(config, platform=platform).total
    found = []
    for change, options, make in _candidates(config, topology):
        try:
            needed = training_bytes(make, platform=platform).total
        except InputError:
            continue
        if needed < before:
            found.append(
                Advice(
                    change=change,
                    options=options,
                    saved_bytes=before - needed,
                    needed_bytes=needed,
                )
            )
    return found


def _candidates(config: RunConfig, topology: Topology) -> Iterator[tuple[str, str, RunConfig]]:
    t, mesh = config.training, config.mesh
    sizes = mesh.axis_sizes

    def changed(change: str, options: str, **fields: Any) -> Iterator[tuple[str, str, RunConfig]]:
        try:
            yield change, options, replace(config, **fields)
        except InputError:
            return

    if config.model.remat != "full":
        yield from changed(
            "recompute activations in the backward pass",
            "--model.remat full",
            model=replace(config.model, remat="full"),
        )
    for parts in _more_microbatches(config):
        yield from changed(
            f"{parts} microbatches instead of {t.num_microbatches}",
            f"--training.num-microbatches {parts}",
            training=replace(t, num_microbatches=parts),
        )
    if sizes["data"] > 1:
        fsdp = sizes["fsdp"] * sizes["data"]
        yield from changed(
            "cut parameters and optimizer over the data axis too",
            f"--mesh.data 1 --mesh.fsdp {fsdp}",
            mesh=replace(mesh, data=1, fsdp=fsdp),
        )
    if sizes["fsdp"] % 2 == 0 and sizes["tensor"] < _LARGEST_TENSOR:
        fsdp, tensor = sizes["fsdp"] // 2, 2 * sizes["tensor"]
        yield from changed(
            "cut heads, MLP and vocabulary too",
            f"--mesh.fsdp {fsdp} --mesh.tensor {tensor}",
            mesh=replace(mesh, fsdp=fsdp, tensor=tensor),
        )
    yield from changed(
        f"{2 * topology.num_chips:,} chips instead of {topology.num_chips:,}",
        f"--mesh.fsdp {2 * sizes['fsdp']} on a topology twice as large",
        mesh=replace(mesh, fsdp=2 * sizes["fsdp"]),
    )


def _more_microbatches(config: RunConfig) -> list[int]:
    """Twice as many, and as many as leave each device one row."""
    t = config.training
    rows = t.batch_size // config.mesh.rules.shards("batch", config.mesh.axis_sizes)
    more = [parts for parts in (2 * t.num_microbatches, rows) if t.num_microbatches < parts <= rows]
    return sorted(set(more))


def _divisors(number: int) -> list[int]:
    """Largest first."""
    return [n for n in range(number, 0, -1) if number % n == 0]
