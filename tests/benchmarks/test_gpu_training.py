"""The cases of the GPU benchmarks, their peers' sizes, and the table."""

import json
from pathlib import Path

import pytest

from benchmarks.gpu_attention import SMOKE_CHECKS, compare, cudnn_calls
from benchmarks.gpu_cases import (
    COMPILED_CASES,
    SMOKE_CASES,
    TIMED_CASES,
    TimedCase,
    decoder_400m,
    peer_settings,
)
from benchmarks.gpu_training import best_peer, main, table
from configs.errors import InputError
from configs.schema import MeshConfig
from planner.accounting import total_params
from planner.flops import training_flops_per_row
from planner.topology import parse_topology

# Billions of parameters of the published models, ours of the two smaller ones.
PARAMS = {"0.4b": 0.374, "1b": 1.345, "7b": 6.738, "8b": 8.030, "t5-large": 0.783, "bert": 0.335}


@pytest.mark.parametrize("case", (*COMPILED_CASES, *TIMED_CASES), ids=lambda case: case.name)
def test_cases_have_the_named_size(case):
    size = next(size for prefix, size in PARAMS.items() if case.name.startswith(prefix))
    assert total_params(case.config().model) / 1e9 == pytest.approx(size, abs=6e-4)


@pytest.mark.parametrize("case", COMPILED_CASES, ids=lambda case: case.name)
def test_meshes_cover_their_topology(case):
    assert case.config().mesh.num_devices == parse_topology(case.topology).num_devices


@pytest.mark.slow
@pytest.mark.parametrize("case", (*TIMED_CASES, *SMOKE_CASES), ids=lambda case: case.name)
def test_peers_have_as_many_parameters(case):
    from benchmarks.gpu_peer import build

    model, _ = build(peer_settings(case), "meta")
    assert sum(p.numel() for p in model.parameters()) == total_params(case.config().model)


def test_cudnn_calls_are_told_apart():
    text = "\n".join(
        f'  %x = custom-call(%q), custom_call_target="{target}", api_version=4'
        for target in (
            "__cudnn$fmhaScaleBiasSoftmax",
            "__cudnn$fmhaSoftmax",
            "__cudnn$fmhaScaleBiasSoftmaxBackward",
            "__cublas$gemm",
        )
    )
    assert cudnn_calls(text) == {"forward": 2, "backward": 1}


def test_a_wrong_kernel_fails_the_comparison(monkeypatch):
    from model.kernels import cudnn

    right = cudnn.cudnn_attention
    monkeypatch.setattr(
        cudnn, "cudnn_attention", lambda *args, **options: 1.1 * right(*args, **options)
    )
    found = compare(SMOKE_CHECKS[0], "xla")
    assert not found["ok"]
    assert found["kernel"]["out"] == pytest.approx(0.1, rel=0.1)


def _measured(seconds: float) -> dict:
    return {
        "status": "measured",
        "device": "NVIDIA H200",
        "seconds": seconds,
        "peak_bytes": 50_000_000_000,
        "losses": [10.0, 9.0],
    }


def test_the_fastest_measured_variant_counts():
    records = {
        "compile": {"status": "does not fit"},
        "compile checkpointing": _measured(0.5),
        "eager": _measured(0.7),
    }
    assert best_peer(records) == ("compile checkpointing", records["compile checkpointing"])
    assert best_peer({"compile": {"status": "failed", "error": "x"}}) is None


def test_table_gives_rate_mfu_and_ratio():
    config = decoder_400m(16, 2048, MeshConfig())
    case = TimedCase(name="0.4b-2048", family="llama", config=lambda: config)
    record = {
        "attention": {},
        "ours": {case.name: _measured(0.25) | {"cudnn_calls": {"forward": 1, "backward": 1}}},
        "peer": {case.name: {"compile": _measured(0.5)}},
    }
    ours, peer = table(record, [case]).splitlines()[2:4]
    tokens = 16 * 2048
    mfu = training_flops_per_row(config.model, 2048).total * 16 / 0.25 / 989e12
    assert f"| {tokens * 4:,} | {mfu:.1%} | 50.00 |" in ours
    assert ours.endswith("| 2.00 |")
    assert f"| {tokens * 2:,} |" in peer


def test_without_time_nothing_is_begun(tmp_path, capsys):
    out = tmp_path / "record.json"
    assert main(["--smoke", "--time-budget", "1", "--out", str(out)]) == 0
    assert "left out" in capsys.readouterr().err
    assert not out.exists()


def test_an_unknown_case_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="only: got 'smoke-lama'.*smoke-llama"):
        main(["--smoke", "--only", "smoke-lama", "--out", str(tmp_path / "record.json")])


@pytest.mark.slow
def test_smoke_measures_both_sides_and_goes_on_from_its_file(tmp_path: Path):
    out = tmp_path / "record.json"
    args = ["--smoke", "--only", "smoke-llama", "--steps", "5", "--variants", "eager"]
    assert main([*args, "--out", str(out)]) == 0
    first = json.loads(out.read_text())
    assert first["ours"]["smoke-llama"]["status"] == "measured"
    assert first["peer"]["smoke-llama"]["eager"]["status"] == "measured"
    assert first["attention"]["cudnn"]["ok"]
    assert main([*args, "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == first
