"""A plan adds up: its shape, its steps, its time and its memory."""

import json
from dataclasses import replace

import pytest

from configs.errors import InputError
from configs.presets import PRESETS
from planner.accounting import matmul_params, total_params
from planner.budget import Budget, Constraints
from planner.hardware import Hardware, chip_of_device
from planner.on_hardware import needed_bytes
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
    assert needed_bytes(plan.config, hardware).total <= 0.9 * hardware.memory_bytes
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
    assert plan.config.mesh.fsdp in (4, 8)
    assert plan.config.model.remat != "none"
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


RECORD = {
    "budget": {"kind", "value", "unit", "flops"},
    "law": {"name", "convention", "source", "flops_meaning", "in_range", "note"},
    "optimum": {"params", "tokens", "flops", "tokens_per_param"},
    "model": {"architecture", "params", "active_params", "matmul_params", "non_embedding_params",
              "params_by_law", "flops_per_token", "flops_per_token_palm", "emb_dim", "num_layers",
              "num_encoder_layers", "num_heads", "num_kv_heads", "head_dim", "mlp_dim",
              "vocab_size", "tie_embeddings"},
    "data": {"tokens", "tokens_per_param", "tokens_read", "epochs", "objective", "seq_len",
             "places_per_row", "batch_size", "batch_tokens"},
    "training": {"num_steps", "learning_rate", "warmup_steps", "schedule", "weight_decay"},
    "predicted": {"flops", "flops_by_part", "train_seconds", "step_seconds", "days", "chip_hours",
                  "cost", "peak_bytes", "bytes_by_kind", "kv_cache_bytes_per_row", "loss",
                  "loss_low", "loss_high", "loss_law", "loss_note"},
    "hardware": {"device", "num_devices", "num_chips", "price_per_chip_hour", "flops_per_second",
                 "peak_flops_per_second", "source"},
}  # fmt: skip
LISTS = ("rules", "laws", "other_sizes", "warnings", "compiled")


def test_the_record_has_the_documented_fields_and_says_where_numbers_are_from():
    plan = make_plan(Budget(kind="time", value=300.0), template=TEMPLATE, hardware=CPU)
    record = plan.to_json()
    assert {name: set(part) for name, part in record.items() if name not in LISTS} == RECORD
    assert set(record) == {*RECORD, *LISTS}
    assert record["compiled"] is None  # nobody asked a compiler
    assert record["data"]["epochs"] is None
    assert record["predicted"]["loss"] is None
    rules = {rule["field"]: rule for rule in record["rules"]}
    assert all(set(rule) == {"field", "value", "rule"} and rule["rule"] for rule in rules.values())
    config = plan.config
    assert rules["training.num_steps"]["value"] == config.training.num_steps
    assert rules["training.batch_size"]["value"] == config.training.batch_size
    assert rules["model.vocab_size"]["value"] == config.model.vocab_size
    assert rules["data.seq_len"]["value"] == config.data.seq_len


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("hardware", [CPU, replace(CPU, num_devices=6), GPUS], ids=str)
def test_any_preset_serves_as_template_whatever_its_own_mesh_and_remat(preset, hardware):
    budget = Budget(kind="flops", value=1e14)
    plan = make_plan(budget, template=PRESETS[preset](), hardware=hardware)
    assert plan.config.mesh.num_devices == hardware.num_devices
    assert plan.config.model.remat == "none"  # a model so small fits without
    assert plan.config.training.num_microbatches == 1


def test_sizes_that_are_given_are_kept():
    budget = Budget(kind="time", value=60.0)
    plan = make_plan(
        budget,
        template=TEMPLATE,
        hardware=CPU,
        constraints=Constraints(vocab_size=1500, seq_len=64),
    )
    assert plan.config.model.vocab_size == 1500
    assert plan.config.data.seq_len == 64
    rules = {rule.field: rule.rule for rule in plan.rules}
    assert rules["model.vocab_size"] == "of the tokenizer given"
    assert rules["data.seq_len"] == "given"


def test_a_length_that_was_fixed_for_another_reason_says_so():
    constraints = Constraints(seq_len=64, seq_len_rule="because of the tokenizer")
    budget = Budget(kind="time", value=60.0)
    plan = make_plan(budget, template=TEMPLATE, hardware=CPU, constraints=constraints)
    rules = {rule.field: rule.rule for rule in plan.rules}
    assert rules["data.seq_len"] == "because of the tokenizer"


def test_a_changed_config_changes_what_is_predicted():
    plan = make_plan(Budget(kind="time", value=60.0), template=TEMPLATE, hardware=CPU)
    longer = replace(plan.config.training, num_steps=2 * plan.config.training.num_steps)
    changed = plan.with_config(replace(plan.config, training=longer))
    assert changed.tokens == 2 * plan.tokens
    assert changed.train_seconds == pytest.approx(2 * plan.train_seconds)
    assert changed.to_json()["budget"] == plan.to_json()["budget"]


def test_parameters_and_tokens_follow_each_other_at_the_laws_ratio():
    by_params = make_plan(Budget(kind="params", value=1e8), template=TEMPLATE, hardware=GPUS)
    by_tokens = make_plan(Budget(kind="tokens", value=2e9), template=TEMPLATE, hardware=GPUS)
    assert by_params.optimum.tokens == pytest.approx(2e9, rel=0.01)
    assert by_tokens.optimum.params == pytest.approx(1e8, rel=0.01)
    assert by_tokens.tokens >= 2e9  # the last step is a whole one
    assert by_tokens.tokens - by_tokens.config.batch_tokens < 2e9


def test_more_time_buys_more_of_both():
    plans = [
        make_plan(Budget(kind="time", value=60.0 * 4**i), template=TEMPLATE, hardware=CPU)
        for i in range(5)
    ]
    params = [matmul_params(plan.config.model) for plan in plans]
    tokens = [plan.tokens for plan in plans]
    assert params == sorted(set(params))
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize(
    ("kind", "value"), [("flops", 1e6), ("params", 10.0), ("tokens", 100.0), ("time", 1e-6)]
)
def test_budgets_too_small_for_any_model_are_refused(kind, value):
    with pytest.raises(InputError, match="^budget: got"):
        make_plan(Budget(kind=kind, value=value), template=TEMPLATE, hardware=CPU)
