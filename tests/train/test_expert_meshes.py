"""Experts spread over eight devices train as on one, and are really spread.

Loss within 1e-6, every gradient leaf within 1e-5 of its norm, in fp32: sums over rows, widths and
a token's experts are added up in another order, nothing else differs.
"""

import re
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from configs.errors import InputError
from configs.mlp_config import MoEConfig
from configs.model_config import AttentionConfig
from configs.schema import MeshConfig, RunConfig
from configs.sharding import ShardingRules
from model.build import param_shardings
from model.expert_parallel import expert_axes
from tests.model.samples import QUICK_COMPILE, assert_trees_close, random_params, tiny_model
from tests.train.samples import ONE_DEVICE, mesh_of, random_batch, tiny_run
from train.feed import put_batch
from train.step import batch_sharding, make_gradients

MESHES = {
    "expert=8": MeshConfig(expert=8),
    "expert=4, data=2": MeshConfig(expert=4, data=2),
    "expert=2, tensor=2, fsdp=2": MeshConfig(expert=2, tensor=2, fsdp=2),
    "data=8": MeshConfig(data=8),
}
DROPLESS = MoEConfig(mlp_dim=16, num_experts=8, experts_per_token=2)
CAPACITY = replace(DROPLESS, dispatch="capacity", capacity_factor=1.0)


class Gradients(NamedTuple):
    """Mean loss with the auxiliary ones apart, the gradient, and the compiled program's text."""

    loss: float
    auxiliary: float
    gradient: Any
    hlo: str


def moe_run(mlp: MoEConfig, mesh: MeshConfig, **model: Any) -> RunConfig:
    attention = AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=8)
    return tiny_run(mesh=mesh, model=tiny_model(attention=attention, mlp=mlp, **model))


def padded_batch(config: RunConfig) -> Any:
    """The usual batch, the ends of some rows padding."""
    batch = random_batch(config)
    is_padding = np.arange(16) >= np.array([16, 13, 16, 9, 16, 16, 2, 16])[:, None]
    return batch._replace(
        segment_ids=np.where(is_padding, 0, batch.segment_ids).astype(np.int32),
        loss_weights=np.where(is_padding, 0, batch.loss_weights).astype(np.float32),
    )


@cache
def gradients_on(mlp: MoEConfig, mesh_config: MeshConfig, scanned: bool = False) -> Gradients:
    changes = {"scan_layers": True, "remat": "full"} if scanned else {}
    config = moe_run(mlp, mesh_config, **changes)
    mesh = mesh_of(config)
    shardings = param_shardings(config.model, mesh, config.mesh.rules)
    params = jax.tree.map(
        lambda x, s: jax.device_put(np.array(x), s), random_params(config.model), shardings
    )
    batch = put_batch(padded_batch(config), batch_sharding(config, mesh))
    step = jax.jit(make_gradients(config, mesh), out_shardings=(shardings, None))
    compiled = step.lower(params, batch).compile(QUICK_COMPILE)
    gradient, sums = compiled(params, batch)
    weight = float(sums.weight)
    hlo = compiled.as_text()
    assert hlo is not None
    auxiliary = float(sums.auxiliary) / weight
    return Gradients(float(sums.cross_entropy) / weight, auxiliary, gradient, hlo)


@pytest.fixture(params=MESHES)
def mesh_config(request) -> MeshConfig:
    return MESHES[request.param]


@pytest.mark.parametrize("mlp", [DROPLESS, CAPACITY], ids=["dropless", "capacity"])
def test_losses_and_gradients_equal_those_of_one_device(mlp, mesh_config):
    one, eight = gradients_on(mlp, ONE_DEVICE), gradients_on(mlp, mesh_config)
    assert eight.loss == pytest.approx(one.loss, rel=1e-6)
    assert eight.auxiliary == pytest.approx(one.auxiliary, rel=1e-6)
    assert one.auxiliary > 1e-2  # two layers' balance loss is at least twice its weight
    assert_trees_close(eight.gradient, one.gradient, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["expert=8", "expert=2, tensor=2, fsdp=2"])
