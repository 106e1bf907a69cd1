"""What one run of a compiled program costs a device, read from its optimized HLO text.

XLA's own `cost_analysis` counts a loop's body once; here it counts once per trip. A program cut
over devices is the program of one of them, so all figures are per device.
"""

from collections import Counter
from dataclasses import dataclass, field

from train.hlo_collectives import Collective, collective_of, fused_reduce_scatter
from train.hlo_products import UncountedKernelError, kernel_name, product_flops
from train.hlo_text import Computation, Instruction, Program, parse_hlo
from train.hlo_traffic import memory_bytes


@dataclass(kw_only=True)
class Costs:
    """Of one run on one device.

    flops: of matrix products. optional_flops: those of them that a conditional's cheapest branch
    would leave out (empty blocks of a mixture's experts, say). memory_bytes: to and from main
    memory, an upper bound. collectives: how often each runs. uncounted: calls of kernels whose
    FLOPs the text does not tell. unknown_loops: loops whose number of trips it does not tell,
    counted as one trip.
    """

    flops: float = 0.0
    optional_flops: float = 0.0
    memory_bytes: float = 0.0
    collectives: Counter[Collective] = field(default_factory=Counter)
    uncounted: Counter[str] = field(default_factory=Counter)
    unknown_loops: tuple[str, ...] = ()

    def add(self, other: "Costs", times: int = 1) -> None:
        """Adds what `other` costs so many times."""
        self.flops += times * other.flops
        self.optional_flops += times * other.optional_flops
        self.memory_bytes += times * other.memory_bytes
        for collective, count in other.collectives.items():
            self.collectives[collective] += times * count
        for kernel, count in other.uncounted.items():
            self.uncounted[kernel] += times * count
        self.unknown_loops += tuple(n for n in other.unknown_loops if n not in self.unknown_loops)


def program_costs(hlo_text: str) -> Costs:
    """FLOPs, memory traffic and collectives of one run, followed through calls, loops, fusions.

    A loop's body counts as often as it runs; of a conditional the costliest branch.

    Args:
      hlo_text: `compiled.as_text()` of an ahead-of-time compiled function.

    Raises:
      ValueError: no entry computation.
    """
    program = parse_hlo(hlo_text)
    return _Counting(program).costs_of(program.entry)


def dot_flops(hlo_text: str) -> float:
    """FLOPs of every matrix product that one run of a compiled program executes, per device.

    2·(elements of the result)·(size of the contracted axes) for each product. Only products count
    (train/hlo_products.py); elementwise work and reductions do not, nor does a product that XLA
    rewrote into multiplications and sums (one of its dimensions is 1).

    Args:
      hlo_text: `compiled.as_text()` of an ahead-of-time compiled function.

    Raises:
      ValueError: no entry computation; a loop that multiplies matrices an unknown number of
        times; a library call that looks like a product but does not say its dimensions.
    """
    program = parse_hlo(hlo_text)
    counting = _Counting(program)
    costs = counting.costs_of(program.entry)
    if counting.refusals:
        raise counting.refusals[0]
    for loop, body in counting.unknown.items():
        if counting.costs_of(body).flops:
            raise ValueError(
                f"hlo_text: got loop %{loop} without a known trip count, "
                "expected known_trip_count in its backend_config; bound the loop by a "
                "constant (lax.scan, or lax.fori_loop with Python integers)"
            )
    return costs.flops


class _Counting:
    """Costs of a program's computations, each worked out once.

    refusals: kernels that could not be counted. unknown: loop of unknown length -> its body.
    """

    def __init__(self, program: Program):
        self.program = program
        self.refusals: list[UncountedKernelError] = []
        self.unknown: dict[str, str] = {}
        self._known: dict[tuple[str, bool], Costs] = {}

    def costs_of(self, name: str, is_fused: bool = False) -> Costs:
        """Of one computation; inside a fusion nothing moves through memory."""
        if (name, is_fused) not in self._known:
            computation = self.program.computations[name]
            costs = self._known[name, is_fused] = Costs()
            shapes = _Shapes(computation)
            for instruction in computation.instructions.values():
                self._add(costs, instruction, computation, shapes, is_fused)
        return self._known[name, is_fused]

    def _add(
        self,
        costs: Costs,
        instruction: Instruction,
        computation: Computation,
        shapes: "_Shapes",
        is_fused: bool,
    ) -> None:
        try:
            costs.flops += product_flops(instruction, shapes)
        except UncountedKernelError as error:
            self.refusals.append(error)
            costs.uncounted[kernel_name(instruction)] += 1
        if not is_fused:
            costs.memory_bytes += memory_bytes(instruction, computation, self.program.computations)
        if collective := collective_of(instruction, computation):
            costs.collectives[collective] += 1
        match instruction.opcode:
            case "while":
                trips = self.program.trip_count(computation, instruction)
                body = instruction.called("body")[0]
                if trips is None:
                    self.unknown[instruction.name] = body
                    costs.unknown_loops += (instruction.name,)
                costs.add(self.costs_of(body), 1 if trips is None else trips)
            case "conditional":
                branches = instruction.called(
                    "branch_computations", "true_computation", "false_computation"
                )
                choices = [self.costs_of(branch) for branch in branches]
                chosen = max(choices, key=_weight)
                least = min(choice.flops - choice.optional_flops for choice in choices)
                costs.add(chosen)
                costs.optional_flops += chosen.flops - chosen.optional_flops - least
            case "fusion":
                inner = self.costs_of(instruction.called("calls")[0], is_fused=True)
                costs.add(self._as_fused(inner, instruction, computation))
            case "call" | "async-start":
                for name in instruction.called("calls", "to_apply"):
                    costs.add(self.costs_of(name, is_fused))

    def _as_fused(self, inner: Costs, fusion: Instruction, computation: Computation) -> Costs:
        if not inner.collectives:
            return inner
        collectives: Counter[Collective] = Counter()
        for collective, count in inner.collectives.items():
            collectives[fused_reduce_scatter(collective, fusion, computation)] += count
        return Costs(
            flops=inner.flops,
            optional_flops=inner.optional_flops,
            collectives=collectives,
            uncounted=inner.uncounted,
        )


class _Shapes(dict[str, tuple[int, ...]]):
    """Instruction -> its shape, read when asked for."""

    def __init__(self, computation: Computation):
        super().__init__()
        self._computation = computation

    def __missing__(self, name: str) -> tuple[int, ...]:
        self[name] = self._computation.instructions[name].shape
        return self[name]


def _weight(costs: Costs) -> tuple[float, float]:
    return costs.flops, costs.memory_bytes
