"""Meshes laid over devices that are not here: slices, hosts, links."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from configs.schema import MeshConfig
from planner.topology import parse_topology
from train.compile_devices import group_links, make_topology
from train.compiled import slice_axes
from train.mesh import arrange, make_mesh


def chips(grid: tuple[int, ...], num_slices: int = 1) -> list[Any]:
    """Stand-ins with what arranging looks at, in the order libtpu gives them: x fastest."""
    dims = (*grid, *[1] * (3 - len(grid)))
    found = []
    for number in range(num_slices):
        for z, y, x in np.ndindex(dims[2], dims[1], dims[0]):
            found.append(
                SimpleNamespace(
                    id=len(found),
                    platform="tpu",
                    device_kind="TPU v5",
                    coords=[x, y, z],
                    core_on_chip=0,
                    slice_index=number,
                    process_index=0,
                )
            )
    return found


def gpus(hosts: int, count: int) -> list[Any]:
    return [
        SimpleNamespace(id=i, platform="gpu", device_kind="NVIDIA H100", process_index=i // count,
                        coords=[0, i // count, i % count], slice_index=0)
        for i in range(hosts * count)
    ]  # fmt: skip


def test_the_outermost_axis_goes_over_slices():
    array = arrange((2, 8, 2), chips((4, 2, 2), num_slices=2))
    assert [{d.slice_index for d in array[i].flat} for i in (0, 1)] == [{0}, {1}]


def test_an_outer_axis_longer_than_the_slices_keeps_its_slices_together():
    array = arrange((4, 8), chips((4, 2, 2), num_slices=2))
    assert [d.slice_index for d in array[:, 0]] == [0, 0, 1, 1]
    assert all(len({d.slice_index for d in row}) == 1 for row in array)


def test_every_device_has_one_place():
    array = arrange((4, 2, 2, 2), chips((4, 4, 1), num_slices=2))
    assert sorted(d.id for d in array.flat) == list(range(32))


def test_an_axis_may_share_a_dimension_of_the_torus():
    array = arrange((2, 4, 8), chips((4, 4, 4)))  # 2 · 4 · 8 over 4 · 4 · 4
    assert sorted(d.id for d in array.flat) == list(range(64))


def test_slices_that_no_outer_axis_divides_are_refused():
    with pytest.raises(InputError, match="3 slices divide"):
        arrange((2, 6), chips((2, 2, 1), num_slices=3))


def test_a_mesh_of_another_number_of_devices_is_refused():
    with pytest.raises(InputError, match="got fsdp=8 = 8 devices, expected 16 .what the mesh is"):
        make_mesh(MeshConfig(fsdp=8), chips((4, 4)))


NAMES = ("data", "fsdp")


def grid(devices: list[Any], *sizes: int) -> np.ndarray:
    """Devices in their own order as the array of a mesh."""
    array = np.empty(len(devices), dtype=object)
    array[:] = devices
    return array.reshape(sizes)


def test_a_ring_of_whole_cubes_has_two_links_a_dimension_and_a_line_one():
    whole = group_links(
        grid(chips((4, 4, 4)), 1, 64), NAMES, ("fsdp",), parse_topology("v5p:4x4x4")
    )
    assert whole.inside_bytes_per_second == 3 * 2 * 90e9
    line = group_links(grid(chips((2, 2, 2)), 1, 8), NAMES, ("fsdp",), parse_topology("v5p:2x2x2"))
    assert line.inside_bytes_per_second == 3 * 90e9
    assert (line.inside, line.outside, line.is_torus) == (8, 1, True)


def test_a_group_over_slices_meets_over_the_network():
    topology = parse_topology("v5p:2x2x2", 2)
    devices = grid(chips((2, 2, 2), 2), 2, 8)
    across = group_links(devices, NAMES, ("data",), topology)
    assert (across.inside, across.outside, across.outside_bytes_per_second) == (1, 2, 6.25e9)
    both = group_links(devices, NAMES, ("data", "fsdp"), topology)
    assert (both.inside, both.outside) == (8, 2)
    assert slice_axes(devices, NAMES) == {"data": 2}


def test_gpus_of_a_host_share_its_switch():
    topology, devices = parse_topology("h100:2x8"), grid(gpus(2, 8), 2, 8)
    assert group_links(devices, NAMES, ("fsdp",), topology).outside == 1
    across = group_links(devices, NAMES, ("data",), topology)
    assert (across.inside, across.outside, across.outside_bytes_per_second) == (1, 2, 50e9)
    assert slice_axes(devices, NAMES) == {}


def test_pretended_devices_make_a_mesh():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4), make_topology(parse_topology("cpu:8")))
    assert mesh.devices.shape == (1, 2, 4, 1, 1, 1)
