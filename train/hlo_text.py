"""The text of a compiled program (optimized HLO) as computations and instructions, in one pass.

    %fusion.3 = bf16[8,128]{1,0:T(8,128)S(1)} fusion(%p, %q), kind=kOutput, calls=%fused.2, ...
    name        type_text                     opcode  operands  attributes

The dimensions in braces after a shape are its layout; `S(n)` in it says in which memory the array
lies: 0, not written, is the device's main memory, others are on the chip or on the host.
"""

import functools
import math
import re
from dataclasses import dataclass, field
from typing import NamedTuple

# A computation's first line, unlike an instruction's, ends in an open brace.
_HEADER = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s+\(.*\)\s*->.*\{\s*$")
_END = re.compile(r"\}\s*(?:$|, execution_thread)")
_BEGINNING = re.compile(r"^\s+(?:ROOT\s+)?%?[\w.\-]+ = ")
_INSTRUCTION = re.compile(
    r"^\s+(ROOT\s+)?%?([\w.\-]+) = (.*?)\s([a-z][a-z0-9\-]*)\((.*)$", re.DOTALL
)
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,<=]*)\](\{[^{}]*\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_NAME = re.compile(r"%([\w.\-]+)")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_INDEX = re.compile(r"\bindex=(\d+)")
_DIRECTION = re.compile(r"direction=([A-Z]+)")

_BITS = {"pred": 8, "token": 0, "opaque": 0, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "bf16": 16}

Shape = tuple[int, ...]


class Array(NamedTuple):
    """One array of a type: dtype as HLO spells it, dimensions, number of its memory."""

    dtype: str
    shape: Shape
    memory: int

    @property
    def bytes(self) -> int:
        return -(-_bits(self.dtype) * math.prod(self.shape) // 8)


def arrays_of(type_text: str) -> tuple[Array, ...]:
    """The arrays of a type, a tuple's in order, nested ones flattened."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(type_text):
        space = _SPACE.search(layout)
        found.append(Array(dtype, integers(dims), int(space[1]) if space else 0))
    return tuple(found)


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.search(r"\d+", dtype)  # f32, s8, f8e4m3fn, c64
    return int(digits[0]) if digits else 0


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction; `rest` is operands and attributes, from the opening parenthesis on."""

    name: str
    type_text: str
    opcode: str
    rest: str

    @functools.cached_property
    def arrays(self) -> tuple[Array, ...]:
        """What it gives."""
        return arrays_of(self.type_text)

    @property
    def shape(self) -> Shape:
        """Of what it gives; of a tuple, its first array: a library call returns (result, room)."""
        return self.arrays[0].shape if self.arrays else ()

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        """Names of its operands."""
        return tuple(_NAME.findall(self._split[0]))

    @property
    def attributes(self) -> str:
        """What follows the operands."""
        return self._split[1]

    @functools.cached_property
    def _split(self) -> tuple[str, str]:
        depth = 1
        for match in re.finditer(r"[()]", self.rest):
            depth += 1 if match[0] == "(" else -1
            if depth == 0:
                return self.rest[: match.start()], self.rest[match.end() :]
        return self.rest, ""

    def called(self, *attributes: str) -> list[str]:
        """Names of the computations that the attributes name."""
        pattern = rf"\b(?:{'|'.join(attributes)})=(\{{[^}}]*\}}|%[\w.\-]+)"
        found = re.findall(pattern, self.attributes)
        return [name for group in found for name in _NAME.findall(group)]


@dataclass(frozen=True, kw_only=True)
class Computation:
    """Instructions by name, in the order of the text; `root` is what it gives."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: list[str] = field(default_factory=list)

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Instruction -> those that read it."""
        users: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                users.setdefault(operand, []).append(instruction)
        return users

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameter number -> instruction."""
        return {
            int(i.rest.partition(")")[0]): i
            for i in self.instructions.values()
            if i.opcode == "parameter"
        }

    @property
    def result(self) -> Instruction:
        return self.instructions[self.root[0]]


@dataclass(frozen=True, kw_only=True)
class Program:
    """Computations by name, callees before their callers, and the entry's name."""

    computations: dict[str, Computation]
    entry: str

    @functools.cached_property
    def _loop_of(self) -> dict[str, tuple[Computation, Instruction]]:
        """A loop's body or condition -> where the loop stands, and the loop."""
        return {
            called: (computation, instruction)
            for computation in self.computations.values()
            for instruction in computation.instructions.values()
            if instruction.opcode == "while"
            for called in instruction.called("body", "condition")
        }

    def trip_count(self, computation: Computation, loop: Instruction) -> int | None:
        """How often a `while` runs its body; None where the text does not tell.

        What the backend wrote beside the loop, or, where it wrote nothing (TPU), read from a
        condition `i < n` (or `i != n`), the value i starts from and the constant the body adds.
        """
        if known := _TRIP_COUNT.search(loop.attributes):
            return int(known[1])
        condition = self.computations[loop.called("condition")[0]]
        body = self.computations[loop.called("body")[0]]
        compare = condition.result
        if compare.opcode != "compare" or body.result.opcode != "tuple":
            return None
        direction = _DIRECTION.search(compare.attributes)
        counter = condition.instructions[compare.operands[0]]
        index = _INDEX.search(counter.attributes)
        limit = self._constant(condition, compare.operands[1])
        if counter.opcode != "get-tuple-element" or index is None or limit is None:
            return None
        start = self._start(computation, loop, int(index[1]))
        step = self._step(body, int(index[1]))
        if start is None or not step or direction is None or direction[1] not in ("LT", "NE"):
            return None
        return max(0, -(-(limit - start) // step))

    def _start(self, computation: Computation, loop: Instruction, index: int) -> int | None:
        initial = computation.instructions[loop.operands[0]]
        if initial.opcode != "tuple":
            return None
        return self._constant(computation, initial.operands[index])

    def _step(self, body: Computation, index: int) -> int | None:
        """What a body adds to element `index` of its tuple: i + c, also by several additions."""
        added, name = 0, body.result.operands[index]
        for _ in range(64):
            instruction = body.instructions[name]
            if instruction.opcode in _SAME_VALUE:
                name = instruction.operands[0]
            elif instruction.opcode == "add":
                constants = [self._constant(body, operand) for operand in instruction.operands]
                known = [value for value in constants if value is not None]
                if len(known) != 1:
                    return None
                added += known[0]
                name = instruction.operands[1 - constants.index(known[0])]
            elif instruction.opcode == "get-tuple-element":
                found = _INDEX.search(instruction.attributes)
                own = found is not None and int(found[1]) == index
                return added if own and not self._is_constant(body, name) else None
            else:
                return None
        return None

    def _is_constant(self, computation: Computation, name: str) -> bool:
        return self._constant(computation, name) is not None

    def _constant(self, computation: Computation, name: str, depth: int = 0) -> int | None:
        """The integer an instruction always gives: through copies, and through loops that carry
        it along unchanged."""
        instruction = computation.instructions.get(name)
        if instruction is None or depth > 64:
            return None
        if instruction.opcode == "constant":
            value = re.match(r"-?\d+", instruction.rest)
            return int(value[0]) if value else None
        if instruction.opcode in _SAME_VALUE:
            return self._constant(computation, instruction.operands[0], depth + 1)
        index = _INDEX.search(instruction.attributes)
        if instruction.opcode != "get-tuple-element" or index is None:
            return None
        number, source = int(index[1]), computation.instructions[instruction.operands[0]]
        if source.opcode == "tuple":
            return self._constant(computation, source.operands[number], depth + 1)
        if source.opcode != "parameter" or computation.name not in self._loop_of:
            return None
        outer, loop = self._loop_of[computation.name]
        body = self.computations[loop.called("body")[0]]
        if not _carries_unchanged(body, number):
            return None
        initial = outer.instructions[loop.operands[0]]
        if initial.opcode != "tuple":
            return None
        return self._constant(outer, initial.operands[number], depth + 1)


# Opcodes whose result is the value of their operand, for integers that fit.
_SAME_VALUE = ("copy", "bitcast", "reshape", "convert", "copy-start", "copy-done")


def _carries_unchanged(body: Computation, number: int) -> bool:
    if body.result.opcode != "tuple":
        return False
    last = body.instructions[body.result.operands[number]]
    if last.opcode != "get-tuple-element":
        return False
    index = _INDEX.search(last.attributes)
    is_parameter = body.instructions[last.operands[0]].opcode == "parameter"
    return is_parameter and index is not None and int(index[1]) == number


def parse_hlo(hlo_text: str) -> Program:
    """Reads `compiled.as_text()`; linear in its length.

    Raises:
      ValueError: no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = None, None
    lines: list[str] = []  # of the instruction being read: attributes may go over several

    def finish() -> None:
        if current is not None and lines and (found := _INSTRUCTION.match("\n".join(lines))):
            is_root, name, type_text, opcode, rest = found.groups()
            current.instructions[name] = Instruction(
                name=name, type_text=type_text, opcode=opcode, rest=rest
            )
            if is_root:
                current.root.append(name)
        lines.clear()

    for line in hlo_text.splitlines():
        if current is None:
            if header := _HEADER.match(line):
                current = computations[header[2]] = Computation(name=header[2])
                if header[1]:
                    entry = header[2]
        elif _END.match(line):
            finish()
            current = None
        else:
            if _BEGINNING.match(line):
                finish()
            lines.append(line)
    if entry is None:
        raise ValueError(
            "hlo_text: got no ENTRY computation, expected the text of a compiled program "
            "(`jax.jit(f).lower(...).compile().as_text()`)"
        )
    return Program(computations=computations, entry=entry)


def integers(text: str) -> Shape:
    """'2,8' -> (2, 8)."""
    return tuple(int(number) for number in re.findall(r"\d+", text))
