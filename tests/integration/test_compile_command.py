"""`isoflop compile` on pretended devices, what it refuses, and for TPUs and GPUs where it can."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import isoflop
from configs.errors import InputError
from configs.presets import PRESETS
from planner.accounting import training_bytes
from planner.topology import parse_topology
from workflows.compile_config import advice, on_topology

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--model.num-layers", "1", "--optimizer.kind", "adamw"]  # quick to compile


def test_a_tiny_config_on_eight_pretended_devices(capsys, tmp_path):
    hlo = tmp_path / "step.hlo"
    args = ["compile", "decoder_only/tiny", "--topology", "cpu:8", "--json"]
    args += ["--mesh.fsdp", "4", "--mesh.tensor", "2", "--save-hlo", str(hlo), *SMALL]
    assert isoflop.run(args) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["schema_version"] == 1
    assert record["mesh"]["fsdp"] == 4
    memory, planned = record["program"]["memory"], record["planned_memory"]
    assert memory["params"] == planned["params"]
    assert memory["optimizer"] == pytest.approx(planned["optimizer"], rel=0.01)  # the step counter
    parts = ("params", "optimizer", "batch", "padding", "outputs", "temporaries")
    assert memory["total"] == sum(memory[part] for part in parts)
    assert memory["peak"] == memory["total"]  # only the TPU's compiler tells them apart
    assert record["program"]["flops"] == pytest.approx(record["planned_flops"], rel=0.02)
    axes = {axis for part in record["program"]["traffic"] for axis in part["axes"]}
    assert axes == {"fsdp", "tensor"}
    assert "HloModule" in hlo.read_text()[:20]


def test_a_person_can_read_it(capsys):
    assert isoflop.run(["compile", "decoder_only/tiny", "--topology", "cpu:2", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert "mesh fsdp=2, instead of one device" in printed
    assert max(map(len, printed.splitlines())) <= 120


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ("decoder_only/tiny --topology v5q:8", "topology"),
        ("decoder_only/tiny --topology v5p:4x4", "topology"),
        ("decoder_only/tiny --topology h100:8 --slices 2", "slices"),
        ("decoder_only/none --topology cpu:8", "config"),
        ("decoder_only/tiny --topology cpu:8 --mesh.fsdp 4", "mesh"),
        ("decoder_only/tiny --topology cpu:8 --training.batch-size 12", "training.batch_size"),
        ("decoder_only/tiny --topology cpu:8 --save-hlo /no/such/folder/x", "save-hlo"),
        ("decoder_only/tiny --topology cpu:16", "topology"),
        ("decoder_only/tiny", "topology"),
    ],
)
def test_nonsense_is_refused_in_one_line_before_any_compile(capsys, args, field):
    assert isoflop.run(["compile", *args.split()]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.strip().count("\n") == 0
    assert field in printed.err


def test_a_mesh_is_made_for_the_topology_and_microbatches_follow():
    config = PRESETS["decoder_only/llama3_8b"]()
    changed, notes = on_topology(config, parse_topology("v5p:512"), mesh_given=False)
    assert (changed.mesh.axis_sizes["fsdp"], changed.training.num_microbatches) == (512, 1)
    assert [note.split()[0] for note in notes] == ["mesh", "1"]


def test_slices_are_replicas():
    config = PRESETS["decoder_only/llama3_8b"]()
    changed, _ = on_topology(config, parse_topology("v6e:4x4", 4), mesh_given=False)
    sizes = changed.mesh.axis_sizes
    assert (next(iter(sizes.values())), sizes["fsdp"]) == (4, 16)


def test_a_width_that_does_not_divide_leaves_replicas():
    config = PRESETS["encoder_only/bert_base"]()  # 768 wide: not over 512 devices
    config = replace(config, training=replace(config.training, batch_size=512, num_microbatches=1))
    changed, _ = on_topology(config, parse_topology("v5p:512"), mesh_given=False)
    assert changed.mesh.axis_sizes["fsdp"] == 256
    assert changed.mesh.axis_sizes["data"] == 2


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="training.batch_size"):
        on_topology(PRESETS["decoder_only/tiny"](), parse_topology("v5p:64"), mesh_given=False)


def test_every_advice_saves_what_it_says():
    config, _ = on_topology(
        PRESETS["decoder_only/llama3_8b"](), parse_topology("v6e:8x8"), mesh_given=False
    )
    config = replace(
        config,
        model=replace(config.model, remat="none"),
        training=replace(config.training, num_microbatches=1),
    )
    found = advice(config, parse_topology("v6e:8x8"))
    assert found[0].options == "--model.remat full"
    assert found[1].options == "--training.num-microbatches 2"
    before = training_bytes(config, platform="tpu").total
    remat = replace(config, model=replace(config.model, remat="full"))
    assert found[0].saved_bytes == before - training_bytes(remat, platform="tpu").total > 0
    assert all(item.needed_bytes + item.saved_bytes == before for item in found)


@pytest.mark.parametrize(
    ("calls", "factor"),
    [
        ({}, 0),
        ({"splash_mha_fwd_residuals": 8, "splash_mha_dq": 8, "splash_mha_dkv": 8}, (2 + 3 + 4) / 6),
        ({"splash_mha_fwd_residuals": 8, "splash_mha_dkv_no_residuals": 8}, (2 + 5) / 6),
        ({"mha_fwd": 16, "mha_dq": 8, "mha_dkv": 8}, (2 * 2 + 3 + 4) / 6),  # recomputed
        ({"grouped_product": 3}, 0),
    ],
)
def test_attention_kernels_count_as_often_as_they_run(calls, factor):
    from workflows.compile_report import attention_kernel_flops

    assert attention_kernel_flops(calls, 6e9) == pytest.approx(factor * 6e9)


def compiled_elsewhere(kind: str, *args: str) -> subprocess.CompletedProcess[str]:
    """The command in the environment of an extra."""
    python = ROOT / f".venv-{kind}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"needs make setup-{kind}")
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    return subprocess.run(
        [python, "isoflop.py", "compile", *args, "--json"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "topology", "options"),
    [
        ("tpu", "v5p:2x2x2", ()),
        ("tpu", "v6e:2x2", ("--slices", "2")),
        ("cuda", "h200:8", ()),
        ("cuda", "h100:2x4", ()),
    ],
)
def test_accelerators_that_are_not_here(kind, topology, options):
    done = compiled_elsewhere(kind, "decoder_only/tiny", "--topology", topology, *options)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["fits"]
    assert record["topology"]["num_devices"] == 8
    memory = record["program"]["memory"]
    assert memory["params"] == record["planned_memory"]["params"]
    arguments = memory["total"] - memory["outputs"] - memory["temporaries"]
    assert arguments < memory["peak"]
    assert 0.9 < record["program"]["flops"] / record["planned_flops"] < 1.6
    assert record["program"]["unknown_loops"] == []
    assert 0 < record["roofline"]["floor_seconds"] <= record["roofline"]["serial_seconds"]
    # Of the compilers' own chatter nothing is left; what we have to say (a kernel's choice) is.
    assert [line for line in done.stderr.splitlines() if "attention kernel" not in line] == []


@pytest.mark.slow
def test_a_model_that_does_not_fit_says_what_to_change():
    options = "--topology v6e:2x2 --model.num-layers 2 --training.num-microbatches 1"
    done = compiled_elsewhere("tpu", "decoder_only/llama3_8b", *options.split())
    assert done.returncode == 1, done.stderr
    record = json.loads(done.stdout)
    assert not record["fits"]
    assert record["needed_bytes"] > record["usable_bytes"]
    assert "--training.num-microbatches 2" in [item["options"] for item in record["advice"]]
