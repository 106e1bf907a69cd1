"""The meshes that grow, and a program of one of them."""

from pathlib import Path

import pytest

from benchmarks.mesh_growth import AXES, SIZES, TOKENS_PER_CHIP, config_of, kept_records, table
from configs.errors import InputError
from configs.serialize import write_json
from planner.flops import training_flops_per_row


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("size", SIZES)
def test_every_chip_has_the_same_tokens(axis: str, size: int):
    config = config_of(axis, size)
    assert config.mesh.num_devices == size
    assert config.batch_tokens == size * TOKENS_PER_CHIP


@pytest.mark.parametrize("axis", ("data", "fsdp", "tensor"))
def test_every_chip_has_the_same_flops(axis: str):
    per_chip = {
        size: training_flops_per_row(
            config_of(axis, size).model, config_of(axis, size).lengths
        ).total
        * config_of(axis, size).training.batch_size
        / size
        for size in SIZES
    }
    assert len(set(per_chip.values())) == 1


def test_an_unknown_axis_is_refused():
    with pytest.raises(InputError, match="axes: got 'pipeline'"):
        config_of("pipeline", 4)


def test_records_of_another_chip_are_not_kept(tmp_path: Path):
    path = tmp_path / "meshes.json"
    assert kept_records(path, "v5e") == []
    write_json(path, {"chip": "v5e", "meshes": [{"axis": "data", "chips": 4}]})
    assert kept_records(path, "v5e") == [{"axis": "data", "chips": 4}]
    with pytest.raises(InputError, match="for v5e.*expected meshes of cpu"):
        kept_records(path, "cpu")


def test_the_table_sums_kinds_and_says_what_did_not_fit():
    traffic = [
        {"kind": "all-gather", "axes": "fsdp", "calls": 2, "payload_bytes": 3e6},
        {"kind": "all-reduce", "axes": "fsdp", "calls": 1, "payload_bytes": 8.0},
    ]
    fits = {
        "mesh": {"fsdp": 4}, "chips": 4, "hbm_bytes": 2e9, "flops": 5e9, "traffic": traffic
    }  # fmt: skip
    lines = table([fits, {"mesh": {"data": 4}, "chips": 4, "error": "needs 20 GB"}]).splitlines()
    assert lines[2] == "| fsdp=4 | 4 | 2.00 | 5 | all-gather fsdp 3.0 |"
    assert lines[3] == "| data=4 | 4 | | | needs 20 GB |"
