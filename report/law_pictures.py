"""What a fitted law rests on, as three standalone SVG files: profiles, frontier, residuals.

They carry their own style and paint their own background, so they read the same in a browser and
as an <img> of a Markdown page, on a light site or a dark one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from configs.serialize import write_text
from planner.isoflop import IsoflopFit, Parabola
from planner.law_file import FitResult
from planner.laws import TWENTY_TO_ONE
from planner.uncertainty import intervals
from report import formatting, panels
from report.panels import INK, MUTED, WIDTH, Key, Panel, Points
from report.ticks import Scale, enclosing_ticks, tick_labels

LEVEL = 0.9  # share of the refits inside the band of the frontier

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, WIDTH - 182, 96, 418  # of the panel beside a legend
_HALVES = ((_LEFT, 388), (468, WIDTH - 20))  # of the frontier's two panels
_RAMP = ("#7ad151", "#22a884", "#2a788e", "#414487", "#440154")  # viridis without its yellow
_LAW, _PROFILES = "#2463c4", "#b8560b"
_MOST_KEYS = 12
_SAME_BUDGET = 1.1  # C of runs that share a colour, as planner.isoflop groups them


@dataclass(frozen=True, kw_only=True)
class _Budget:
    """Runs of about equal C, and their colour."""

    flops: float
    runs: Sequence[int]
    color: str


def write_pictures(result: FitResult, folder: Path, *, params_meaning: str) -> list[Path]:
    """Writes isoflop.svg, frontier.svg and residuals.svg, each whole or not at all.

    Without IsoFLOP profiles there is no isoflop.svg; an older one is removed, for it would show
    other runs than the law.json beside it.

    Args:
      folder: where to; it must exist.
      params_meaning: what N counts, for the axes.

    Returns:
      The files written.
    """
    pictures = {
        "frontier.svg": frontier_picture(result, params_meaning=params_meaning),
        "residuals.svg": residuals_picture(result, params_meaning=params_meaning),
    }
    if result.isoflop is None:
        (folder / "isoflop.svg").unlink(missing_ok=True)
    else:
        profiles = isoflop_picture(result, result.isoflop, params_meaning=params_meaning)
        pictures = {"isoflop.svg": profiles, **pictures}
    for name, picture in pictures.items():
        write_text(folder / name, picture)
    return [folder / name for name in pictures]


def isoflop_picture(result: FitResult, isoflop: IsoflopFit, *, params_meaning: str) -> str:
    """Loss against N at each budget: runs, parabolas, minima and the power law through them."""
    runs, parabolas = result.runs, isoflop.parabolas
    colors = _colors(len(parabolas))
    curves = [_curve(parabola, runs.params) for parabola in parabolas]
    accepted = [parabola for parabola in parabolas if parabola.accepted]
    minima = [(parabola.best_params, parabola.best_loss) for parabola in accepted]
    power_law = [_on_power_law(isoflop, parabola) for parabola in accepted]
    losses = [*runs.loss, *(y for points in (*curves, minima) for _, y in points)]
    y_ticks = enclosing_ticks(*_ends(losses), target=7)
    panel = _panel(runs.params, y_ticks)
    drawn = []
    for parabola, curve, color in zip(parabolas, curves, colors, strict=True):
        dots = [(runs.params[run], runs.loss[run]) for run in parabola.runs]
        drawn.append(panels.line(panel, curve, color, "line"))
        drawn.append(panels.marks(panel, dots, color, "dot" if parabola.accepted else "hollow"))
    drawn.append(panels.line(panel, power_law, INK, "dashed"))
    drawn.append(panels.marks(panel, minima, INK, "diamond"))
    keys = _budget_keys([p.flops for p in parabolas], colors, "curve")
    keys += [Key("gap"), Key("diamond", INK, "minimum"), Key("dashed", INK, "their power law")]
    if len(accepted) < len(parabolas):
        keys.append(Key("hollow", MUTED, "no minimum: left out"))
    law = _power(isoflop.exponent_params, isoflop.interval_params, isoflop.level)
    return panels.figure(
        "IsoFLOP profiles",
        f"{law} through the minima, {len(accepted)} of {len(parabolas)} budgets used",
        [
            panels.y_axis(panel, y_ticks, tick_labels(y_ticks, each=False), "loss, nats per token"),
            panels.log_x_axis(panel, f"N, {params_meaning}"),
            *drawn,
            _legend(keys),
        ],
    )


def frontier_picture(result: FitResult, *, params_meaning: str) -> str:
    """Compute-optimal N and D against C, to ten times the largest swept budget."""
    low, high = _ends(result.runs.flops)
    flops = np.geomspace(low, 10 * high, 41)
    (bands, interval), minima = _bands(result, flops), _minima(result)
    fitted = result.fit.coefficients.frontier(flops, result.flops_per_param_token)
    twenty = 10**TWENTY_TO_ONE.params_intercept * flops**TWENTY_TO_ONE.params_exponent
    twenty = twenty, 20 * twenty
    through = _through_minima(result, flops)
    body = []
    for i, name in enumerate(("parameters N", "tokens D")):
        lines = [_pairs(flops, both[i]) for both in (twenty, through, fitted)]
        values = [y for points in (*lines, minima[i]) for _, y in points]
        least, most = _ends(values)
        # A band that the runs leave wide open must not squeeze everything else.
        values += [min(max(y, least / 10), most * 10) for edge in bands[i] for _, y in edge]
        panel = Panel(
            panels.log_scale(flops, *_HALVES[i]), panels.log_scale(values, _BOTTOM, _TOP + 20)
        )
        drawn = [panels.band(panel, *bands[i], _LAW)]
        drawn.append(panels.line(panel, lines[0], MUTED, "faint"))
        drawn.append(panels.line(panel, lines[1], _PROFILES, "dashed"))
        drawn.append(panels.line(panel, lines[2], _LAW, "line"))
        drawn.append(panels.marks(panel, minima[i], _PROFILES, "dot"))
        body += [
            panels.beyond(panel, high),
            panels.log_y_axis(panel, f"optimal {name}*"),
            panels.log_x_axis(panel, "C, training FLOPs", powers=True),
            panels.clipped(panel, f"panel-{i}", drawn),
            panels.corner_note(panel, ("beyond the largest", "swept budget")),
        ]
    keys = [Key("line", _LAW, "fitted law")]
    keys += [Key("band", _LAW, f"{LEVEL:.0%} interval")] if interval else []
    if minima[0]:
        keys.append(Key("dot", _PROFILES, "IsoFLOP minima"))
        keys.append(Key("dashed", _PROFILES, "their power law"))
    keys.append(Key("faint", MUTED, "20 tokens per parameter"))
    exponent = _power(result.fit.coefficients.params_exponent, interval, LEVEL)
    return panels.figure(
        "Compute-optimal frontier",
        f"{exponent}; N counts {params_meaning}",
        [panels.legend_row(20, 78, keys), *body],
    )


def residuals_picture(result: FitResult, *, params_meaning: str) -> str:
    """How far each run lies from the law, in percent, against N."""
    runs, good = result.runs, result.goodness
    percent, rms = 100 * good.residuals, 100 * good.rms_relative_residual
    low, high = _ends([*percent, -rms, rms, 0.0])
    y_ticks = enclosing_ticks(min(low, -0.01), max(high, 0.01), target=7)
    panel = _panel(runs.params, y_ticks)
    budgets = _budgets(runs.flops)
    dots = [sorted((runs.params[run], percent[run]) for run in one.runs) for one in budgets]
    ends = panel.x.low, panel.x.high
    lower, upper = ([(x, y) for x in ends] for y in (-rms, rms))
    drawn = [panels.band(panel, lower, upper, MUTED)]
    drawn.append(panels.horizontal(panel, 0.0))
    for budget, points in zip(budgets, dots, strict=True):
        drawn.append(panels.line(panel, points, budget.color, "thin"))
    for budget, points in zip(budgets, dots, strict=True):
        drawn.append(panels.marks(panel, points, budget.color, "dot"))
    worst = (runs.params[good.max_run], percent[good.max_run])
    everything = [point for points in dots for point in points]
    drawn.append(panels.label_beside(panel, worst, f"run {good.max_run}", everything))
    keys = _budget_keys([one.flops for one in budgets], [one.color for one in budgets], "dot")
    keys += [Key("gap"), Key("band", MUTED, "± RMS")]
    labels = [f"{label}%" for label in tick_labels(y_ticks, each=False)]
    labels = [f"+{label}" if y > 0 else label for y, label in zip(y_ticks, labels, strict=True)]
    return panels.figure(
        "Residuals of the fitted law",
        f"{formatting.percent(good.rms_relative_residual, 2)} RMS, "
        f"{formatting.percent(good.max_relative_residual, 2)} at most (run {good.max_run}), "
        f"{len(runs)} runs",
        [
            panels.y_axis(panel, y_ticks, labels, "residual, (measured − fitted) / fitted"),
            panels.log_x_axis(panel, f"N, {params_meaning}"),
            *drawn,
            _legend(keys),
        ],
    )


def _panel(params: Iterable[float], y_ticks: Sequence[float]) -> Panel:
    y = Scale(y_ticks[0], y_ticks[-1], _BOTTOM, _TOP)
    return Panel(panels.log_scale(params, _LEFT, _RIGHT), y)


def _legend(keys: Sequence[Key]) -> str:
    return panels.legend_column(_RIGHT + 24, _TOP + 4, "C, training FLOPs", keys)


def _curve(parabola: Parabola, params: np.ndarray) -> Points:
    """The parabola over its swept sizes; empty where it was rejected."""
    if not parabola.accepted:
        return []
    swept = params[list(parabola.runs)]
    sizes = np.geomspace(swept.min(), swept.max(), 49)
    return _pairs(sizes, parabola.loss(sizes))


def _on_power_law(isoflop: IsoflopFit, parabola: Parabola) -> tuple[float, float]:
    """Where the power law puts a budget's minimum: N, and the parabola's loss there."""
    params = float(isoflop.frontier(parabola.flops)[0])
    return params, float(parabola.loss(params))


def _minima(result: FitResult) -> tuple[Points, Points]:
    """(C, N*) and (C, D*) of the IsoFLOP profiles.

    D* is with the k of the runs' C = k·N·D, as the fitted law's is: one C, one D for an N.
    """
    parabolas = [] if result.isoflop is None else result.isoflop.parabolas
    used = [parabola for parabola in parabolas if parabola.accepted]
    params = [(parabola.flops, parabola.best_params) for parabola in used]
    return params, [(c, c / (result.flops_per_param_token * n)) for c, n in params]


def _through_minima(result: FitResult, flops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N and D of the power law through the minima; empty where there are no profiles."""
    if result.isoflop is None:
        return np.empty(0), np.empty(0)
    params = result.isoflop.frontier(flops)[0]
    return params, flops / (result.flops_per_param_token * params)


