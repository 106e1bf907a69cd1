"""A plan adds up: its shape, its steps, its time and its memory."""

import json
from dataclasses import replace

import pytest

from configs.errors import InputError
from configs.presets import PRESETS
from planner.accounting import matmul_params, total_params, training_bytes
from planner.budget import Budget
from planner.hardware import Hardware, chip_of_device
from planner.plan import make_plan
from planner.shapes import ACCELERATOR_TILE, CPU_TILE, shape_for, vocabulary_for

CPU = Hardware(
    device="cpu",
    num_devices=1,
    flops_per_second=6e10,
    peak_flops_per_second=2e11,
    memory_bytes=24e9,
    source="assumed",
    is_accelerator=False,
)
GPUS = Hardware(
    device="NVIDIA H200",
    num_devices=8,
    flops_per_second=8 * 4e14,
    peak_flops_per_second=8 * 989e12,
    memory_bytes=141e9,
    source="assumed",
    is_accelerator=True,
)
TEMPLATE = PRESETS["decoder_only/tiny"]()


@pytest.mark.parametrize(
    ("kind", "value", "hardware"),
    [
        ("time", 60.0, CPU),
        ("time", 360.0, CPU),
        ("time", 36_000.0, CPU),
        ("flops", 1e18, GPUS),
        ("flops", 1e21, GPUS),
        ("params", 7e9, GPUS),
        ("tokens", 3e11, GPUS),
    ],
)
def test_a_plan_adds_up(kind, value, hardware):
    plan = make_plan(Budget(kind=kind, value=value), template=TEMPLATE, hardware=hardware)
    record = json.loads(json.dumps(plan.to_json(corpus_tokens=1_000_000)))
    training, data = record["training"], record["data"]
    assert data["tokens"] == training["num_steps"] * data["batch_tokens"]
    assert data["epochs"] == data["tokens"] / 1_000_000
    assert record["model"]["params"] == total_params(plan.config.model)
    assert record["predicted"]["flops"] == pytest.approx(
        data["tokens"] * record["model"]["flops_per_token"]
    )
    assert training_bytes(plan.config).total <= 0.9 * hardware.memory_bytes
    assert plan.config.mesh.num_devices == hardware.num_devices
    spent = {
        "time": record["predicted"]["train_seconds"],
        "flops": record["predicted"]["flops"],
        "params": record["model"]["params"],
        "tokens": data["tokens"],
    }
    tolerance = 0.15 if kind == "params" else 0.02  # a shape is a whole number of layers
    assert spent[kind] == pytest.approx(value, rel=tolerance)


def test_reserved_time_comes_out_of_the_steps():
    budget = Budget(kind="time", value=100.0)
    free = make_plan(budget, template=TEMPLATE, hardware=CPU)
    held = make_plan(budget, template=TEMPLATE, hardware=CPU, reserved_seconds=40.0)
    assert held.train_seconds == pytest.approx(free.train_seconds, rel=0.02)
    assert held.flops == pytest.approx(0.6 * free.flops)
    with pytest.raises(InputError, match="^budget"):
        make_plan(budget, template=TEMPLATE, hardware=CPU, reserved_seconds=100.0)


@pytest.mark.parametrize(
    ("params", "tile"),
    [(3e5, CPU_TILE), (1e6, CPU_TILE), (1e7, CPU_TILE)]
    + [(params, ACCELERATOR_TILE) for params in (1e7, 1e8, 1e9, 7e9, 7e10)],
)
def test_shapes_are_aligned_and_close(params, tile):
    vocab_size = vocabulary_for(params)
    config = shape_for(params, template=TEMPLATE.model, vocab_size=vocab_size, tile=tile)
    assert matmul_params(config) == pytest.approx(params, rel=0.3 if params < 1e7 else 0.06)
    assert config.emb_dim % tile.width == 0 and config.mlp.mlp_dim % tile.mlp == 0
    heads = config.attention
    assert heads.num_heads * heads.head_dim == config.emb_dim and heads.head_dim % 2 == 0


def test_too_small_a_model_is_refused_with_the_smallest_there_is():
    with pytest.raises(InputError, match="expected at least"):
        shape_for(1000, template=TEMPLATE.model, vocab_size=1024, tile=CPU_TILE)
    with pytest.raises(InputError, match="^budget"):
        make_plan(Budget(kind="time", value=1e-3), template=TEMPLATE, hardware=CPU)


def test_large_state_is_cut_and_activations_recomputed():
    plan = make_plan(Budget(kind="params", value=2e10), template=TEMPLATE, hardware=GPUS)
    assert plan.config.mesh.fsdp == 8
    assert plan.config.model.remat == "full"
    assert plan.config.training.num_microbatches > 1
    small = make_plan(Budget(kind="params", value=1e8), template=TEMPLATE, hardware=GPUS)
    assert small.config.mesh.data == 8


def test_what_fits_nowhere_is_refused():
    tight = replace(GPUS, memory_bytes=1e9)
    with pytest.raises(InputError, match="^budget: .*GB"):
        make_plan(Budget(kind="params", value=7e9), template=TEMPLATE, hardware=tight)


def test_devices_are_recognised_by_what_they_call_themselves():
    names = {"NVIDIA H200": "h200", "TPU v5 lite": "v5e", "TPU v5p": "v5p", "TPU v6 lite": "v6e"}
    for kind, name in names.items():
        chip = chip_of_device(kind)
        assert chip is not None and chip.name == name
    assert chip_of_device("cpu") is None
