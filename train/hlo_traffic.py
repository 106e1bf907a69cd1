"""Bytes that one instruction moves to and from a device's main memory.

An upper bound on what the hardware moves: every operand is read and every result written once per
instruction, as if no cache held anything from one to the next. A fusion is one instruction: what
it computes inside costs nothing, and of an array it only slices, or updates in place, the slice
alone counts. Arrays that the compiler keeps on the chip (a TPU's vector memory) cost nothing.
"""

from collections.abc import Mapping

from train.hlo_text import Computation, Instruction

# Names, views and control: nothing moves. A loop's or branch's own work is its computations'.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id "
    "opt-barrier while conditional call async-start async-update async-done add-dependency "
    "copy-done all-gather-done all-reduce-done reduce-scatter-done all-to-all-done "
    "collective-permute-done send-done recv-done".split()
)
_FREE_CALLS = ("AllocateBuffer", "AssumeGatherIndicesInBound", "Sharding", "SPMD")
_SLICES = ("dynamic-slice", "slice", "gather")


def memory_bytes(
    instruction: Instruction, computation: Computation, computations: Mapping[str, Computation]
) -> int:
    """Bytes read and written by one run of the instruction.

    Args:
      computation: where the instruction stands.
      computations: all of the program, for what a fusion calls.
    """
    opcode = instruction.opcode
    if opcode in _FREE or any(f'"{name}"' in instruction.attributes for name in _FREE_CALLS):
        return 0
    operands = [computation.instructions[name] for name in instruction.operands]
    if opcode == "fusion":
        fused = computations[instruction.called("calls")[0]]
        read = sum(
            min(_read(fused, fused.parameters[number].name, computations), _main(operand))
            for number, operand in enumerate(operands)
        )
        return read + _written(fused, fused.result, instruction, computations)
    if opcode in _SLICES:
        return 2 * _main(instruction) if _main(operands[0]) else _main(instruction)
    if opcode == "dynamic-update-slice":
        return _main(operands[1]) + operands[1].arrays[0].bytes
    if opcode == "scatter":
        return 3 * _main(operands[-1]) + _main(operands[1])
    if opcode == "send":
        return sum(map(_main, operands))
    if opcode.endswith("-start"):  # gives (operands, results, ...): moved once each
        return _main(instruction)
    return _main(instruction) + sum(map(_main, operands))


def _main(instruction: Instruction) -> int:
    """Bytes of what it gives that lie in main memory."""
    return sum(array.bytes for array in instruction.arrays if array.memory == 0)


def _read(fused: Computation, name: str, computations: Mapping[str, Computation]) -> int:
    """Bytes that a fusion reads of one of its values: slices where it reads nothing else."""
    whole = sum(array.bytes for array in fused.instructions[name].arrays)
    total = 0
    for user in fused.users.get(name, ()):
        number = user.operands.index(name)
        if user.opcode in _SLICES and number == 0:
            total += sum(array.bytes for array in user.arrays)
        elif user.opcode == "dynamic-update-slice" and number == 0:
            continue  # written in place
        elif user.opcode == "bitcast":
            total += _read(fused, user.name, computations)
        elif user.opcode == "fusion":
            inner = computations[user.called("calls")[0]]
            total += _read(inner, inner.parameters[number].name, computations)
        else:
            return whole
    return min(total, whole)


def _written(
    fused: Computation,
    root: Instruction,
    fusion: Instruction,
    computations: Mapping[str, Computation],
) -> int:
    """Bytes that a fusion writes: its results, or the updates alone where it updates in place."""
    if root.opcode == "tuple" and len(root.operands) == len(fusion.arrays):
        parts = [fused.instructions[name] for name in root.operands]
        sizes = [_update_bytes(fused, part, computations) for part in parts]
    else:
        sizes = [_update_bytes(fused, root, computations)]
    total = 0
    for array, size in zip(fusion.arrays, sizes, strict=False):
        if array.memory == 0:
            total += array.bytes if size is None else min(size, array.bytes)
    return total


def _update_bytes(
    fused: Computation, part: Instruction, computations: Mapping[str, Computation]
) -> int | None:
    """Bytes of the update where a result is another array updated in place; else None."""
    while part.opcode == "bitcast":
        part = fused.instructions[part.operands[0]]
    if part.opcode == "dynamic-update-slice":
        return sum(array.bytes for array in fused.instructions[part.operands[1]].arrays)
    if part.opcode == "fusion":
        inner = computations[part.called("calls")[0]]
        return _update_bytes(inner, inner.result, computations)
    return None
