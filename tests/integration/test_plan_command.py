"""`isoflop plan` for machines that are not here: what it prints, and one-line refusals."""

import importlib.util
import json

import pytest

import isoflop


def test_a_pod_for_three_days(capsys):
    assert isoflop.run(["plan", "--chips", "v5p:256", "--hours", "72", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema_version"] == 1
    assert record["optimum"]["flops"] == pytest.approx(0.4 * 256 * 459e12 * 72 * 3600, rel=0.02)
    assert record["predicted"]["days"] == pytest.approx(3.0, rel=0.01)
    assert record["hardware"]["num_chips"] == 256


def test_bloombergs_budget_gives_about_bloombergs_model(capsys):
    """1.3M A100-hours, a quarter lost to recomputation, 709B tokens (arXiv 2303.17564)."""
    args = "plan --chips a100-40gb:512 --hours 1904 --mfu .327 --unique-tokens 709B --max-epochs 2"
    assert (
        isoflop.run([*args.split(), "--vocab-size", "131072", "--seq-len", "2048", "--json"]) == 0
    )
    record = json.loads(capsys.readouterr().out)
    assert record["model"]["params"] == pytest.approx(50.6e9, rel=0.1)
    assert 1 < record["data"]["epochs"] < 2
    assert record["model"]["emb_dim"] == pytest.approx(7680, rel=0.1)
    assert record["model"]["num_layers"] == pytest.approx(70, rel=0.1)


@pytest.mark.parametrize("flag", ["--explain", None])
def test_a_person_can_read_it(capsys, flag):
    args = ["plan", "--budget-flops", "5.76e23", "--chips", "v5p:256", "--price", "4.2"]
    assert isoflop.run(args if flag is None else [*args, flag]) == 0
    printed = capsys.readouterr().out
    assert "chinchilla-1" in printed and "192 times above" in printed
    assert max(map(len, printed.splitlines())) < 2000


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ("--budget-flops 0", "budget (flops)"),
        ("--budget-flops -1", "budget-flops"),
        ("--budget-flops nan", "budget-flops"),
        ("--tokens 1T --params 7B", "budget"),
        ("--hours 0", "budget (time)"),
        ("--hours 1 --time 1h", "budget"),
        ("--cost 100", "price"),
        ("--cost 100 --price -1", "price"),
        ("--cost 100 --price 0", "price"),
        ("--budget-flops 1e21 --law chinchila-1", "law"),
        ("--budget-flops 1e21 --law fitted:nowhere.json", "law"),
        ("--budget-flops 1e21 --unique-tokens 1B", "unique_tokens"),
        ("--budget-flops 1e21 --unique-tokens 0", "unique_tokens"),
        ("--budget-flops 1e21 --max-epochs 0", "max_epochs"),
        ("--budget-flops 1e21 --max-params 10", "max_params"),
        ("--params 7B --inference-tokens 1T", "inference_tokens"),
        ("--params 7B --memory 1G", "budget"),
        ("--params 70B --memory -1", "memory"),
        ("--budget-flops 1e3", "budget"),
    ],
)
def test_nonsense_is_refused_in_one_line(capsys, args, field):
    assert isoflop.run(["plan", "--chips", "h100:1", *args.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert field in printed.err


def test_chips_are_checked_first(capsys):
    assert isoflop.run(["plan", "--chips", "v99:8", "--hours", "1"]) == 2
    assert "chips: got 'v99'" in capsys.readouterr().err
    assert isoflop.run(["plan", "--time", "1m", "--mfu", "0.5"]) == 2
    assert "mfu" in capsys.readouterr().err


def test_a_grid_of_chips_and_several_slices_of_it(capsys):
    args = "plan --params 70B --chips v5p:8x8x4 --slices 2 --json"
    assert isoflop.run(args.split()) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["hardware"]["num_chips"] == 512
    assert record["hardware"]["device"] == "v5p (2 × v5p-512)"
    rules = {rule["field"]: rule for rule in record["rules"]}
    assert rules["mesh.replica"]["value"] == 2
    assert "data-centre network" in rules["mesh.replica"]["rule"]
    assert record["compiled"] is None


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ("--chips h100:8 --slices 2", "slices"),
        ("--chips v5p:8x8", "chips"),
        ("--chips v5e:512", "chips"),
        ("--chips cpu:8", "chips"),
        ("--slices 2", "slices"),
        ("--chips h100:8 --topology cpu:8", "topology"),
        ("--chips h100:8 --verify --topology cpu:4", "topology"),
        ("--chips h100:8 --verify --topology nowhere:8", "topology"),
    ],
)
def test_machines_that_are_none_are_refused_in_one_line(capsys, args, field):
    assert isoflop.run(["plan", "--budget-flops", "1e18", *args.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith(f"isoflop: error: {field}: got")


SMALL = "plan --chips h100:1 --budget-flops 3e13 --preset decoder_only/tiny"


@pytest.mark.slow
def test_a_verified_plan_promises_what_the_compiler_counted(capsys):
    args = f"{SMALL} --verify --topology cpu:1 --json"
    assert isoflop.run(args.split()) == 0
    record = json.loads(capsys.readouterr().out)
    compiled, predicted = record["compiled"], record["predicted"]
    assert compiled["fits"] and compiled["failure"] is None
    assert compiled["topology"] == "cpu:1 (1 chips)"
    assert predicted["peak_bytes"] == compiled["needed_bytes"]
    assert predicted["bytes_by_kind"]["total"] == compiled["planned_bytes"]
    assert compiled["needed_bytes"] > predicted["bytes_by_kind"]["params"]
    assert compiled["flops"] == pytest.approx(compiled["planned_flops"], rel=0.2)
    assert compiled["traffic"] == compiled["planned_traffic"] == []


@pytest.mark.slow
def test_a_plan_that_does_not_fit_by_the_compiler_fails(capsys):
    """The batch is made larger after the planner has laid it out."""
    larger = "--memory 100M --training.batch-size 1024 --training.num-microbatches 1"
    assert isoflop.run(f"{SMALL} --verify --topology cpu:1 {larger}".split()) == 1
    printed = capsys.readouterr().out
    assert "does not fit" in printed and "of 0.09 GB usable" in printed


def test_a_compiler_that_is_missing_is_named_with_how_to_get_it(capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "libtpu" else found(name)
    )
    assert isoflop.run("plan --chips v5p:8 --budget-flops 1e14 --verify".split()) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert "make setup-tpu" in printed.err


@pytest.mark.slow
def test_collectives_of_a_verified_plan_are_along_the_axes_planned(capsys):
    """So little memory that parameters are cut; every axis that is planned to carry something does,
    and kernels' gathers come to what the planner says."""
    args = "plan --chips h100:8 --params 20M --memory 300M --verify --topology cpu:8 --json"
    isoflop.run(args.split())
    record = json.loads(capsys.readouterr().out)
    compiled = record["compiled"]
    planned = {tuple(part["axes"]) for part in compiled["planned_traffic"]}
    assert planned and planned <= {tuple(part["axes"]) for part in compiled["traffic"]}


@pytest.mark.slow
def test_this_machines_own_devices_are_compiled_for_without_chips(capsys):
    args = "plan --budget-flops 1e13 --preset decoder_only/tiny --verify --json"
    assert isoflop.run(args.split()) == 0
    compiled = json.loads(capsys.readouterr().out)["compiled"]
    assert compiled["fits"] and compiled["topology"].startswith("cpu:")
