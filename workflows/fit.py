"""isoflop fit: the losses of a sweep to a scaling law of your own, with pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from configs.errors import InputError, require
from configs.folders import require_writable_folder
from configs.overrides import parse_command, reject_overrides
from configs.serialize import write_json
from planner.fit import fit_parametric, require_identifiable
from planner.isoflop import fit_isoflop
from planner.law import PARAMS_MEANING
from planner.law_file import FitResult, law_record
from planner.runs import Runs, read_runs
from planner.uncertainty import bootstrap, most_left_out
from report.law_pictures import write_pictures

PROG = "isoflop fit"


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Fits L(N, D) = E + A/N^alpha + B/D^beta and IsoFLOP parabolas to finished runs.

    Writes law.json and pictures; `isoflop plan --law fitted:law.json` plans with it. Where the runs
    cannot identify a law at all nothing is written; where they do so only loosely the law says so
    and plans give an interval instead of a loss.
    """

    runs: Annotated[Path, tyro.conf.Positional]
    """CSV with the columns loss (nats per token) and two of params, tokens, flops."""
    out: Path | None = None
    """Folder for law.json and the pictures; the CSV's own if not given."""
    params_kind: Literal["matmul", "total", "non-embedding"] = "matmul"
    """What the column params counts; `isoflop sweep` writes matmul parameters."""
    fixed_E: float | None = None  # noqa: N815
    """Irreducible loss in nats per token, if you know it."""
    delta: float = 1e-3
    """Where Huber's loss turns from squares to absolute values, in log loss."""
    bootstraps: int = 1000
    """Refits of resampled runs that carry the intervals."""
    leave_out: int = 1
    """Runs left out at a time to see which ones the law hangs on."""
    seed: int = 0
    """Of the resampling."""
    json: bool = False
    """Print law.json's record instead of tables."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop fit`."""
    options, overrides = parse_command(
        FitOptions, args, prog=PROG, description=FitOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    require(options.bootstraps >= 20, "bootstraps", options.bootstraps, "at least 20")
    folder = options.out or options.runs.parent
    require_writable_folder("out", folder)
    console = Console(stderr=True, highlight=False)
    result = fit(options, console)
    runs = result.runs
    record = law_record(
        result,
        source=str(options.runs),
        params_kind=options.params_kind,
        budgets=[runs.flops.max(), 4 * runs.flops.max(), 10 * runs.flops.max()],
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "law.json", {"schema_version": 1, **record})
    pictures = write_pictures(result, folder, params_meaning=PARAMS_MEANING[options.params_kind])
    if options.json:
        print((folder / "law.json").read_text(), end="")
        return 0
    print_fit(record, Console(highlight=False))
    for path in (folder / "law.json", *pictures):
        print(path)
    return 0


def fit(options: FitOptions, console: Console) -> FitResult:
    """Reads the runs and fits them, showing how far it is.

    Raises:
      InputError: a file that is no table of runs, or runs that cannot identify a law.
    """
    runs = read_runs(options.runs)
    require_identifiable(runs, fixed_E=options.fixed_E)
    most = most_left_out(runs, fixed_E=options.fixed_E)
    require(1 <= options.leave_out <= most, "leave_out", options.leave_out, f"1 to {most}")
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:

        def showing(name: str) -> Callable[[int, int], None]:
            task = bar.add_task(name, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        found = fit_parametric(
            runs, delta=options.delta, fixed_E=options.fixed_E, progress=showing("starts")
        )
        samples = bootstrap(
            runs,
            found,
            samples=options.bootstraps,
            seed=options.seed,
            progress=showing("bootstraps"),
        )
    return FitResult(
        runs=runs,
        fit=found,
        samples=samples,
        isoflop=_profiles(runs, console),
        left_out=options.leave_out,
    )


def _profiles(runs: Runs, console: Console):
    try:
        return fit_isoflop(runs)
    except InputError as error:  # a user's runs need not be profiles
        console.print(f"  no IsoFLOP profiles: {error}")
        return None


def print_fit(record: dict, console: Console) -> None:
    """The law and how far to trust it, for a person."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "value", "90% interval"):
        table.add_column(heading, justify="left" if not heading else "right")
    bounds = record["intervals"]
    for name in ("E", "A", "B", "alpha", "beta", "params_exponent"):
        one = bounds[name]
        label = "a of N ∝ C^a" if name == "params_exponent" else name
        table.add_row(label, f"{one['value']:.4g}", f"{one['low']:.4g} to {one['high']:.4g}")
    for optimum in bounds["optima"]:
        for name, unit in (("params", "N"), ("tokens", "D"), ("loss", "L")):
            one = optimum[name]
            table.add_row(
                f"{unit} at {optimum['flops']:.3g} FLOPs",
                f"{one['value']:.4g}",
                f"{one['low']:.4g} to {one['high']:.4g}",
            )
    console.print(
        f"  L = E + A/N^alpha + B/D^beta over {record['runs']} runs, N is "
        f"{record['params_meaning']}, C = {record['flops_per_param_token']:.3g}·N·D"
    )
    console.print(table)
    good = record["goodness"]
    console.print(
        f"  residuals {good['rms_relative_residual']:.2%} RMS, {good['max_relative_residual']:.2%} "
        f"at most (run {good['max_run']}); R² {good['r_squared']:.4f}; "
        f"{record['parametric']['agreeing']:,} of {record['parametric']['starts']:,} starts agree"
    )
    if (profiles := record["isoflop"]) is not None:
        interval = profiles["interval_params"]
        between = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
        used = sum(parabola["accepted"] for parabola in profiles["parabolas"])
        console.print(
            f"  IsoFLOP parabolas: N ∝ C^{profiles['exponent_params']:.3f}{between}, {used} of "
            f"{len(profiles['parabolas'])} budgets used"
        )
        for parabola in profiles["parabolas"]:
            if not parabola["accepted"]:
                console.print(f"    {parabola['flops']:.3g} FLOPs left out: {parabola['reason']}")
    most = record["influence"][0]
    console.print(
        f"  most influential: run{'s' if len(most['left_out']) > 1 else ''} "
        f"{', '.join(map(str, most['left_out']))}, without which alpha moves by "
        f"{most['moves']['alpha']:+.3f}, beta by {most['moves']['beta']:+.3f}"
    )
    for reason in record["reasons"]:
        console.print(f"  not identified: {reason}", style="yellow")
