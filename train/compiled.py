"""What a compiled train step needs and does, per device: memory by kind, FLOPs, collectives."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data.batches import Batch
from planner.roofline import Traffic
from train.hlo import Costs, program_costs
from train.hlo_collectives import SLICES, mesh_axes_of
from train.state import TrainState


@dataclass(frozen=True, kw_only=True)
class ProgramMemory:
    """Bytes of one device's memory while the step runs, by kind, as the compiler laid them out.

    Attributes:
      params, optimizer, batch: the arguments, by their shardings; `optimizer` with the step.
      padding: what the device's layouts (tiles) add to the arguments.
      outputs: results that do not take the place of a donated argument.
      temporaries: activations, gradients, and whatever else lives within a step.
      total: all of these: arguments + outputs − donated + temporaries.
      peak: of all of these, what the fullest moment holds. The TPU's compiler counts some arrays
        that share memory one by one into `temporaries`, and allocates this; the others say `total`.
      code: of the program itself, which lies in the same memory on TPUs.
      host: on the host's side (offloaded arrays).
    """

    params: int
    optimizer: int
    batch: int
    padding: int
    outputs: int
    temporaries: int
    total: int
    peak: int
    code: int
    host: int

    @property
    def needed(self) -> int:
        """At the fullest moment, program included."""
        return self.peak + self.code


@dataclass(frozen=True, kw_only=True)
class CompiledProgram:
    """One step of one device.

    Attributes:
      flops: of matrix products, loops counted as often as they run. optional_flops: those of them
        that stand in a conditional's branch and may not run.
      memory_bytes: moved to and from main memory; an upper bound (train/hlo_traffic.py).
      traffic: collectives by kind and mesh axes.
      uncounted_kernels: kernel -> calls, of those whose FLOPs the program does not tell.
      unknown_loops: loops counted once, since the program does not tell their trips.
      hlo_bytes: length of the program's text.
    """

    platform: str
    num_devices: int
    memory: ProgramMemory
    flops: float
    optional_flops: float
    memory_bytes: float
    traffic: tuple[Traffic, ...]
    uncounted_kernels: Mapping[str, int]
    unknown_loops: tuple[str, ...]
    hlo_bytes: int

    def to_json(self) -> dict[str, Any]:
        """A JSON-able record."""
        return asdict(self) | {
            "traffic": [asdict(part) | {"axes": list(part.axes)} for part in self.traffic],
            "uncounted_kernels": dict(self.uncounted_kernels),
            "unknown_loops": list(self.unknown_loops),
        }


def analyse(compiled: Any, mesh: Mesh, state: TrainState, batch: Batch) -> CompiledProgram:
    """Reads a compiled train step.

    Args:
      compiled: `jax.stages.Compiled` of a train step jitted over `mesh`.
      state, batch: what it was lowered with (shape, dtype and sharding of every leaf).

    Raises:
      ValueError: the backend gives no text or no memory analysis of its programs.
    """
    text = compiled.as_text()
    if text is None:
        raise ValueError("compiled: got a program without text, expected optimized HLO")
    costs, platform = program_costs(text), mesh.devices.flat[0].platform
    return CompiledProgram(
        platform=platform,
        num_devices=mesh.devices.size,
        memory=program_memory(compiled, state, batch, platform),
        flops=costs.flops,
        optional_flops=costs.optional_flops,
        memory_bytes=costs.memory_bytes,
        traffic=traffic_of(costs, dict(mesh.shape), slice_axes(mesh.devices, mesh.axis_names)),
        uncounted_kernels=dict(costs.uncounted),
        unknown_loops=costs.unknown_loops,
        hlo_bytes=len(text),
    )


def program_memory(compiled: Any, state: TrainState, batch: Batch, platform: str) -> ProgramMemory:
    """The compiler's memory analysis, its arguments told apart by the abstract state's shardings.

    Raises:
      ValueError: the backend gives no memory analysis.
    """
    stats = compiled.memory_analysis()
    if stats is None:
        raise ValueError("compiled: got a program without memory analysis")
    params, optimizer = _device_bytes(state.params), _device_bytes((state.step, state.opt_state))
    arguments = stats.argument_size_in_bytes
    # Fields of a batch that the model does not read are no arguments of the program.
    rows = min(_device_bytes(batch), max(arguments - params - optimizer, 0))
    outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
    temporaries = stats.temp_size_in_bytes
    total = arguments + outputs + temporaries
    return ProgramMemory(
        params=params,
        optimizer=optimizer,
        batch=rows,
        padding=arguments - params - optimizer - rows,
        outputs=outputs,
        temporaries=temporaries,
        total=total,
        # Others' figure leaves out part of the arguments.
        peak=stats.peak_memory_in_bytes if platform == "tpu" else total,
        code=stats.generated_code_size_in_bytes,
        host=stats.host_argument_size_in_bytes + stats.host_temp_size_in_bytes,
    )


def slice_axes(devices: np.ndarray, axis_names: Sequence[str]) -> dict[str, int]:
    """The axes of a mesh along which one goes from TPU slice to slice -> over how many."""
    found = {}
    for number, axis in enumerate(axis_names):
        line = np.moveaxis(devices, number, 0).reshape(devices.shape[number], -1)[:, 0]
        slices = {getattr(device, "slice_index", None) for device in line}
        if len(slices) > 1 and line[0].platform == "tpu":
            found[axis] = len(slices)
    return found


def traffic_of(
    costs: Costs, axis_sizes: Mapping[str, int], over_slices: Mapping[str, int] | None = None
) -> tuple[Traffic, ...]:
    """Collectives summed by kind and mesh axes, the heaviest first.

    Args:
      axis_sizes: mesh axis -> devices along it, in mesh order.
      over_slices: of `slice_axes`; None where there is one slice.
    """
    calls: Counter[tuple[str, tuple[str, ...]]] = Counter()
    payload: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for collective, count in costs.collectives.items():
        size = collective.payload_bytes
        if collective.groups == SLICES:
            key = collective.kind, tuple(over_slices or ())
            if collective.kind == "all-gather":
                size *= math.prod((over_slices or {}).values())
        else:
            key = collective.kind, mesh_axes_of(collective.groups, dict(axis_sizes))
        if not key[1]:  # groups of one device: nothing is exchanged
            continue
        calls[key] += count
        payload[key] += count * size
    return tuple(
        Traffic(kind=kind, axes=axes, calls=calls[kind, axes], payload_bytes=float(size))
        for (kind, axes), size in payload.most_common()
    )


def _device_bytes(tree: Any) -> int:
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
