"""Links told from the grid alone are those that a mesh over real devices would have."""

import math

import pytest

from planner.links import group_links
from planner.topology import parse_topology

SIZES = {"replica": 1, "data": 1, "fsdp": 1, "expert": 1, "sequence": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("chips", "slices", "sizes", "axes", "inside", "outside", "links"),
    [
        # Whole cubes close to rings: two links a dimension.
        ("v5p:4x4x4", 1, {"fsdp": 64}, ["fsdp"], 64, 1, 6),
        ("v5p:4x4x4", 1, {"data": 16, "fsdp": 4}, ["fsdp"], 4, 1, 2),
        ("v5p:4x4x4", 1, {"data": 16, "fsdp": 4}, ["data"], 16, 1, 4),
        ("v5p:4x4x4", 1, {"fsdp": 32, "tensor": 2}, ["tensor"], 2, 1, 1),
        ("v5p:2x2x2", 1, {"fsdp": 8}, ["fsdp"], 8, 1, 3),  # no rings
        ("v5e:4x4", 1, {"fsdp": 16}, ["fsdp"], 16, 1, 2),
        ("v5e:16x16", 1, {"fsdp": 256}, ["fsdp"], 256, 1, 4),
        ("v5p:4x4x4", 2, {"replica": 2, "fsdp": 64}, ["replica"], 1, 2, 1),
        ("v5p:4x4x4", 2, {"replica": 2, "fsdp": 64}, ["fsdp"], 64, 1, 6),
        # A switch: the chip's own bandwidth, whatever the group.
        ("h100:2x8", 1, {"fsdp": 16}, ["fsdp"], 8, 2, 1),
        ("h100:2x8", 1, {"data": 2, "fsdp": 8}, ["data"], 1, 2, 1),
        ("h100:2x8", 1, {"data": 2, "fsdp": 8}, ["fsdp"], 8, 1, 1),
    ],
)
def test_groups_span_what_their_axes_are_laid_over(
    chips, slices, sizes, axes, inside, outside, links
):
    topology = parse_topology(chips, slices)
    found = group_links(topology, SIZES | sizes, axes)
    assert topology.chip is not None
    assert (found.inside, found.outside) == (inside, outside)
    assert found.inside_bytes_per_second == links * topology.chip.link_bytes_per_second
    assert found.is_torus == topology.chip.is_tpu


def test_every_device_stands_in_the_group_of_all_axes():
    topology = parse_topology("v7x:4x4x4", 3)
    sizes = SIZES | {"replica": 3, "data": 2, "fsdp": 16, "sequence": 2, "tensor": 2}
    assert math.prod(sizes.values()) == topology.num_devices
    everyone = group_links(topology, sizes, tuple(sizes))
    assert everyone.inside * everyone.outside == topology.num_devices
