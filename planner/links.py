"""How the devices of a mesh's groups are joined, told from the grid of chips alone.

Inner mesh axes take neighbouring chips, outer ones what is left; slices and hosts go to the
outermost axes. It is how `train.compile_devices` lays a mesh, told without devices: where a grid
leaves a choice, JAX may lay an axis along another dimension than is assumed here.
"""

import math
from collections.abc import Collection, Mapping

from planner.roofline import GroupLinks
from planner.topology import Topology


def group_links(
    topology: Topology, axis_sizes: Mapping[str, int], axes: Collection[str]
) -> GroupLinks:
    """The links of the groups along some axes of a mesh.

    Args:
      topology: of real chips.
      axis_sizes: of the whole mesh, outermost first; their product is the topology's devices.
      axes: those along which a group's devices differ.
    """
    chip = topology.chip
    assert chip is not None, "pretended devices have no links"
    if chip.is_tpu:
        outer, grid = topology.num_slices, topology.grid
    else:
        outer, grid = topology.grid[0], topology.grid[1:]
    over_network = _outermost(axis_sizes, outer)
    within = {axis: size // over_network[axis] for axis, size in axis_sizes.items()}
    taken = _innermost(within, (chip.devices, *grid))
    spans = [math.prod(taken[axis][dim] for axis in axes) for dim in range(1 + len(grid))]
    speed = chip.link_bytes_per_second
    if chip.is_tpu:
        ends = [
            (2 if span == size and topology.wraps(dim) else 1)
            for dim, (span, size) in enumerate(zip(spans[1:], grid, strict=True))
            if span > 1
        ]
        speed *= max(sum(ends), 1)
    return GroupLinks(
        inside=math.prod(spans),
        outside=math.prod(over_network[axis] for axis in axes),
        inside_bytes_per_second=speed / chip.devices,
        link_bytes_per_second=chip.link_bytes_per_second / chip.devices,
        outside_bytes_per_second=chip.network_bytes_per_second / chip.devices,
        is_torus=chip.is_tpu,
    )


def _outermost(axis_sizes: Mapping[str, int], parts: int) -> dict[str, int]:
    """Of each axis, over how many slices or hosts it goes: the outermost axes first."""
    over, left = {}, parts
    for axis, size in axis_sizes.items():
        over[axis] = math.gcd(size, left)
        left //= over[axis]
    return over


def _innermost(axis_sizes: Mapping[str, int], dims: tuple[int, ...]) -> dict[str, list[int]]:
    """Of each axis, how much of every dimension it takes: the innermost axes choose first, and take
    whole dimensions where they can."""
    left = list(dims)
    taken = {axis: [1] * len(dims) for axis in axis_sizes}
    for axis, size in reversed(list(axis_sizes.items())):
        for whole in (True, False):
            for dim, room in enumerate(left):
                part = math.gcd(size, room)
                if part > 1 and (part == room or not whole):
                    taken[axis][dim] *= part
                    left[dim] //= part
                    size //= part
    return taken
