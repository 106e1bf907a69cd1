"""Collective operations of a compiled program: which, how much, and along which mesh axes.

Groups of devices come in four spellings:

    replica_groups={{0,1},{2,3}}                          lists
    replica_groups=[2,4]<=[4,2]T(1,0)                     iota: arange reshaped, transposed, cut
    replica_groups=mesh['a'=4,'b'=2] {'a'}                axes of a grid of all devices; before
                                                          the axes maybe their order in it,
                                                          `, device_ids=([2,4]T(1,0))`
    source_target_pairs={{0,1},{1,2}}                     of a collective-permute

Between slices of TPUs data goes through the hosts: a `send` that says which collective it is part
of, with groups SLICES. In such a program the other groups number the devices of one slice.

The numbers in them are places in the executable's list of devices, which for `jax.jit` over a mesh
is `mesh.devices.flat`.
"""

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.hlo_text import Array, Computation, Instruction, integers

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "collective-broadcast",
)
SLICES = "slices"
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="([A-Z_]+)"')
_SLICE_KINDS = {"ONE_TO_ONE": "collective-permute"}
_GROUPS = re.compile(
    r"(?:replica_groups|source_target_pairs)="
    r"(mesh\[[^\]]*\](?:, ?device_ids=\([^()]*(?:\([^()]*\))?[^()]*\))? ?\{[^}]*\}"
    r"|\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?"
    r"|\{(?:\{[\d,]*\},?)*\})"
)
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_ORDER = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH_AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")


@dataclass(frozen=True, kw_only=True)
class Collective:
    """One collective operation as it stands in the program.

    payload_bytes: per device; what a device sends in (all-reduce, reduce-scatter, all-to-all,
    collective-permute) or gets out (all-gather; between slices what it sends in). groups: the text
    of its groups, "" for all devices together, SLICES for one device of every slice.
    """

    kind: str
    payload_bytes: int
    groups: str


def collective_of(instruction: Instruction, computation: Computation) -> Collective | None:
    """The collective that an instruction is, or starts; None for anything else.

    A pair of start and done counts once, at its start. Several arrays that XLA combined into one
    operation are one collective.
    """
    kind, between = instruction.opcode.removesuffix("-start"), None
    if kind == "send" and (between := _BETWEEN_SLICES.search(instruction.attributes)):
        kind = _SLICE_KINDS.get(between[1], between[1].lower().replace("_", "-"))
    if kind not in KINDS:
        return None
    operands = [computation.instructions[name] for name in instruction.operands]
    sent = sum(array.bytes for operand in operands for array in operand.arrays)
    payload = sent
    if between:
        return Collective(kind=kind, payload_bytes=payload, groups=SLICES)
    if kind == "all-gather":
        arrays: Sequence[Array] = instruction.arrays
        if instruction.opcode.endswith("-start"):  # (operands, results)
            arrays = arrays[sum(len(operand.arrays) for operand in operands) :]
        payload = sum(array.bytes for array in arrays)
    found = _GROUPS.search(instruction.attributes)
    groups = found[1] if found else ""
    return Collective(kind=kind, payload_bytes=payload, groups="" if groups == "{}" else groups)


def fused_reduce_scatter(
    inner: Collective, fusion: Instruction, computation: Computation
) -> Collective:
    """What a collective inside a fusion really is.

    A TPU writes a reduce-scatter as a fusion of an all-reduce and the slice that each device
    keeps: its result is smaller than what is reduced.
    """
    given = sum(array.bytes for array in fusion.arrays)
    if inner.kind == "all-reduce" and 0 < given < inner.payload_bytes:
        return Collective(
            kind="reduce-scatter", payload_bytes=inner.payload_bytes, groups=inner.groups
        )
    return inner


@functools.lru_cache(maxsize=4096)
def device_groups(groups: str, num_devices: int) -> np.ndarray:
    """Groups of devices [groups, devices of a group], places in the list of devices.

    For a collective-permute: its pairs of source and target.

    Raises:
      ValueError: a spelling that is none of those at the head of this file.
    """
    if not groups:
        return np.arange(num_devices)[None]
    if iota := _IOTA.fullmatch(groups):
        shape, dims, order = (integers(part or "") for part in iota.groups())
        places = np.arange(math.prod(dims)).reshape(dims)
        return places.transpose(order or range(len(dims))).reshape(shape)
    if groups.startswith("mesh["):
        return _mesh_groups(groups)
    if groups.startswith("{{"):
        rows = [integers(row) for row in re.findall(r"\{([\d,]*)\}", groups)]
        longest = max(map(len, rows))
        # Rows of different lengths: the short ones repeat a device, which changes no axis.
        return np.array([row + row[-1:] * (longest - len(row)) for row in rows if row])
    raise ValueError(f"hlo_text: got groups of devices {groups!r}, expected a known spelling")


def _mesh_groups(groups: str) -> np.ndarray:
    """`mesh['a'=4,'b'=2] {'b'}`; an axis may be cut: 'a':(2)2 is the part of size 2 after 2."""
    grid, _, chosen = groups.partition("]")
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", grid)}
    order, _, chosen = chosen.rpartition("{")
    places = np.arange(math.prod(sizes.values()))
    if iota := _ORDER.search(order):
        dims, axes = integers(iota[1]), integers(iota[2] or "")
        places = places.reshape(dims).transpose(axes or range(len(dims))).reshape(-1)
    elif listed := integers(order):
        places = np.array(listed)
    parts: list[tuple[str, int, int]] = []  # axis, size, place of the part within its axis
    wanted = [
        (name, int(before or 1), int(size or sizes[name]))
        for name, before, size in _MESH_AXIS.findall(chosen)
    ]
    for name, size in sizes.items():
        cuts = sorted({1, size, *(b for n, b, _ in wanted if n == name),
                       *(b * s for n, b, s in wanted if n == name)})  # fmt: skip
        parts += [
            (name, after // before, before) for before, after in zip(cuts, cuts[1:], strict=False)
        ]
        if size == 1:
            parts.append((name, 1, 1))
    is_wanted = [
        any(n == name and b <= before < b * s for n, b, s in wanted) for name, _, before in parts
    ]
    array = places.reshape([size for _, size, _ in parts])
    kept = [i for i, inside in enumerate(is_wanted) if not inside]
    grouped = [i for i, inside in enumerate(is_wanted) if inside]
    size = math.prod(array.shape[i] for i in grouped)
    return array.transpose(kept + grouped).reshape(-1, size)


def mesh_axes_of(groups: str, axis_sizes: dict[str, int]) -> tuple[str, ...]:
    """The mesh axes along which devices of a group differ, in mesh order.

    Args:
      groups: of a `Collective`.
      axis_sizes: mesh axis -> devices along it, in mesh order.
    """
    places = device_groups(groups, math.prod(axis_sizes.values()))
    coordinates = np.unravel_index(places, tuple(axis_sizes.values()))
    return tuple(
        axis
        for axis, along in zip(axis_sizes, coordinates, strict=True)
        if (along != along[:, :1]).any()
    )


def group_size(groups: str, num_devices: int) -> int:
    """Devices of a group."""
    return device_groups(groups, num_devices).shape[1]
