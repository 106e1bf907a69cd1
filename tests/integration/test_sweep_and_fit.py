"""A sweep trains its grid once and no more; a fit reads it back and says how far to trust it."""

import csv
import json

import numpy as np
import pytest

import isoflop
from planner.coefficients import Coefficients
from planner.fitted_law import load_law
from workflows import sweep

TRUTH = Coefficients(E=1.8, A=300.0, B=500.0, alpha=0.4, beta=0.35)


def table(path, *, noise=0.001, budgets=(1e14, 1e15, 1e16, 1e17), sizes=9):
    """Runs of TRUTH around its own optimum, as a CSV."""
    generator = np.random.default_rng(0)
    rows = ["params,tokens,loss"]
    for flops in budgets:
        best, _ = TRUTH.frontier(flops)
        for factor in np.geomspace(0.2, 5, sizes):
            params = best * factor
            tokens = flops / (6 * params)
            loss = TRUTH.loss(params, tokens) * np.exp(noise * generator.standard_normal())
            rows.append(f"{params},{tokens},{loss}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.slow
def test_a_sweep_trains_its_grid_and_is_not_trained_twice(
    tiny_corpus, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "sweep"
    args = ["sweep", "--corpus", str(tiny_corpus), "--out", str(out), "--seq-len", "32"]
    args += ["--budgets", "3e9,6e9", "--sizes", "9K", "20K"]
    assert isoflop.run([*args, "--dry-run", "--json"]) == 0
    assert not out.exists()
    grid = json.loads(capsys.readouterr().out)["grid"]
    assert isoflop.run([*args, "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    for planned, run in zip(grid, runs, strict=True):
        assert planned["params"] == run["params"] and planned["num_steps"] == run["num_steps"]
    rows = list(csv.DictReader((out / "runs.csv").read_text().splitlines()))
    assert len(rows) == 4 and set(rows[0]) == set(sweep.COLUMNS)
    for row in rows:
        assert row["status"] == "complete" and 1 < float(row["loss"]) < 7
        assert float(row["flops"]) == pytest.approx(float(row["budget_flops"]), rel=0.1)
    assert len({row["params"] for row in rows}) == 2

    (out / "runs.csv").unlink()
    monkeypatch.setattr(sweep, "finish_training", lambda *_, **__: pytest.fail("trained again"))
    assert isoflop.run(args) == 0
    assert list(csv.DictReader((out / "runs.csv").read_text().splitlines())) == rows
    capsys.readouterr()
    assert isoflop.run([*args, "--training.seed", "5"]) == 2
    assert "out: got" in capsys.readouterr().err


def test_a_fit_is_written_and_planned_with(tmp_path, capsys):
    path = table(tmp_path / "runs.csv")
    args = ["fit", str(path), "--params-kind", "total", "--bootstraps", "100"]
    assert isoflop.run(args) == 0
    printed = capsys.readouterr().out
    assert "90% interval" in printed and "IsoFLOP parabolas" in printed
    for name in ("isoflop", "frontier", "residuals"):
        assert (tmp_path / f"{name}.svg").is_file() and f"{name}.svg" in printed
    law = load_law(str(tmp_path / "law.json"))
    assert law.alpha == pytest.approx(TRUTH.alpha, abs=0.05)
    assert law.beta == pytest.approx(TRUTH.beta, abs=0.05)
    assert law.reasons == ()
    record = json.loads((tmp_path / "law.json").read_text())
    assert record["schema_version"] == 1 and record["runs"] == 36
    assert record["influence"][0]["size"] >= record["influence"][-1]["size"]

    name = f"fitted:{tmp_path / 'law.json'}"
    args = ["plan", "--chips", "h100:1", "--budget-flops", "1e17", "--law", name, "--json"]
    assert isoflop.run(args) == 0
    plan = json.loads(capsys.readouterr().out)
    best, _ = TRUTH.frontier(1e17)
    assert plan["optimum"]["params"] == pytest.approx(best, rel=0.1)
    predicted = plan["predicted"]
    assert predicted["loss_low"] < predicted["loss"] < predicted["loss_high"]
    expected = TRUTH.loss(plan["model"]["params"], plan["data"]["tokens"])
    assert predicted["loss"] == pytest.approx(expected, rel=0.01)


def test_a_loose_fit_gives_an_interval_and_no_loss(tmp_path, capsys):
    path = table(tmp_path / "runs.csv", noise=0.03, budgets=(1e15, 2e15), sizes=5)
    assert isoflop.run(["fit", str(path), "--bootstraps", "60"]) == 0
    assert "not identified" in capsys.readouterr().out
    name = f"fitted:{tmp_path / 'law.json'}"
    args = ["plan", "--chips", "h100:1", "--budget-flops", "1e17", "--law", name, "--json"]
    assert isoflop.run(args) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["predicted"]["loss"] is None
    assert plan["predicted"]["loss_low"] < plan["predicted"]["loss_high"]
    assert "interval only" in plan["predicted"]["loss_note"]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "runs.csv"),
        ("params,tokens\n1,2\n", "loss"),
        ("params,tokens,loss\n1e6,2e7,nan\n", "loss"),
        ("params,tokens,loss\n" + "1e6,2e7,3.0\n" * 20, "runs"),
        ("params,tokens,loss\n" + "".join(f"{n}e6,{n}e7,3.{n}\n" for n in range(1, 9)), "runs"),
    ],
)
def test_runs_that_identify_nothing_are_refused(tmp_path, capsys, text, field):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    assert isoflop.run(["fit", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and field in error
    assert not (tmp_path / "law.json").exists()
