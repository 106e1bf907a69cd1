"""Devices that need not be here, for a compiler: what they are, and how a mesh lies on them.

TPUs through libtpu, GPUs through the CUDA plugin, `cpu:8` through JAX's pretended devices. Nothing
is ever run on them.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from configs.errors import InputError, require
from planner.gpu_targets import GPU_TARGETS
from planner.roofline import GroupLinks
from planner.topology import Topology
from train.ahead_of_time import captured_stderr
from train.mesh import slice_of

# libtpu's names where they are not ours, and what makes v4's two cores one device, as they run.
_LIBTPU_NAMES = {"v7x": "tpu7x"}
_LIBTPU_OPTIONS: Mapping[str, Mapping[str, Any]] = {"v4": {"chip_config_name": "megacore"}}
# Not to ask a metadata server who we are; several compilations beside each other are fine.
_LIBTPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def make_topology(topology: Topology) -> list[Any]:
    """The topology's devices, for a mesh to compile for; they cannot run anything.

    Raises:
      InputError: the compiler's package is not installed, or it refuses the grid.
    """
    chip = topology.chip
    if chip is None:
        return _cpu_devices(topology)
    if chip.is_tpu:
        _require_package("libtpu", topology, "tpu")
        for name, value in _LIBTPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        grid = "x".join(map(str, topology.grid))
        options = dict(_LIBTPU_OPTIONS.get(chip.name, {}))
        if topology.num_slices > 1:
            options["num_slices"] = topology.num_slices
        name = f"{_LIBTPU_NAMES.get(chip.name, chip.name)}:{grid}"
        with _one_line(topology):
            return list(topologies.get_topology_desc(name, platform="tpu", **options).devices)
    _require_package("jax_plugins.xla_cuda12", topology, "cuda")
    hosts, gpus = topology.grid
    with _one_line(topology):
        return list(
            topologies.get_topology_desc(
                chip.name,
                platform="cuda",
                target_config=GPU_TARGETS[chip.name].text(),
                topology=f"1x{hosts}x{gpus}",  # partitions x hosts x devices
            ).devices
        )


def group_links(
    devices: np.ndarray, axis_names: Sequence[str], axes: Sequence[str], topology: Topology
) -> GroupLinks:
    """How the devices along some axes of a mesh are joined.

    Args:
      devices, axis_names: the mesh's; axes: some of its axes.

    A TPU sends over two links in every dimension of the torus that the group spans as a ring, over
    one in those where it is a line. Two devices of one chip (v7x) are counted as fast as its links.
    """
    chip = topology.chip
    assert chip is not None, "pretended devices have no links"
    index = tuple(slice(None) if name in axes else 0 for name in axis_names)
    group = list(np.asarray(devices[index], dtype=object).reshape(-1))
    if not chip.is_tpu:
        hosts = {_host_of(device) for device in group}
        return GroupLinks(
            inside=max(1, len(group) // len(hosts)),
            outside=len(hosts),
            inside_bytes_per_second=chip.link_bytes_per_second,
            link_bytes_per_second=chip.link_bytes_per_second,
            outside_bytes_per_second=chip.network_bytes_per_second,
            is_torus=False,
        )
    slices = {slice_of(device) for device in group}
    first = [device for device in group if slice_of(device) == slice_of(group[0])]
    num_links = 0
    for dim in range(len(topology.grid)):
        width = len({device.coords[dim] for device in first})
        if width > 1:
            num_links += 2 if width == topology.grid[dim] and topology.wraps(dim) else 1
    return GroupLinks(
        inside=len(first),
        outside=len(slices),
        inside_bytes_per_second=max(num_links, 1) * chip.link_bytes_per_second / chip.devices,
        link_bytes_per_second=chip.link_bytes_per_second / chip.devices,
        outside_bytes_per_second=chip.network_bytes_per_second / chip.devices,
        is_torus=True,
    )


def _host_of(device: Any) -> tuple[int, ...]:
    coords = getattr(device, "coords", None)
    return tuple(coords[:-1]) if coords else (device.process_index,)


def _cpu_devices(topology: Topology) -> list[Any]:
    devices = jax.devices("cpu")
    require(
        len(devices) >= topology.num_devices,
        "topology",
        topology.name,
        f"at most {len(devices)} pretended devices; set XLA_FLAGS="
        f"--xla_force_host_platform_device_count={topology.num_devices}",
    )
    return devices[: topology.num_devices]


def _require_package(module: str, topology: Topology, extra: str) -> None:
    package, _, _ = module.partition(".")
    if importlib.util.find_spec(package) is None or importlib.util.find_spec(module) is None:
        raise InputError(
            f"topology: got {topology.name}, expected the extra {extra} to be installed; "
            f"make setup-{extra}, then .venv-{extra}/bin/isoflop"
        )


@contextlib.contextmanager
def _one_line(topology: Topology) -> Iterator[None]:
    """What a compiler's own refusal of a topology becomes; its chatter goes nowhere."""
    try:
        with captured_stderr():
            yield
    except (RuntimeError, NotImplementedError) as error:
        text = str(error).partition("\n")[0]
        raise InputError(
            f"topology: got {topology.name}, expected one that its compiler knows: {text}"
        ) from None
