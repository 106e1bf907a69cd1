"""The options that name a budget, shared by `plan` and `pretrain`."""

from dataclasses import dataclass

from planner.budget import Budget, parse_budget


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """At most one of the four."""

    time: str | None = None
    """Training wall-clock on this machine: 90s, 5m, 1.5h, 2d."""
    budget_flops: str | None = None
    """Training compute in model FLOPs: 1e18."""
    params: str | None = None
    """Total parameters: 125M, 7B."""
    tokens: str | None = None
    """Tokens to train on: 300B."""

    @property
    def names_a_budget(self) -> bool:
        """Whether any of the four was given."""
        return any(self._given().values())

    def budget(self, default_time: str | None = None) -> Budget:
        """The budget given, or `default_time` if none was."""
        given = self._given()
        if default_time is not None and not self.names_a_budget:
            given["time"] = default_time
        return parse_budget(**given)

    def _given(self) -> dict[str, str | None]:
        return {
            "time": self.time,
            "budget_flops": self.budget_flops,
            "params": self.params,
            "tokens": self.tokens,
        }
