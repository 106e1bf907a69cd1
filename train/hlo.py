"""FLOPs of the matrix products in a compiled program, read from its optimized HLO text.

A multiply-add is two FLOPs. Only products count: `dot` (also inside fusions, as XLA's CPU and GPU
backends wrap them), `convolution`, and library calls that carry a product's dimension numbers.
Elementwise work and reductions do not. XLA's own `cost_analysis` counts a loop's body once; here
it counts once per trip.
"""

import math
import re
from dataclasses import dataclass, field

# A computation's first line, unlike an instruction's, ends in an open brace.
_HEADER = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s+\(.*\)\s*->.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT\s+)?%?([\w.\-]+) = (.*?)\s([a-z][a-z0-9\-]*)\((.*)$")
_SHAPE = re.compile(r"[a-z][a-z0-9]*\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_GEMM_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":\[([^\]]*)\]')
_CALL_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_IS_PRODUCT = re.compile(r"matmul|gemm|dot|conv(?!ert)|dnn|attention|fmha", re.IGNORECASE)
_DIM_LABELS = re.compile(r"dim_labels=\w+_(\w+)->")

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class _Instruction:
    name: str
    shape: Shape
    opcode: str
    rest: str  # operands and attributes, from the opening parenthesis on


@dataclass
class _Computation:
    shapes: dict[str, Shape] = field(default_factory=dict)
    instructions: list[_Instruction] = field(default_factory=list)


def dot_flops(hlo_text: str) -> float:
    """FLOPs of every matrix product that one run of a compiled program executes, per device.

    2·(elements of the result)·(size of the contracted axes) for each product, followed through
    calls and fusions; a loop's body times its trip count; of a conditional the costliest branch.
    A program cut over devices is the program of one of them. A convolution counts its whole
    window, padding included. A product that XLA rewrote into multiplications and sums (one of its
    dimensions is 1) is none any more.

    Args:
      hlo_text: `compiled.as_text()` of an ahead-of-time compiled function.

    Raises:
      ValueError: no entry computation; a loop that multiplies matrices an unknown number of
        times; a library call that looks like a product but does not say its dimensions.
    """
    computations, entry = _parse(hlo_text)
    known: dict[str, float] = {}

    def flops_of(name: str) -> float:
        if name not in known:
            c = computations[name]
            known[name] = sum(instruction_flops(i, c.shapes) for i in c.instructions)
        return known[name]

    def instruction_flops(instruction: _Instruction, shapes: dict[str, Shape]) -> float:
        rest = instruction.rest
        match instruction.opcode:
            case "dot":
                return _dot_flops(instruction, shapes)
            case "convolution":
                return _convolution_flops(instruction, shapes)
            case "custom-call":
                return _library_flops(instruction, shapes)
            case "while":
                body = flops_of(_called(rest, "body")[0])
                trips = _TRIP_COUNT.search(rest)
                if body and not trips:
                    raise ValueError(
                        f"hlo_text: got loop %{instruction.name} without a known trip count, "
                        "expected known_trip_count in its backend_config; bound the loop by a "
                        "constant (lax.scan, or lax.fori_loop with Python integers)"
                    )
                return body * int(trips[1]) if trips else 0.0
            case "conditional":
                branches = _called(rest, "branch_computations", "true_computation")
                branches += _called(rest, "false_computation")
                return max(map(flops_of, branches))
            case "fusion" | "call" | "async-start":
                return sum(map(flops_of, _called(rest, "calls", "to_apply")))
        return 0.0

    return float(flops_of(entry))


def _parse(hlo_text: str) -> tuple[dict[str, _Computation], str]:
    """Every computation by its name, and the entry's name."""
    computations: dict[str, _Computation] = {}
    entry, current = None, None
    for line in hlo_text.splitlines():
        if header := _HEADER.match(line):
            current = computations[header[2]] = _Computation()
            if header[1]:
                entry = header[2]
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _INSTRUCTION.match(line)):
            name, type_text, opcode, rest = found.groups()
            # Of a tuple, its first array: a library call returns (result, workspace).
            first = _SHAPE.search(type_text)
            shape = _integers(first[1]) if first else ()
            current.shapes[name] = shape
            current.instructions.append(
                _Instruction(name=name, shape=shape, opcode=opcode, rest=rest)
            )
    if entry is None:
        raise ValueError(
            "hlo_text: got no ENTRY computation, expected the text of a compiled program "
            "(`jax.jit(f).lower(...).compile().as_text()`)"
        )
    return computations, entry


def _integers(text: str) -> Shape:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _called(rest: str, *attributes: str) -> list[str]:
    """Names of the computations that an instruction's attributes name."""
    found = re.findall(rf"\b(?:{'|'.join(attributes)})=(\{{[^}}]*\}}|%[\w.\-]+)", rest)
    return [name for group in found for name in _NAME.findall(group)]


def _product_flops(instruction: _Instruction, shapes: dict[str, Shape], contracted: Shape) -> float:
    left = shapes[_NAME.findall(instruction.rest)[0]]
    return 2.0 * math.prod(instruction.shape) * math.prod(left[axis] for axis in contracted)


def _dot_flops(instruction: _Instruction, shapes: dict[str, Shape]) -> float:
    contracted = _CONTRACTED.search(instruction.rest)
    return _product_flops(instruction, shapes, _integers(contracted[1]) if contracted else ())


def _convolution_flops(instruction: _Instruction, shapes: dict[str, Shape]) -> float:
    labels = _DIM_LABELS.search(instruction.rest)
    assert labels is not None, instruction.rest
    kernel = shapes[_NAME.findall(instruction.rest)[1]]
    return 2.0 * math.prod(instruction.shape) * math.prod(kernel) / kernel[labels[1].index("o")]


def _library_flops(instruction: _Instruction, shapes: dict[str, Shape]) -> float:
    target = _CALL_TARGET.search(instruction.rest)
    if target is None or not _IS_PRODUCT.search(target[1]):
        return 0.0
    contracted = _GEMM_CONTRACTED.search(instruction.rest)
    if contracted is None:
        raise ValueError(
            f"hlo_text: got library call {target[1]!r} (%{instruction.name}), expected one that "
            "states its dot_dimension_numbers; its FLOPs cannot be read from the text"
        )
    return _product_flops(instruction, shapes, _integers(contracted[1]))