def _bands(
    result: FitResult, flops: np.ndarray
) -> tuple[Sequence[tuple[Points, Points]], tuple[float, float] | None]:
    """Bands of N and D, each (lower line, upper line), and the interval of a of N ∝ C^a.

    Without a usable refit the bands are empty and the interval is None.
    """
    samples = result.samples
    samples = samples[np.isfinite(samples).all(axis=1) & (samples[:, 1:] > 0).all(axis=1)]
    if not len(samples):
        return [([], []), ([], [])], None
    found = intervals(
        result.fit,
        samples,
        flops=flops.tolist(),
        flops_per_param_token=result.flops_per_param_token,
        level=LEVEL,
    )
    columns = [one.params for one in found.optima], [one.tokens for one in found.optima]
    bands = [
        (_pairs(flops, (one.low for one in column)), _pairs(flops, (one.high for one in column)))
        for column in columns
    ]
    return bands, (found.params_exponent.low, found.params_exponent.high)


def _budgets(flops: np.ndarray) -> list[_Budget]:
    """The runs by budget, in order of C."""
    groups: list[list[int]] = []
    for run in np.argsort(flops, kind="stable"):
        if not groups or flops[run] > flops[groups[-1][0]] * _SAME_BUDGET:
            groups.append([])
        groups[-1].append(int(run))
    return [
        _Budget(flops=float(np.exp(np.log(flops[group]).mean())), runs=group, color=color)
        for group, color in zip(groups, _colors(len(groups)), strict=True)
    ]


