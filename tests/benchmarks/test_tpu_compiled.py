"""The cases of the compiled TPU programs, and how their texts are counted."""

import gzip
import json
from pathlib import Path

import pytest

from benchmarks.tpu_cases import CASES, MAXTEXT_CASES, TpuCase
from benchmarks.tpu_compiled import check_same_compiler, main, ratios, read_figures
from configs.errors import InputError
from planner.accounting import total_params
from planner.topology import parse_topology

# Billions of parameters of the released checkpoints.
PARAMS = {
    "8b-v5p-64": 8.03,
    "8b-v6e-64": 8.03,
    "70b-v5p-256": 70.55,
    "70b-2xv5p-128": 70.55,
    "405b-v5p-4096": 405.85,
    "7b-v5p-64": 6.74,
    "8x7b-v5p-128": 46.70,
    "t5-xxl-v5p-64": 11.14,
    "bert-large-v5e-16": 0.335,
}

# A loop of three trips: each gathers 2 KiB over four devices, multiplies, and reduces.
HLO = """\
HloModule jit_train_step, is_scheduled=true, num_partitions=4

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (carry: (s32[], f32[16,8])) -> (s32[], f32[16,8]) {
  %carry = (s32[], f32[16,8]) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %x = f32[16,8] get-tuple-element(%carry), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %kernel = f32[16,8] custom-call(%x), custom_call_target="noted", frontend_attributes={metadata={
"note":"of several lines"
}}, metadata={op_name="kernel"}
  %gathered = f32[64,8] all-gather(%kernel), replica_groups={{0,1,2,3}}, dimensions={0}
  %square = f32[8,8] dot(%gathered, %gathered), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  %reduced = f32[8,8] all-reduce(%square), replica_groups={{0,1,2,3}}, to_apply=%add
  %product = f32[16,8] dot(%x, %reduced), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %out = (s32[], f32[16,8]) tuple(%next, %product)
}

%condition (carry.1: (s32[], f32[16,8])) -> pred[] {
  %carry.1 = (s32[], f32[16,8]) parameter(0)
  %i.1 = s32[] get-tuple-element(%carry.1), index=0
  %limit = s32[] constant(3)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (p: f32[16,8]) -> f32[16,8] {
  %p = f32[16,8] parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[16,8]) tuple(%zero, %p)
  %loop = (s32[], f32[16,8]) while(%start), condition=%condition, body=%body
  ROOT %result = f32[16,8] get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_cases_mesh_is_its_whole_topology_and_its_model_the_published_one(case: TpuCase):
    config = case.config()
    topology = parse_topology(case.topology, case.num_slices)
    assert config.mesh.num_devices == topology.num_devices
    assert total_params(config.model) / 1e9 == pytest.approx(PARAMS[case.name], rel=2e-3)


@pytest.mark.parametrize("case", MAXTEXT_CASES, ids=lambda case: case.name)
def test_maxtext_is_given_the_same_rows_chips_and_row_length(case: TpuCase):
    settings = dict(setting.split("=") for setting in case.maxtext)
    config, topology = case.config(), parse_topology(case.topology)
    assert settings["compile_topology"] == topology.sold_as
    assert int(settings["per_device_batch_size"]) * topology.num_chips == (
        config.training.batch_size
    )
    assert int(settings["max_target_length"]) == config.data.seq_len
    assert settings["remat_policy"] == config.model.remat == "full"


def test_a_program_is_counted_once_per_trip_with_the_bytes_a_ring_sends(tmp_path: Path):
    figures = read_figures(_case(), _program(tmp_path / "four.ours", libtpu="1"))
    # Three times: 3/4 of the 2,048 gathered bytes, and 2 · 3/4 of the 256 reduced.
    assert figures.sent_by_kind == {"all-gather": 3 * 1536, "all-reduce": 3 * 384}
    assert figures.collective_bytes == 3 * (1536 + 384)
    assert figures.flops == 3 * (2 * 64 * 8 * 8 + 2 * 16 * 8 * 8)
    assert figures.hbm_bytes == 100 + 50


def test_ratios_are_ours_over_theirs_and_need_both(tmp_path: Path):
    ours = read_figures(_case(), _program(tmp_path / "a.ours", libtpu="1"))
    theirs = read_figures(_case(), _program(tmp_path / "a.maxtext", libtpu="1", seconds=40.0))
    assert ratios({"ours": ours, "maxtext": theirs}) == {
        "hbm_bytes": 1.0,
        "collective_bytes": 1.0,
        "compile_seconds": 0.5,
    }
    assert ratios({"ours": ours}) == {}


def test_two_compilers_are_not_compared(tmp_path: Path):
    ours = read_figures(_case(), _program(tmp_path / "a.ours", libtpu="1"))
    theirs = read_figures(_case(), _program(tmp_path / "a.maxtext", libtpu="2"))
    with pytest.raises(InputError, match="libtpu"):
        check_same_compiler("a", {"ours": ours, "maxtext": theirs})


def test_an_unknown_case_and_a_missing_environment_are_refused_before_anything_compiles(
    tmp_path: Path,
):
    with pytest.raises(InputError, match="8b-v5p-64"):
        main(["--cases", "8b-v5p-63", "--ours-only", "--out", str(tmp_path / "out")])
    with pytest.raises(InputError, match="maxtext-python"):
        main(["--maxtext-python", str(tmp_path / "python"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def _case() -> TpuCase:
    return TpuCase(name="four", config=CASES[0].config, topology="v5e:2x2")


def _program(out: Path, *, libtpu: str, seconds: float = 20.0) -> Path:
    with gzip.open(f"{out}.hlo.gz", "wt") as file:
        file.write(HLO)
    record = {
        "argument_bytes": 100,
        "temporary_bytes": 50,
        "output_bytes": 40,
        "alias_bytes": 40,
        "lower_seconds": 1.0,
        "compile_seconds": seconds,
        "compile_cpu_seconds": seconds,
        "load_average": 0.0,
        "versions": {"libtpu": libtpu, "jaxlib": "0"},
    }
    Path(f"{out}.json").write_text(json.dumps(record))
    return out
