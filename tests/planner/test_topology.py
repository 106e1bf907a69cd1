"""Grids of chips: how they are written, what they are sold as, what is refused."""

import pytest

from configs.errors import InputError
from planner.gpu_targets import GPU_TARGETS
from planner.hardware import CHIPS
from planner.topology import parse_topology


@pytest.mark.parametrize(
    ("text", "grid", "devices", "sold_as"),
    [
        ("v5p:8x8x8", (8, 8, 8), 512, "v5p-1024"),
        ("v5p:512", (8, 8, 8), 512, "v5p-1024"),
        ("v5p:64", (4, 4, 4), 64, "v5p-128"),
        ("v5p:4", (2, 2, 1), 4, "v5p-8"),
        ("v5p:192", (4, 4, 12), 192, "v5p-384"),
        ("v5p:1024", (8, 8, 16), 1024, "v5p-2048"),
        ("v4:4x4x4", (4, 4, 4), 64, "v4-128"),
        ("v6e:256", (16, 16), 256, "v6e-256"),
        ("v5e:2x4", (2, 4), 8, "v5e-8"),
        ("v7x:4x4x4", (4, 4, 4), 128, ""),
        ("H200:8", (1, 8), 8, ""),
        ("h100:64", (8, 8), 64, ""),
        ("h100:2x8", (2, 8), 16, ""),
        ("cpu:8", (8,), 8, ""),
    ],
)
def test_a_topology_is_read(text, grid, devices, sold_as):
    topology = parse_topology(text)
    assert (topology.grid, topology.num_devices, topology.sold_as) == (grid, devices, sold_as)


def test_slices_multiply_the_chips():
    topology = parse_topology("v5e:16x16", 4)
    assert topology.num_devices == 1024
    assert str(topology) == "4 × v5e:16x16 (1,024 chips, sold as 4 × v5e-256)"


@pytest.mark.parametrize(
    ("text", "slices", "message"),
    [
        ("v5p", 1, "expected CHIP:GRID"),
        ("v5p:0x2x2", 1, "expected CHIP:GRID"),
        ("v5q:8", 1, "did you mean"),
        ("v5p:4x4", 1, "a grid of 3 dimensions"),
        ("v6e:4x4x4", 1, "a grid of 2 dimensions"),
        ("v6e:32x32", 1, "at most 16x16"),
        ("v5p:100", 1, "a multiple of 64"),
        ("v6e:512", 1, "256 chips"),
        ("h100:12", 1, "HOSTSxGPUS"),
        ("h100:2x8", 2, "slices are a TPU's"),
        ("v5p:4x4x4", 0, "1 or more"),
        ("cpu:2x4", 1, "cpu:COUNT"),
        ("v5p:64x64x64", 1, "at most 100,000 devices"),
    ],
)
def test_what_there_is_not_is_refused(text, slices, message):
    with pytest.raises(InputError, match=message):
        parse_topology(text, slices)


def test_only_slices_of_whole_cubes_and_full_planes_close_to_a_torus():
    def wraps(text: str) -> list[bool]:
        topology = parse_topology(text)
        return [topology.wraps(dim) for dim in range(len(topology.grid))]

    assert wraps("v5p:4x4x8") == [True, True, True]
    assert wraps("v5p:2x4x4") == [False, False, False]
    assert wraps("v6e:8x16") == [False, True]
    assert wraps("h100:2x8") == [False, False]


def test_every_gpu_can_be_compiled_for_within_its_own_memory():
    assert set(GPU_TARGETS) == {name for name, chip in CHIPS.items() if not chip.is_tpu}
    for name, target in GPU_TARGETS.items():
        # The driver shows a little less, or GiB of what is sold as GB; never another card's size.
        assert 0.95 <= target.memory_bytes / CHIPS[name].memory_bytes <= 1.08
        assert f"core_count: {target.multiprocessors} " in target.text()
