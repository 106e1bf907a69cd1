"""What is taken fits, divides, and keeps the chips multiplying; or the reason says otherwise."""

from dataclasses import replace
from itertools import pairwise

import pytest

from configs.data_config import DataConfig
from configs.errors import InputError
from configs.model_config import AttentionConfig, ModelConfig
from configs.presets import PRESETS
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from planner.accounting import total_params
from planner.budget import Budget, Constraints
from planner.hardware import Hardware, parse_chips
from planner.layout import fit_in_memory
from planner.layout_rules import tokens_to_hide_gathers
from planner.on_hardware import known_topology, needed_bytes
from planner.plan import make_plan
from planner.rows import axis_limits
from planner.topology import parse_topology
from planner.traffic import step_seconds

RUN = RunConfig(
    model=ModelConfig(
        emb_dim=256, num_layers=8, attention=AttentionConfig(num_heads=4, head_dim=64)
    ),
    data=DataConfig(seq_len=512),
    training=TrainingConfig(batch_size=64),
)


def hardware(memory_bytes: float, num_devices: int = 8) -> Hardware:
    return Hardware(
        device="test",
        num_devices=num_devices,
        flops_per_second=1e12,
        peak_flops_per_second=2e12,
        memory_bytes=memory_bytes,
        source="test",
        is_accelerator=True,
    )


def axes(mesh: MeshConfig) -> dict[str, int]:
    return {name: size for name, size in mesh.axis_sizes.items() if size > 1}


def fitted(memory_bytes: float, num_devices: int = 8):
    config, rules = fit_in_memory(RUN, hardware(memory_bytes, num_devices))
    assert needed_bytes(config, hardware(memory_bytes, num_devices)).total <= 0.9 * memory_bytes
    assert config.mesh.num_devices == num_devices
    named = {rule.field: rule.value for rule in rules}
    assert named["training.num_microbatches"] == config.training.num_microbatches
    assert ("model.remat" in named) == (config.model.remat == "full")
    return config


def test_where_links_are_unknown_less_memory_is_met_step_by_step():
    plenty, whole = (
        fitted(100e9),
        needed_bytes(replace(RUN, mesh=fitted(100e9).mesh), hardware(100e9)),
    )
    assert axes(plenty.mesh) == {"data": 8}
    assert (plenty.model.remat, plenty.training.num_microbatches) == ("none", 1)

    recomputed = fitted(0.9 * whole.total)
    assert recomputed.mesh == plenty.mesh
    assert (recomputed.model.remat, recomputed.training.num_microbatches) == ("full", 1)

    held = whole.params + whole.optimizer
    cut = fitted(2.4 * held)
    assert axes(cut.mesh) == {"data": 4, "fsdp": 2}

    split = fitted(0.75 * held)
    assert (split.model.remat, split.mesh.fsdp) == ("full", 8)
    assert split.training.num_microbatches > cut.training.num_microbatches


def test_one_device_is_never_cut():
    whole = needed_bytes(RUN, hardware(100e9))
    config = fitted(3.0 * (whole.params + whole.optimizer), num_devices=1)
    assert config.mesh.num_devices == 1
    assert config.model.remat == "full"
    assert config.training.num_microbatches > 1


@pytest.mark.parametrize("chips", [None, "v5p:8"])
def test_a_model_that_does_not_fit_row_by_row_is_refused_with_both_sizes(chips):
    message = (
        r"^budget: got a model that needs 0\.0[\d]+ GB a device, expected at most 0.00[\d]+ GB"
    )
    tight = replace(parse_chips(chips), memory_bytes=2e6) if chips else hardware(2e6)
    with pytest.raises(InputError, match=message):
        fit_in_memory(RUN, tight, topology=known_topology(tight))


def test_less_memory_never_means_more_held():
    held = needed_bytes(RUN, hardware(100e9))
    totals = [
        needed_bytes(fitted(share * held.total), hardware(100e9)).total
        for share in (2.0, 1.0, 0.5, 0.25, 0.1)
    ]
    assert totals == sorted(totals, reverse=True)


# Total parameters and chips; presets are templates, their sizes are the planner's.
PLANS = [
    ("decoder_only", 1e8, "h100:1", 1),
    ("decoder_only", 1e9, "h100:1", 1),
    ("decoder_only", 1e8, "h200:8", 1),
    ("decoder_only", 8e9, "h100:8", 1),
    ("decoder_only", 8e9, "h100:2x8", 1),
    ("decoder_only", 7e10, "h100:512", 1),
    ("decoder_only", 1e9, "v5e:4x4", 1),
    ("decoder_only", 8e9, "v5e:256", 1),
    ("decoder_only", 8e9, "v6e:256", 1),
    ("decoder_only", 7e10, "v5p:256", 1),
    ("decoder_only", 7e10, "v5p:8x8x8", 2),
    ("decoder_only", 7e10, "v7x:4x4x4", 1),
    ("decoder_only", 4.05e11, "v5p:6144", 1),
    ("decoder_only", 4.05e11, "v5p:8x16x16", 3),
    ("decoder_only", 8e9, "v5p:6144", 1),
    ("decoder_only/mixtral_8x7b", 4.7e10, "h100:64", 1),
    ("decoder_only/mixtral_8x7b", 4.7e10, "v5p:6144", 1),
    ("encoder_only/bert_large", 3.4e8, "h100:8", 1),
    ("encoder_decoder/t5_large", 8e8, "v6e:256", 1),
]


