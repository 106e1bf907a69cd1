"""Plan against actual: numbers, differences, verdicts."""

import io

import pytest
from rich.console import Console

from report.compare import comparison_rows, relative_difference
from report.curves import curves_section
from report.headline import headline_tiles
from report.read import read_run
from report.terminal import comparison_table, print_comparison


@pytest.fixture
def rows(write_run, files):
    def build():
        return {row.quantity: row for row in comparison_rows(read_run(write_run(files)))}

    return build


def test_the_three_n_are_told_apart(rows, files):
    files["summary.json"]["matmul_params"] = 1_050_001
    table = rows()
    law = table["N the law asks for"]
    shape = table["N of the chosen shape"]
    built = table["N counted in the built model"]
    assert (law.planned, law.actual, law.verdict) == (1e6, None, "unjudged")
    assert (shape.planned, shape.actual) == (1_050_000, None)
    assert shape.difference == pytest.approx(0.05)  # against the law's N
    assert (built.planned, built.actual) == (1_050_000, 1_050_001)
    assert built.verdict == "outside"  # counts are exact: one parameter is one too many
    assert built.verdict_text == "not equal"


def test_totals_within_a_fifth_are_within_and_beyond_are_outside(rows, files):
    files["summary.json"]["train_seconds"] = 120.0
    table = rows()
    assert table["Training time"].difference == pytest.approx(0.2)
    assert table["Training time"].verdict_text == "within 20%"
    assert table["Time per step"].difference == pytest.approx(0.25)
    assert table["Time per step"].verdict_text == "outside 20%"
    assert table["Training time"].difference_text == "+20.0%"


def test_every_promised_quantity_has_a_row(rows):
    table = rows()
    assert table["Parameters, all"].actual == 1_100_000
    assert table["Training tokens"].verdict == "within"
    assert table["Training FLOPs"].actual_text == "1.40e13 FLOPs"
    assert table["Steps"].verdict_text == "exact"
    assert table["Peak memory"].actual_text == "1.10 GiB"
    assert table["Peak resident memory"].planned is None
    assert table["Compile time"].verdict == "unjudged"


def test_a_loss_that_was_not_promised_reads_unfitted(rows):
    loss = rows()["Held-out loss, nats per token"]
    assert (loss.planned_text, loss.actual, loss.verdict) == ("unfitted", 3.0, "unjudged")


@pytest.mark.parametrize(("high", "verdict"), [(3.1, "within"), (2.9, "outside")])
def test_a_promised_interval_is_judged(rows, files, high, verdict):
    files["plan.json"]["predicted"] |= {"loss": None, "loss_low": 2.5, "loss_high": high}
    loss = rows()["Held-out loss, nats per token"]
    assert (loss.planned_text, loss.verdict) == (f"2.500 to {high:.3f}", verdict)
    assert loss.verdict_text == f"{verdict} the interval"


def test_a_promised_loss_is_judged(rows, files):
    files["plan.json"]["predicted"]["loss"] = 2.0
    assert rows()["Held-out loss, nats per token"].verdict == "outside"


def test_a_run_still_training_is_compared_so_far_and_not_judged(rows, files):
    files["run.json"]["status"] = "training"
    del files["summary.json"]
    files["metrics.jsonl"] = files["metrics.jsonl"][:4]
    table = rows()
    assert table["Steps"].actual == 40
    assert table["Training tokens"].actual == 800_000
    assert table["Steps"].verdict_text == "so far"
    assert table["Time per step"].actual == pytest.approx(1.1)


def test_a_trained_run_is_judged_before_it_is_marked_complete(rows, files):
    files["run.json"]["status"] = "training"
    assert rows()["Steps"].verdict_text == "exact"


def test_without_a_plan_only_the_measured_side_is_there(rows, files):
    del files["plan.json"]
    table = rows()
    assert "N the law asks for" not in table
    assert all(row.planned is None and row.verdict == "unjudged" for row in table.values())
    assert table["Held-out loss, nats per token"].planned_text == "—"


def test_an_empty_run_has_no_rows(rows, files):
    for name in list(files):
        if name != "run.json":
            del files[name]
    assert rows() == {}


def test_differences_without_a_finite_value_are_none():
    assert relative_difference(0.0, 1.0) is None
    assert relative_difference(1.0, float("nan")) is None
    assert relative_difference(None, 1.0) is None
    assert relative_difference(200.0, 150.0) == -0.25


def test_headline_says_what_the_bits_are_worth(write_run, files):
    tiles = {tile.label: tile.value for tile in headline_tiles(read_run(write_run(files)))}
    assert tiles["Held-out bits per byte"] == "1.500"
    assert tiles["Against xz −9e"] == "0.750×"
    assert tiles["Against xz primed"] == "1.25×"
    assert tiles["Training time"] == "0:01:50"


def test_terminal_table_prints_brackets_as_they_are(write_run, files):
    files["run.json"]["name"] = "[red]run[/red]"
    run = read_run(write_run(files))
    output = io.StringIO()
    print_comparison(run, Console(file=output, width=120))
    assert "[red]run[/red]" in output.getvalue()
    table = comparison_table(run)
    assert all(len(cells) == len(table.headers) for cells in table.rows)
    for cells in table.rows:
        assert cells[0] in output.getvalue()


def test_headline_of_an_objective_without_bits_gives_its_loss_measures_and_baselines(
    write_run, files
):
    files["summary.json"] |= {"nats_per_token": 3.25, "bits_per_byte": None}
    files["summary.json"]["metrics"] = {"masked_token_accuracy": 0.4}
    files["summary.json"]["baselines"] = {"unigram_nats": 6.5, "bigram_nats": 3.0}
    files["evaluations.jsonl"] = [{"step": 100, "nats_per_token": 3.25, "bits_per_byte": None}]
    run = read_run(write_run(files))
    tiles = {tile.label: tile.value for tile in headline_tiles(run)}
    assert tiles["Held-out loss"] == "3.250"
    assert tiles["Masked token accuracy"] == "40.0%"
    assert (tiles["Against unigrams"], tiles["Against bigrams"]) == ("−3.25 nats", "+0.25 nats")
    assert not any("xz" in label or "bits" in label for label in tiles)
    assert "Held-out bits per byte" not in curves_section(run)
