"""Which devices stand where: `v5p:8x8x8`, `v5p:512`, `h100:2x8` as a grid of chips.

TPU chips stand in a torus of two (v5e, v6e) or three dimensions (v4, v5p, v7x); several slices of
them meet over the data-centre network. GPUs stand in hosts, whose switch joins them, and hosts
meet over InfiniBand. `cpu:8` are eight of JAX's pretended devices, for trying things out.
"""

import math
import re
from dataclasses import dataclass

from configs.errors import InputError, require
from configs.serialize import did_you_mean
from planner.hardware import CHIPS, Chip

CPU = "cpu"
_LARGEST_PLANE = 16  # v5e and v6e are sold up to 16x16
# Slices below a cube of 4x4x4, and planes; larger ones in three dimensions are of whole cubes.
_SMALL_GRIDS = {
    2: ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)),
    3: ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4)),
}
_CUBE = 4
_HOST_GPUS = 8
_MOST_DEVICES = 100_000


@dataclass(frozen=True, kw_only=True)
class Topology:
    """A grid of chips.

    Attributes:
      chip: None for pretended devices.
      grid: of one slice; of GPUs (hosts, GPUs of a host).
      num_slices: slices over the data-centre network; 1 for GPUs.
    """

    chip: Chip | None
    grid: tuple[int, ...]
    num_slices: int = 1

    @property
    def num_chips(self) -> int:
        """In all slices."""
        return math.prod(self.grid) * self.num_slices

    @property
    def num_devices(self) -> int:
        """What JAX shows of them."""
        return self.num_chips * (self.chip.devices if self.chip else 1)

    @property
    def name(self) -> str:
        """'v5p:8x8x8', as `parse_topology` reads it."""
        dims = "x".join(map(str, self.grid))
        return f"{self.chip.name if self.chip else CPU}:{dims}"

    @property
    def sold_as(self) -> str:
        """The vendor's name of a slice ('v5p-1024'), 'num_slices × ' before it where several; ''
        where there is none."""
        if self.chip is None or not self.chip.cores:
            return ""
        name = self.chip.slice_name(math.prod(self.grid))
        return f"{self.num_slices} × {name}" if self.num_slices > 1 else name

    def wraps(self, dim: int) -> bool:
        """Whether a dimension of a TPU slice closes to a ring: in three dimensions all of a slice
        of whole 4x4x4 cubes, else none; of planes those of 16 chips."""
        if self.chip is None or not self.chip.is_tpu:
            return False
        if self.chip.torus_dims == 2:
            return self.grid[dim] == _LARGEST_PLANE
        return all(size % _CUBE == 0 for size in self.grid)

    def __str__(self) -> str:
        slices = f"{self.num_slices} × " if self.num_slices > 1 else ""
        sold = f", sold as {self.sold_as}" if self.sold_as else ""
        return f"{slices}{self.name} ({self.num_chips:,} chips{sold})"


def parse_topology(text: str, num_slices: int = 1) -> Topology:
    """'v5p:8x8x8', 'v5p:512' (the standard grid of so many chips), 'h200:8', 'h100:2x8', 'cpu:8'.

    Args:
      num_slices: so many slices of that shape; TPUs only.

    Raises:
      InputError: unknown chip, a grid of another number of dimensions, a count without a standard
        grid, several slices of something else than a TPU.
    """
    match = re.fullmatch(r"([\w-]+):([1-9]\d{0,6}(?:x[1-9]\d{0,6})*)", text.strip())
    if match is None:
        raise InputError(
            f"topology: got {text!r}, expected CHIP:GRID such as v5p:4x4x4, v5p:64, h200:8 or "
            "h100:2x8"
        )
    name, grid = match[1].lower(), tuple(int(size) for size in match[2].split("x"))
    if name != CPU and name not in CHIPS:
        near = did_you_mean(name, CHIPS)
        raise InputError(f"topology: got {name!r}, expected one of {', '.join(CHIPS)}{near}")
    chip = CHIPS.get(name)
    require(num_slices >= 1, "slices", num_slices, "1 or more")
    require(
        num_slices == 1 or (chip is not None and chip.is_tpu),
        "slices",
        num_slices,
        f"1 for {name}: slices are a TPU's; hosts of GPUs are HOSTSxGPUS, such as h100:2x8",
    )
    if chip is not None and chip.is_tpu:
        grid = _tpu_grid(chip, grid)
    elif chip is not None:
        grid = _gpu_grid(chip, grid)
    else:
        require(len(grid) == 1, "topology", text, "cpu:COUNT")
    topology = Topology(chip=chip, grid=grid, num_slices=num_slices)
    require(
        topology.num_devices <= _MOST_DEVICES,
        "topology",
        text,
        f"at most {_MOST_DEVICES:,} devices",
    )
    return topology


def _tpu_grid(chip: Chip, grid: tuple[int, ...]) -> tuple[int, ...]:
    if len(grid) == 1:
        return standard_grid(chip, grid[0])
    require(
        len(grid) == chip.torus_dims,
        "topology",
        "x".join(map(str, grid)),
        f"a grid of {chip.torus_dims} dimensions for {chip.name}",
    )
    require(
        chip.torus_dims == 3 or max(grid) <= _LARGEST_PLANE,
        "topology",
        "x".join(map(str, grid)),
        f"at most {_LARGEST_PLANE}x{_LARGEST_PLANE} for {chip.name}",
    )
    return grid


def standard_grid(chip: Chip, count: int) -> tuple[int, ...]:
    """The grid that so many TPU chips come in: the most cubic of whole 4x4x4 cubes.

    Raises:
      InputError: there is none.
    """
    small = {math.prod(grid): grid for grid in _SMALL_GRIDS[chip.torus_dims]}
    if count in small:
        return small[count]
    if chip.torus_dims == 3 and count % _CUBE**3 == 0:
        return tuple(_CUBE * side for side in _most_cubic(count // _CUBE**3))
    sizes = ", ".join(map(str, sorted(small)))
    more = " or a multiple of 64" if chip.torus_dims == 3 else ""
    raise InputError(
        f"topology: got {chip.name}:{count}, expected {sizes}{more} chips, or a grid such as "
        f"{chip.name}:{'x'.join(['4'] * chip.torus_dims)}"
    )


def _most_cubic(volume: int) -> tuple[int, int, int]:
    sides = [
        (a, b, volume // (a * b))
        for a in range(1, round(volume ** (1 / 3)) + 1)
        if volume % a == 0
        for b in range(a, math.isqrt(volume // a) + 1)
        if volume // a % b == 0
    ]
    return min(sides, key=lambda abc: abc[2] / abc[0])


def _gpu_grid(chip: Chip, grid: tuple[int, ...]) -> tuple[int, ...]:
    if len(grid) == 1:
        if grid[0] <= _HOST_GPUS:
            return (1, grid[0])
        require(
            grid[0] % _HOST_GPUS == 0,
            "topology",
            f"{chip.name}:{grid[0]}",
            f"at most {_HOST_GPUS} GPUs, a multiple of {_HOST_GPUS}, or HOSTSxGPUS",
        )
        return (grid[0] // _HOST_GPUS, _HOST_GPUS)
    require(len(grid) == 2, "topology", "x".join(map(str, grid)), f"HOSTSxGPUS for {chip.name}")
    return grid