def _colors(number: int) -> list[str]:
    """Light to dark along the ramp, by rank: neighbours stay apart however C is spaced."""
    stops = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in _RAMP])
    last = len(stops) - 1
    places = np.linspace(0, last, number) if number > 1 else np.array([last / 2])
    mixed = [np.interp(places, np.arange(len(stops)), channel) for channel in stops.T]
    return [f"#{round(r):02x}{round(g):02x}{round(b):02x}" for r, g, b in zip(*mixed, strict=True)]


def _budget_keys(
    flops: Sequence[float], colors: Sequence[str], mark: Literal["curve", "dot"]
) -> list[Key]:
    """An entry per budget, or a dozen of them, with as many digits as tell them apart."""
    digits = next(
        (n for n in (2, 3) if len({panels.scientific(c, n) for c in flops}) == len(flops)), 4
    )
    shown = range(len(flops))
    if len(flops) > _MOST_KEYS:
        shown = [round(i * (len(flops) - 1) / (_MOST_KEYS - 1)) for i in range(_MOST_KEYS)]
    return [Key(mark, colors[i], panels.scientific(flops[i], digits)) for i in shown]


def _power(exponent: float, interval: tuple[float, float] | None, level: float) -> str:
    """N* ∝ C^{0.365} (90% interval 0.237 to 0.722)."""
    power = f"N* ∝ C^{{{exponent:.3f}}}"
    if interval is None:
        return power
    return f"{power} ({level:.0%} interval {interval[0]:.3f} to {interval[1]:.3f})"


def _pairs(xs: Iterable[float], ys: Iterable[float]) -> list[tuple[float, float]]:
    """Points; none where there are no ys."""
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=False)]


def _ends(values: Iterable[float]) -> tuple[float, float]:
    finite = [float(value) for value in values if math.isfinite(value)]
    return min(finite), max(finite)
