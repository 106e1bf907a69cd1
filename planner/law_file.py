"""law.json: what a fit found, with its uncertainty, as the planner reads it back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from planner.coefficients import COEFFICIENTS, Goodness, goodness
from planner.fit import ParametricFit
from planner.isoflop import IsoflopFit
from planner.law import PARAMS_MEANING, ParamsKind
from planner.runs import Runs
from planner.uncertainty import Influence, identifiability, influence, intervals

_KEPT_SAMPLES = 400  # refits that law.json carries: enough for 90% intervals


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Everything `isoflop fit` finds in runs.

    samples: bootstrap refits, float64 [S, 5]. isoflop: None where the runs are no profiles.
    """

    runs: Runs
    fit: ParametricFit
    samples: np.ndarray
    isoflop: IsoflopFit | None
    left_out: int

    @property
    def flops_per_param_token(self) -> float:
        """k of C = k·N·D, the median over the runs: above 6 where attention counts."""
        return float(np.median(self.runs.flops / (self.runs.params * self.runs.tokens)))

    @property
    def goodness(self) -> Goodness:
        return goodness(self.runs, self.fit.coefficients)

    @property
    def reasons(self) -> list[str]:
        """Why the runs do not identify the law; empty if they do."""
        return identifiability(self.runs, self.fit, self.samples)

    def influence(self) -> list[Influence]:
        """Leave-k-out refits, largest move first."""
        return influence(self.runs, self.fit, k=self.left_out)


def law_record(
    result: FitResult, *, source: str, params_kind: ParamsKind, budgets: Sequence[float]
) -> dict[str, Any]:
    """The content of law.json (docs/planner.md).

    Args:
      source: the file of the runs.
      params_kind: how the runs' N counts.
      budgets: C at which optima are written out.
    """
    runs, fit, good = result.runs, result.fit, result.goodness
    bounds = intervals(
        fit, result.samples, flops=budgets, flops_per_param_token=result.flops_per_param_token
    )
    step = max(1, math.ceil(len(result.samples) / _KEPT_SAMPLES))
    return {
        "source": source,
        "params_kind": params_kind,
        "params_meaning": PARAMS_MEANING[params_kind],
        "flops_meaning": "as in the runs",
        "flops_per_param_token": result.flops_per_param_token,
        "range": {
            f"{end}_{name}": float(getattr(getattr(runs, name), end)())
            for name in ("flops", "params", "tokens", "loss")
            for end in ("min", "max")
        },
        "runs": len(runs),
        "parametric": {
            **asdict(fit.coefficients),
            "params_exponent": fit.coefficients.params_exponent,
            "objective": fit.objective,
            "delta": fit.delta,
            "fixed_E": fit.fixed_E,
            "starts": fit.starts,
            "agreeing": fit.agreeing,
        },
        "intervals": asdict(bounds),
        "goodness": {
            "r_squared": good.r_squared,
            "rms_relative_residual": good.rms_relative_residual,
            "max_relative_residual": good.max_relative_residual,
            "max_run": good.max_run,
            "residuals": good.residuals.tolist(),
        },
        "isoflop": None if result.isoflop is None else _isoflop_record(result.isoflop),
        "influence": [
            {"left_out": list(one.left_out), "moves": dict(one.moves), "size": one.size}
            for one in result.influence()[:10]
        ],
        "reasons": result.reasons,
        "samples": [
            [float(f"{value:.8g}") for value in sample] for sample in result.samples[::step]
        ],
        "sample_columns": list(COEFFICIENTS),
    }


def _isoflop_record(isoflop: IsoflopFit) -> Mapping[str, Any]:
    record = asdict(isoflop)
    for parabola in record["parabolas"]:
        for name in ("best_params", "best_tokens", "best_loss"):
            if math.isnan(parabola[name]):  # JSON has no NaN
                parabola[name] = None
    return record
