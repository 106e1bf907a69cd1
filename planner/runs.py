"""Training runs as the fits see them: parameters, tokens, loss and compute, read from a CSV."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.errors import InputError

FLOPS_PER_PARAM_TOKEN = 6.0  # C = 6·N·D where a file leaves one of the three out
MAX_LOSS = 50.0  # nats per token; e^50 tokens is no vocabulary, so more is not a loss in nats

_SIZES = ("params", "tokens", "flops")


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Finished training runs, one entry per run.

    Attributes:
      params: N, float64 [runs], above 0.
      tokens: D, float64 [runs], above 0.
      loss: final loss in nats per token, float64 [runs], above 0.
      flops: C, training FLOPs, float64 [runs], above 0.
    """

    params: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    flops: np.ndarray

    def __len__(self) -> int:
        return len(self.loss)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Runs":
        """The runs at these indices, in their order, repeats kept."""
        index = np.asarray(indices, dtype=np.intp)
        return Runs(
            params=self.params[index],
            tokens=self.tokens[index],
            loss=self.loss[index],
            flops=self.flops[index],
        )


def read_runs(path: str | Path) -> Runs:
    """Reads runs from a CSV with a header.

    `loss` and two of `params`, `tokens`, `flops` are needed; the third follows from C = 6·N·D.
    A column `status` keeps only the rows that say "complete". Other columns are ignored.

        params,tokens,loss,status
        1e8,2e9,3.10,complete      → params [1e8], tokens [2e9], loss [3.10], flops [1.2e18]
        2e8,1e9,,diverged

    Raises:
      InputError: no such file, no text, no header, a column missing or there twice, a row of
        another length than the header, a value that is no finite number above 0, a loss above
        50 nats, or no row left.
    """
    try:
        # utf-8-sig: spreadsheets put a byte-order mark before the first column's name.
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except FileNotFoundError:
        raise InputError(f"runs: got {path}, expected a CSV file that exists") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"runs: {path}: got {type(error).__name__} {reason}, expected a CSV file in UTF-8"
        ) from None
    if not rows:
        raise InputError(f"runs: {path}: got an empty file, expected a header and a row per run")
    header_line, header = rows[0]
    columns = _columns(f"runs: {path} line {header_line}", header)
    table: dict[str, list[float]] = {name: [] for name in ("loss", *_SIZES)}
    for line, row in rows[1:]:
        where = f"runs: {path} line {line}"
        if len(row) != len(header):
            raise InputError(f"{where}: got {len(row)} fields, expected {len(header)}")
        if "status" in columns and row[columns["status"]].strip() != "complete":
            continue
        for name, value in _run(where, row, columns).items():
            table[name].append(value)
    if not table["loss"]:
        kept = " with status complete" if "status" in columns else ""
        raise InputError(f"runs: {path}: got no run{kept}, expected one a row below the header")
    return Runs(**{name: np.array(values) for name, values in table.items()})


def _columns(where: str, header: Sequence[str]) -> Mapping[str, int]:
    """Where each column that we read stands."""
    names = [cell.strip() for cell in header]
    for name in ("loss", "status", *_SIZES):
        if names.count(name) > 1:
            raise InputError(f"{where}: {name}: got {names.count(name)} columns, expected one")
    expected = "a header with loss and two of params, tokens, flops"
    shown = ", ".join(names)
    if "loss" not in names:
        raise InputError(f"{where}: loss: got columns {shown}, expected {expected}")
    if sum(name in names for name in _SIZES) < 2:
        missing = ", ".join(name for name in _SIZES if name not in names)
        raise InputError(f"{where}: {missing}: got columns {shown}, expected {expected}")
    return {name: names.index(name) for name in ("loss", "status", *_SIZES) if name in names}


def _run(where: str, row: Sequence[str], columns: Mapping[str, int]) -> dict[str, float]:
    """Loss, N, D and C of a row."""
    run = {
        name: _positive(f"{where}: {name}", row[columns[name]])
        for name in ("loss", *_SIZES)
        if name in columns
    }
    if run["loss"] > MAX_LOSS:
        raise InputError(
            f"{where}: loss: got {run['loss']:g}, expected nats per token, at most {MAX_LOSS:g}"
        )
    if "flops" not in run:
        run["flops"] = FLOPS_PER_PARAM_TOKEN * run["params"] * run["tokens"]
    elif "tokens" not in run:
        run["tokens"] = run["flops"] / (FLOPS_PER_PARAM_TOKEN * run["params"])
    elif "params" not in run:
        run["params"] = run["flops"] / (FLOPS_PER_PARAM_TOKEN * run["tokens"])
    for name in _SIZES:
        if not (math.isfinite(run[name]) and run[name] > 0):
            raise InputError(f"{where}: {name}: got {run[name]} from C = 6ND, expected above 0")
    return run


def _positive(where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: got {text!r}, expected a number") from None
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where}: got {text!r}, expected a finite number above 0")
    return value