@pytest.mark.parametrize(
    ("preset", "params", "chips", "slices"),
    PLANS,
    ids=[f"{preset}-{params:g}-{slices}x{chips}" for preset, params, chips, slices in PLANS],
)
def test_a_plan_fits_divides_and_says_why(preset, params, chips, slices):
    topology = parse_topology(chips, slices)
    machine = parse_chips(f"{chips.partition(':')[0]}:{topology.num_chips}")
    plan = make_plan(
        Budget(kind="params", value=params),
        template=PRESETS[preset](),
        hardware=machine,
        topology=topology,
    )
    c, mesh, t = plan.config, plan.config.mesh, plan.config.training
    assert total_params(c.model) == pytest.approx(params, rel=0.15)
    assert mesh.num_devices == topology.num_devices
    assert mesh.replica == slices
    assert needed_bytes(c, machine).total <= 0.9 * machine.memory_bytes
    row_shards = mesh.rules.shards("batch", mesh.axis_sizes)
    assert t.batch_size % (row_shards * t.num_microbatches) == 0

    rules = {rule.field: rule for rule in plan.rules}
    assert set(axes(mesh)) - {"data", "fsdp"} == {
        field.removeprefix("mesh.") for field in rules if field.startswith("mesh.")
    }
    assert ("model.remat" in rules) == (c.model.remat != "none")
    assert rules["training.num_microbatches"].value == t.num_microbatches
    if mesh.num_devices > 1:
        bound = tokens_to_hide_gathers(c, topology)
        tokens = c.batch_tokens / t.num_microbatches / mesh.num_devices
        reason = rules["mesh"].rule
        assert ("replicated" in reason) == (bound == 0)
        assert ("above" in reason) == (tokens >= bound > 0)
        if "waited for" in reason:
            assert tokens < bound


def test_the_bound_on_tokens_is_peak_over_the_bandwidth_that_the_axis_has():
    """v5p: 459 TFLOP/s over six links of 90 GB/s are 850 tokens; over two of them 2,550."""
    ring = replace(RUN, mesh=MeshConfig(fsdp=64), training=TrainingConfig(batch_size=64))
    cube = parse_topology("v5p:4x4x4")
    assert tokens_to_hide_gathers(ring, cube) == pytest.approx(850 * 63 / 64, rel=1e-3)
    narrow = replace(ring, mesh=MeshConfig(data=16, fsdp=4))
    assert tokens_to_hide_gathers(narrow, cube) == pytest.approx(2550 * 3 / 4, rel=1e-3)
    assert tokens_to_hide_gathers(replace(ring, mesh=MeshConfig(data=64)), cube) == 0
    # Hosts of GPUs meet over a network nine times slower than their switch.
    wide = replace(RUN, mesh=MeshConfig(fsdp=16), training=TrainingConfig(batch_size=16))
    inside = replace(wide, mesh=MeshConfig(data=2, fsdp=8))
    hosts = parse_topology("h100:2x8")
    assert tokens_to_hide_gathers(inside, hosts) == pytest.approx(989e12 / 450e9 * 7 / 8)
    assert tokens_to_hide_gathers(wide, hosts) == pytest.approx(
        989e12 * (7 / 8 / 450e9 + 1 / 2 / 8 / 50e9)
    )


def plan_of(params: float, chips: str, **constraints):
    return make_plan(
        Budget(kind="params", value=params),
        template=PRESETS["decoder_only"](),
        hardware=parse_chips(chips),
        constraints=Constraints(**constraints),
    )


def test_rows_that_are_too_few_are_shared_and_the_batch_does_not_grow():
    """8B: the batch rule asks for a sixth of a row a chip of a pod."""
    few, many = plan_of(8e9, "v5p:64").config, plan_of(8e9, "v5p:6144").config
    assert few.mesh.sequence == few.mesh.tensor == 1
    assert many.mesh.sequence * many.mesh.tensor > 1
    assert many.batch_tokens <= 1.05 * few.batch_tokens * 4 / 3  # one was rounded to rows a chip
    assert many.batch_tokens >= 0.7 * few.batch_tokens


def test_a_batch_that_has_to_grow_says_by_how_much():
    plan = plan_of(3e7, "v5p:6144")
    rule = next(rule.rule for rule in plan.rules if rule.field == "training.batch_size")
    most = axis_limits(plan.config.model, plan.config.lengths)
    assert "times the rule's" in rule and f"at most {most.tensor * most.sequence} devices" in rule


def test_no_stronger_rematerialisation_than_memory_asks_for():
    """Less memory never makes a step quicker, and with plenty nothing is computed again."""
    budget, template = Budget(kind="params", value=1e9), PRESETS["decoder_only"]()
    topology, seconds = parse_topology("h200:8"), []
    for memory in (141e9, 24e9, 10e9, 5e9):
        machine = replace(parse_chips("h200:8"), memory_bytes=memory)
        plan = make_plan(budget, template=template, hardware=machine)
        assert needed_bytes(plan.config, machine).total <= 0.9 * memory
        seconds.append(step_seconds(plan.config, topology))
        if memory == 141e9:
            assert plan.config.model.remat == "none"
    for roomy, tight in pairwise(seconds):
        assert tight.total >= roomy.total / 1.01  # times within 1% are equal


def test_experts_are_cut_where_gathering_them_takes_longer_than_their_products():
    """Few tokens a chip: tokens are lighter than the kernels of eight experts."""
    machine = parse_chips("h100:64")
    mixture = PRESETS["decoder_only/mixtral_8x7b"]()
    light = replace(mixture, training=replace(mixture.training, batch_size=64, num_microbatches=1))
    chosen, rules = fit_in_memory(light, machine, topology=known_topology(machine))
    assert chosen.mesh.expert > 1
    assert "tokens travel" in next(rule.rule for rule in rules if rule.field == "mesh.expert")
