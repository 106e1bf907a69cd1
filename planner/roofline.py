"""The least time a step can take: by arithmetic, by memory, by the links between devices.

Times are bounds, not forecasts: peak rates of the vendor, each resource used to the full. Memory
traffic is an upper bound itself (every instruction reads and writes main memory), so its time is
too, and of the floor only arithmetic and links count for certain; both are reported.

Collectives follow the ring algorithm, with V bytes of payload over n devices whose links carry W
bytes a second each way together (Thakur, Rabenseifner and Gropp 2005, doi 10.1177/1094342005051521;
the same arithmetic as Austin et al. 2025, How to Scale Your Model, on sharded matrices):

    all-gather, reduce-scatter    V·(n−1)/n / W        all-reduce    twice that
    all-to-all                    torus: n·V/4 / W; switch: V·(n−1)/n / W
    collective-permute            V / (two links, one each way)

Groups that reach over several slices or hosts do the same in two stages: inside over the links,
between them over the network with 1/m of the payload, m devices of the group being inside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GroupLinks:
    """How the devices of a group are joined.

    Attributes:
      inside: devices of the group in one slice, or in one host of GPUs.
      outside: slices or hosts that the group reaches.
      inside_bytes_per_second: what a device can send over all links that the group may use.
      link_bytes_per_second: over one of them, in one direction; with a switch, the same.
      outside_bytes_per_second: what a device can send over the network.
      is_torus: links go to neighbours only.
    """

    inside: int
    outside: int
    inside_bytes_per_second: float
    link_bytes_per_second: float
    outside_bytes_per_second: float
    is_torus: bool


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """All collectives of one kind along the same mesh axes in one step, per device.

    payload_bytes: what a device sends in, or gets out of an all-gather, over all calls.
    """

    kind: str
    axes: tuple[str, ...]
    calls: int
    payload_bytes: float


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Seconds of one step, and what share of peak they leave for model FLOPs.

    Attributes:
      compute_seconds: executed FLOPs at peak.
      memory_seconds: bytes accessed at full bandwidth; an upper bound of what memory needs.
      axis_seconds: mesh axes joined by + -> their collectives' time.
      floor_seconds: the longest of compute and of each set of axes: everything overlapped, no
        memory traffic but what hides behind. What no step undercuts.
      overlapped_seconds: the longest of all three, as if memory traffic were what is counted.
      serial_seconds: the sum: nothing overlaps.
      mfu_bound: model FLOPs over peak FLOPs in `floor_seconds`.
      mfu_overlapped, mfu_serial: the same for the other two.
    """

    compute_seconds: float
    memory_seconds: float
    axis_seconds: Mapping[str, float]
    floor_seconds: float
    overlapped_seconds: float
    serial_seconds: float
    mfu_bound: float
    mfu_overlapped: float
    mfu_serial: float
    bound_by: str


def collective_seconds(kind: str, payload_bytes: float, links: GroupLinks) -> float:
    """Least seconds that one collective, or several with that payload together, take."""
    inside, outside = _stage_factors(kind, links)
    seconds = 0.0
    if inside:
        speed = links.inside_bytes_per_second
        if kind == "collective-permute":  # to one neighbour each; the other way is another permute
            speed = min(speed, 2 * links.link_bytes_per_second)
        seconds += inside * payload_bytes / speed
    if outside:
        seconds += outside * payload_bytes / links.outside_bytes_per_second
    return seconds


def _stage_factors(kind: str, links: GroupLinks) -> tuple[float, float]:
    """Shares of the payload that a device sends over its links and over the network."""
    m, s = links.inside, links.outside
    ring_inside, ring_outside = (m - 1) / m, (s - 1) / s
    match kind:
        case "all-gather" | "reduce-scatter" | "collective-broadcast":
            return ring_inside, ring_outside / m
        case "all-reduce":
            return 2 * ring_inside, 2 * ring_outside / m
        case "all-to-all" | "ragged-all-to-all":
            within = ring_inside
            if links.is_torus and m > 1:
                within = m / 4
            return within / s, ring_outside
        case "collective-permute":
            return (0.0, 1.0) if s > 1 else (1.0 if m > 1 else 0.0, 0.0)
    raise ValueError(f"kind: got {kind!r}, expected a collective")


def roofline(
    *,
    flops: float,
    memory_bytes: float,
    traffic: Sequence[Traffic],
    links: Mapping[tuple[str, ...], GroupLinks],
    peak_flops: float,
    memory_bytes_per_second: float,
    model_flops: float,
) -> Roofline:
    """Bounds of one step.

    Args:
      flops: executed by one device. model_flops: one device's share of the model's (the convention
        of planner.flops).
      memory_bytes: moved by one device, an upper bound.
      traffic: collectives of one device; links: how the groups along their axes are joined.
      peak_flops, memory_bytes_per_second: of one device.
    """
    compute = flops / peak_flops
    memory = memory_bytes / memory_bytes_per_second
    axis_seconds: dict[str, float] = {}
    for part in traffic:
        name = "+".join(part.axes) or "one device"
        seconds = collective_seconds(part.kind, part.payload_bytes, links[part.axes])
        axis_seconds[name] = axis_seconds.get(name, 0.0) + seconds
    network = max(axis_seconds.values(), default=0.0)
    floor = max(compute, network)
    overlapped = max(floor, memory)
    serial = compute + memory + sum(axis_seconds.values())
    ideal = model_flops / peak_flops
    bound_by = "matrix products"
    if network > compute:
        bound_by = f"collectives along {max(axis_seconds, key=lambda name: axis_seconds[name])}"
    return Roofline(
        compute_seconds=compute,
        memory_seconds=memory,
        axis_seconds=axis_seconds,
        floor_seconds=floor,
        overlapped_seconds=overlapped,
        serial_seconds=serial,
        mfu_bound=ideal / floor if floor else 0.0,
        mfu_overlapped=ideal / overlapped if overlapped else 0.0,
        mfu_serial=ideal / serial if serial else 0.0,
        bound_by=bound_by,
    )
