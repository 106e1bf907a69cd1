"""Bounds on a step's time, against arithmetic done by hand."""

from dataclasses import replace

import pytest

from planner.roofline import GroupLinks, Traffic, collective_seconds, roofline

RING = GroupLinks(
    inside=4,
    outside=1,
    inside_bytes_per_second=2 * 90e9,  # both ways round
    link_bytes_per_second=90e9,
    outside_bytes_per_second=6.25e9,
    is_torus=True,
)
HOSTS = GroupLinks(
    inside=8,
    outside=2,
    inside_bytes_per_second=450e9,
    link_bytes_per_second=450e9,
    outside_bytes_per_second=50e9,
    is_torus=False,
)


@pytest.mark.parametrize(
    ("kind", "links", "seconds"),
    [
        ("all-gather", RING, 0.75 * 1e9 / 180e9),
        ("reduce-scatter", RING, 0.75 * 1e9 / 180e9),
        ("all-reduce", RING, 1.5 * 1e9 / 180e9),
        ("all-to-all", RING, 4 / 4 * 1e9 / 180e9),
        ("collective-permute", RING, 1e9 / 180e9),
        # Inside a host all of it, between hosts each GPU's eighth of it.
        ("all-gather", HOSTS, 7 / 8 * 1e9 / 450e9 + 0.5 * 1e9 / 8 / 50e9),
        ("all-reduce", HOSTS, 2 * (7 / 8 * 1e9 / 450e9 + 0.5 * 1e9 / 8 / 50e9)),
        ("all-to-all", HOSTS, 7 / 8 / 2 * 1e9 / 450e9 + 0.5 * 1e9 / 50e9),
        ("collective-permute", HOSTS, 1e9 / 50e9),
    ],
)
def test_collectives_take_what_the_ring_algorithm_takes(kind, links, seconds):
    assert collective_seconds(kind, 1e9, links) == pytest.approx(seconds)


def test_a_permutation_uses_two_links_however_many_dimensions_its_axis_spans():
    cube = replace(RING, inside=64, inside_bytes_per_second=6 * 90e9)
    assert collective_seconds("collective-permute", 1e9, cube) == 1e9 / 180e9
    assert collective_seconds("all-gather", 1e9, cube) == 63 / 64 * 1e9 / 540e9


def test_fsdp_is_bound_by_its_links_below_the_ratio_of_compute_to_bandwidth():
    """A layer of F FLOPs a byte gathered: compute hides the gather from a batch on that the ratio
    of peak to bandwidth gives (Austin et al. 2025, on data parallelism): B/X > C/W."""
    peak, width, hidden = 459e12, 8192, 28_672
    weights = 2.0 * width * hidden  # bytes in bf16

    def bound(rows: int):
        return roofline(
            flops=2.0 * rows * width * hidden,
            memory_bytes=0.0,
            traffic=[Traffic(kind="all-gather", axes=("fsdp",), calls=1, payload_bytes=weights)],
            links={("fsdp",): RING},
            peak_flops=peak,
            memory_bytes_per_second=2.765e12,
            model_flops=2.0 * rows * width * hidden,
        )

    threshold = 0.75 * peak / 180e9
    assert bound(round(0.9 * threshold)).bound_by == "collectives along fsdp"
    assert bound(round(0.9 * threshold)).mfu_bound == pytest.approx(0.9, rel=0.01)
    assert bound(round(1.1 * threshold)).bound_by == "matrix products"
    assert bound(round(1.1 * threshold)).mfu_bound == pytest.approx(1.0)


def test_the_floor_is_the_longest_and_the_serial_time_the_sum():
    times = roofline(
        flops=1e12,
        memory_bytes=3e9,
        traffic=[
            Traffic(kind="all-gather", axes=("fsdp",), calls=3, payload_bytes=24e9),
            Traffic(kind="collective-permute", axes=("fsdp",), calls=3, payload_bytes=18e9),
            Traffic(kind="all-reduce", axes=("fsdp", "data"), calls=1, payload_bytes=1e9),
        ],
        links={("fsdp",): RING, ("fsdp", "data"): RING},
        peak_flops=1e12,
        memory_bytes_per_second=1e9,
        model_flops=0.5e12,
    )
    assert dict(times.axis_seconds) == pytest.approx({"fsdp": 0.2, "fsdp+data": 1.5 / 180})
    assert (times.floor_seconds, times.overlapped_seconds) == (1.0, 3.0)
    assert times.serial_seconds == pytest.approx(1 + 3 + 0.2 + 1.5 / 180)
    assert times.mfu_bound == 0.5
    assert times.bound_by == "matrix products"
