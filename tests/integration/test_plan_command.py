"""`isoflop plan` for machines that are not here: what it prints, and one-line refusals."""

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
