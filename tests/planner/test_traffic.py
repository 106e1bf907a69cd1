"""Planned collectives against those of compiled programs, and what they add up to."""

from dataclasses import replace

import pytest

from configs.presets import PRESETS
from configs.schema import MeshConfig, RunConfig
from configs.sharding import ShardingRules
from planner.topology import parse_topology
from planner.traffic import planned_traffic, step_seconds


def four_layers(**mesh) -> RunConfig:
    """Llama 3.2 1B of four layers, 32 rows of 2,048 in two microbatches."""
    c = PRESETS["decoder_only/llama3_2_1b"]()
    return replace(
        c,
        model=replace(c.model, num_layers=4, remat="full"),
        data=replace(c.data, seq_len=2048),
        training=replace(c.training, batch_size=32, num_microbatches=2),
        mesh=MeshConfig(**mesh),
    )


# GB of one device by `isoflop compile … --topology v5p:2x2x2`, libtpu 0.0.42.1; of a gradient's
# reduce-scatter over all of one slice the compiler makes permutes, so it is left out.
COMPILED = [
    ({"data": 8}, "all-reduce", ("data",), 3.0746),
    ({"fsdp": 8}, "all-gather", ("fsdp",), 2.9971),
    ({"fsdp": 8}, "all-reduce", ("fsdp",), 1.0508),
    ({"data": 2, "fsdp": 4}, "all-gather", ("fsdp",), 2.9970),
    ({"replica": 2, "fsdp": 4}, "all-reduce", ("replica",), 0.7687),  # two slices of 2x2x1
    ({"replica": 2, "fsdp": 4}, "reduce-scatter", ("fsdp",), 0.9899),
    ({"fsdp": 4, "tensor": 2}, "all-gather", ("fsdp",), 1.4987),
    ({"fsdp": 4, "tensor": 2}, "all-reduce", ("tensor",), 1.4766),
    ({"fsdp": 4, "sequence": 2}, "all-gather", ("fsdp", "sequence"), 2.9971),
    ({"fsdp": 4, "sequence": 2}, "all-gather", ("sequence",), 0.2688),
    ({"fsdp": 4, "sequence": 2}, "reduce-scatter", ("sequence",), 0.1342),
]


@pytest.mark.parametrize(("mesh", "kind", "axes", "gigabytes"), COMPILED)
def test_payloads_are_those_of_compiled_programs(mesh, kind, axes, gigabytes):
    found = {(part.kind, part.axes): part for part in planned_traffic(four_layers(**mesh))}
    # Of tensor's sums the compiler merges some; it scatters some small arrays, too.
    tolerance = {("tensor",): 0.1}.get(axes, 0.02 if kind == "reduce-scatter" else 0.002)
    assert found[kind, axes].payload_bytes / 1e9 == pytest.approx(gigabytes, rel=tolerance)


def test_one_device_sends_nothing():
    assert planned_traffic(four_layers()) == ()


def test_a_cut_residual_turns_sums_into_gathers_and_scatters():
    rules = ShardingRules(residual_length=("sequence", "tensor"))
    parts = planned_traffic(four_layers(fsdp=4, tensor=2, rules=rules))
    kinds = {part.kind for part in parts if part.axes == ("tensor",)}
    assert kinds == {"all-gather", "reduce-scatter"}


def test_a_step_takes_the_longer_of_products_and_kernels_and_all_of_activations():
    config = four_layers(fsdp=4, tensor=2)
    seconds = step_seconds(config, parse_topology("v5p:2x2x2"))
    assert seconds.activations == seconds.by_axes["tensor"] > 0
    longest = max(seconds.products, seconds.parameters_by_axes["fsdp"])
    assert seconds.total == longest + seconds.activations
    assert 0 < seconds.mfu == seconds.model / seconds.total < 1


def test_rows_cut_under_a_causal_mask_make_the_last_device_compute_more():
    topology = parse_topology("v5p:2x2x2")
    even = step_seconds(four_layers(fsdp=8), topology)
    uneven = step_seconds(four_layers(fsdp=4, sequence=2), topology)
    assert uneven.products > even.products
    assert uneven.model == even.model
