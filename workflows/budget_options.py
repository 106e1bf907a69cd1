"""The options that name a budget, the hardware, the law and the constraints."""

from dataclasses import dataclass, replace

from configs.errors import InputError, require
from planner.budget import Budget, Constraints, parse_budget, parse_count
from planner.hardware import CHIPS, DEFAULT_MFU, Hardware, parse_chips
from planner.law import Law
from planner.laws import law_named
from planner.topology import Topology, parse_topology


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """At most one budget, and what else a plan has to respect."""

    time: str | None = None
    """Training wall-clock: 90s, 5m, 1.5h, 2d."""
    hours: str | None = None
    """The same in hours: 72."""
    budget_flops: str | None = None
    """Training compute in model FLOPs: 1e18."""
    params: str | None = None
    """Total parameters: 125M, 7B."""
    tokens: str | None = None
    """Tokens to train on: 300B."""
    cost: str | None = None
    """Money, in the currency of --price."""
    price: float | None = None
    """Of one chip for one hour."""
    law: str | None = None
    """Scaling law: chinchilla-1, chinchilla-2, chinchilla-3, besiroglu, kaplan, deepseek, llama3,
    muennighoff, gadre, 20-to-1 or fitted:FILE (a law.json of `isoflop fit`). Without it
    chinchilla-1 from 6e18 FLOPs upward, 20 tokens a parameter below."""
    vocab_size: int | None = None
    """Tokenizer pieces; chosen by model size if not given."""
    seq_len: int | None = None
    """Tokens a row; chosen by model size if not given."""
    max_params: str | None = None
    """Total parameters the model may have at most."""

    @property
    def names_a_budget(self) -> bool:
        """Whether any budget was given."""
        return any(text is not None for text in self._given().values())

    def budget(self, default_time: str | None = None) -> Budget:
        """The budget given, or `default_time` if none was."""
        given = self._given()
        if default_time is not None and not self.names_a_budget:
            given["time"] = default_time
        return parse_budget(**given)

    def chosen_law(self) -> Law | None:
        """The law named, or None for the default."""
        return None if self.law is None else law_named(self.law)

    def constraints(self) -> Constraints:
        """What the plan has to respect beside its budget."""
        return Constraints(
            vocab_size=self.vocab_size,
            seq_len=self.seq_len,
            max_params=_count("max_params", self.max_params),
        )

    def priced(self, hardware: Hardware) -> Hardware:
        """The hardware at the price given."""
        if self.price is not None:
            require(0 < self.price < float("inf"), "price", self.price, "a number above 0")
        return replace(hardware, price_per_chip_hour=self.price)

    def _given(self) -> dict[str, str | None]:
        return {
            "time": self.time,
            "hours": self.hours,
            "budget_flops": self.budget_flops,
            "params": self.params,
            "tokens": self.tokens,
            "cost": self.cost,
        }


@dataclass(frozen=True, kw_only=True)
class PlanningOptions(BudgetOptions):
    """Budgets for machines that need not be here."""

    chips: str | None = None
    """Plan for these instead of this machine: CHIP:COUNT or CHIP:GRID, v5p:256, v5p:16x16x24,
    h100:8 or h100:4x8 (chips are chips: v5p:256 is sold as v5p-512)."""
    slices: int = 1
    """So many TPU slices of --chips, joined by the data-centre network."""
    mfu: float = DEFAULT_MFU
    """Share of the chips' peak that training reaches (with --chips)."""
    memory: str | None = None
    """Bytes of memory a device has, if not the chip's: 40G."""
    unique_tokens: str | None = None
    """Training tokens that exist."""
    max_epochs: float = 1.0
    """How often they may be repeated."""
    inference_tokens: str | None = None
    """Tokens to be processed after training: a smaller model, trained longer, is cheaper then."""

    def constraints(self) -> Constraints:
        """What the plan has to respect beside its budget."""
        return replace(
            super().constraints(),
            unique_tokens=_count("unique_tokens", self.unique_tokens),
            max_epochs=self.max_epochs,
            inference_tokens=_count("inference_tokens", self.inference_tokens),
        )

    def topology_of_chips(self) -> Topology | None:
        """How the chips named are joined; None without --chips."""
        if self.chips is None:
            require(self.slices == 1, "slices", self.slices, "--chips too")
            return None
        try:
            topology = parse_topology(self.chips, self.slices)
        except InputError as error:
            raise InputError(str(error).replace("topology:", "chips:", 1)) from None
        require(topology.chip is not None, "chips", self.chips, f"one of {', '.join(CHIPS)}")
        return topology

    def hardware(self) -> Hardware:
        """The chips named, or the devices that JAX shows."""
        topology = self.topology_of_chips()
        if topology is not None and topology.chip is not None:
            hardware = parse_chips(f"{topology.chip.name}:{topology.num_chips}", self.mfu)
            if topology.num_slices > 1:
                device = f"{topology.chip.name} ({topology.sold_as})"
                hardware = replace(hardware, device=device)
        elif self.mfu != DEFAULT_MFU:
            raise InputError(f"mfu: got {self.mfu}, expected --chips too; here speed is measured")
        else:
            from workflows.calibrate import describe_hardware  # loads JAX: chips do without

            hardware = describe_hardware()
        memory = _count("memory", self.memory)
        if memory is not None:
            hardware = replace(hardware, memory_bytes=memory)
        return self.priced(hardware)


def _count(field: str, text: str | None) -> float | None:
    if text is None:
        return None
    value = parse_count(field, text.removesuffix("B") if field == "memory" else text)
    require(value > 0, field, text, "a number above 0")
    return value