def test_scanned_and_rematerialised_they_are_the_same(name):
    one, eight = gradients_on(DROPLESS, ONE_DEVICE), gradients_on(DROPLESS, MESHES[name], True)
    assert eight.loss == pytest.approx(one.loss, rel=1e-6)
    assert_trees_close(eight.gradient, one.gradient, 1e-5)


def test_each_device_takes_and_multiplies_its_own_experts_only(mesh_config):
    hlo = gradients_on(DROPLESS, mesh_config).hlo
    m = mesh_config
    experts, width, mlp = 8 // m.expert, 32 // m.fsdp, 16 // m.tensor
    arguments = re.search(r"entry_computation_layout=\{\((.*?)\)->", hlo, re.DOTALL)
    assert arguments
    wide, narrow = f"f32[2,{experts},{width},{mlp}]", f"f32[2,{experts},{mlp},{width}]"
    # Two layers of gate and up, and of down; of equal shape where width and mlp are equal.
    found = re.findall(r"[a-z]+\d+\[[\d,]*\]", arguments[1])
    same = 3 if wide == narrow else 0
    assert found.count(wide) == (same or 2) and found.count(narrow) == (same or 1)
    # Kernels are gathered along the width, never along experts or MLP; tokens have two axes.
    gathered = re.findall(r"f32\[(\d+,\d+,\d+)\].* all-gather\(.*experts/shard_map", hlo)
    kernels = {tuple(sorted(map(int, shape.split(",")))) for shape in gathered}
    assert kernels == ({tuple(sorted((experts, 32, mlp)))} if m.fsdp > 1 else set())


def test_tokens_are_gathered_over_expert_devices_and_scattered_back():
    def collectives(name: str) -> set[str]:
        kinds = r"\b(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)\("
        return set(re.findall(kinds, gradients_on(DROPLESS, MESHES[name]).hlo))

    assert {"all-gather", "reduce-scatter"} <= collectives("expert=8")
    assert collectives("data=8") == {"all-reduce"}  # the gradients and the losses


def test_with_capacity_rows_and_experts_change_places():
    hlo = gradients_on(CAPACITY, MESHES["expert=8"]).hlo
    assert re.search(r"\ball-to-all\(", hlo)
    assert "all-to-all" not in gradients_on(CAPACITY, MESHES["data=8"]).hlo


def test_rules_that_would_compute_wrongly_or_in_vain_are_refused():
    mesh = mesh_of(moe_run(DROPLESS, MESHES["expert=2, tensor=2, fsdp=2"]))

    def axes(**rules: Any):
        return expert_axes(ShardingRules(**rules), mesh, (8, 16), (8, 32, 16))

    found = axes()
    assert (found.tokens, found.experts, found.embed, found.mlp) == (
        ("fsdp", "expert"),
        ("expert",),
        ("fsdp",),
        ("tensor",),
    )
    with pytest.raises(InputError, match=r"mesh\.rules\.embed: got \('tensor',\), expected axes"):
        axes(embed=("tensor",), mlp=())
    with pytest.raises(InputError, match=r"mesh\.rules\.mlp: got \('fsdp',\), expected axes"):
        axes(embed=(), mlp=("fsdp",))
    with pytest.raises(InputError, match=r"mesh\.rules\.mlp: got mesh axis 'expert', which alr"):
        axes(mlp=("expert",))
    with pytest.raises(
        InputError, match=r"mesh\.rules\.experts: got 2 shards for a dimension of 7"
    ):
        expert_axes(ShardingRules(), mesh, (8, 16), (7, 32, 16))


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(
            ShardingRules(experts=("tensor",), mlp=()), id="experts where tokens are whole"
        ),
        pytest.param(
            ShardingRules(batch=("data", "fsdp"), length=("expert",)),
            id="tokens cut along the row",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ShardingRules(experts=("fsdp", "expert"), embed=()),
            id="experts over two axes",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_other_rules_compute_the_same(rules):
    one = gradients_on(DROPLESS, ONE_DEVICE)
    eight = gradients_on(DROPLESS, MeshConfig(expert=2, tensor=2, fsdp=2, rules=rules))
    assert eight.loss == pytest.approx(one.loss, rel=1e-6)
    assert_trees_close(eight.gradient, one.gradient, 1e-5)
