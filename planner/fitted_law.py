"""A law of the user's own, read back from the law.json that holds it, with its uncertainty."""

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from configs.errors import InputError, require
from planner.law import PARAMS_MEANING
from planner.law_forms import ParametricLaw

FITTED = "fitted:"  # before the path, on the command line


@dataclass(frozen=True, kw_only=True)
class FittedLaw(ParametricLaw):
    """A law of the user's own, from the law.json that `isoflop fit` wrote.

    Attributes:
      samples: bootstrap refits, each (E, A, B, alpha, beta); they carry the uncertainty.
      residual: RMS relative residual of the runs it was fitted on.
      reasons: why the runs do not identify the law, if they do not; then only intervals count.
    """

    samples: tuple[tuple[float, ...], ...] = ()
    residual: float = 0.0
    reasons: tuple[str, ...] = ()

    def loss_interval(
        self, params: float, tokens: float, level: float = 0.9
    ) -> tuple[float, float] | None:
        """Interval for the loss of a run: spread of the refits and scatter of single runs."""
        if not self.samples:
            return None
        low, high = _middle_part([law.loss(params, tokens) for law in self._refits()], level)
        middle = self.loss(params, tokens)
        scatter = statistics.NormalDist().inv_cdf((1 + level) / 2) * self.residual * middle
        return (
            middle - math.hypot(middle - low, scatter),
            middle + math.hypot(high - middle, scatter),
        )

    def params_interval(self, flops: float, level: float = 0.9) -> tuple[float, float] | None:
        """Interval for the optimal N at C FLOPs."""
        if not self.samples:
            return None
        return _middle_part([law.frontier(flops).params for law in self._refits()], level)

    def _refits(self) -> Iterator[ParametricLaw]:
        for E, A, B, alpha, beta in self.samples:
            yield replace(self, E=E, A=A, B=B, alpha=alpha, beta=beta, samples=())


def load_law(path: str) -> FittedLaw:
    """The law of a law.json (docs/planner.md).

    Raises:
      InputError: no such file, or not what `isoflop fit` writes.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        coefficients = record["parametric"]
        numbers = {key: float(coefficients[key]) for key in ("E", "A", "B", "alpha", "beta")}
        law = FittedLaw(
            name=f"{FITTED}{path}",
            source=str(record["source"]),
            params_kind=record["params_kind"],
            flops_meaning=str(record["flops_meaning"]),
            min_flops=float(record["range"]["min_flops"]),
            max_flops=float(record["range"]["max_flops"]),
            flops_per_param_token=float(record["flops_per_param_token"]),
            residual=float(record["goodness"]["rms_relative_residual"]),
            samples=tuple(tuple(map(float, sample)) for sample in record["samples"]),
            reasons=tuple(map(str, record["reasons"])),
            **numbers,
        )
    except FileNotFoundError:
        raise InputError(f"law: got {path}, expected a law.json that isoflop fit wrote") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"law: {path}: got {type(error).__name__} {error}, expected a law.json that isoflop "
            "fit wrote"
        ) from None
    for key in ("alpha", "beta", "A", "B", "flops_per_param_token"):
        value = getattr(law, key)
        require(math.isfinite(value) and value > 0, f"law: {path}: {key}", value, "above 0")
    require(
        law.params_kind in PARAMS_MEANING,
        f"law: {path}: params_kind",
        law.params_kind,
        f"one of {', '.join(PARAMS_MEANING)}",
    )
    return law


def _middle_part(values: list[float], level: float) -> tuple[float, float]:
    """The interval that holds the middle `level` of the values."""
    ordered, last = sorted(values), len(values) - 1
    return ordered[round((1 - level) / 2 * last)], ordered[round((1 + level) / 2 * last)]
