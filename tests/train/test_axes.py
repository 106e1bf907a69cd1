"""Every mesh axis alone, and every pair of them, against one device: the dense model and a mixture.

In fp32 the first loss within 1e-6, each gradient leaf within 1e-5 (norm of the difference over the
norm), ten losses within 1e-5: sums are only added up in another order.
"""

from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from configs.mlp_config import MoEConfig
from configs.model_config import AttentionConfig
from configs.schema import MeshConfig, RunConfig
from configs.sharding import MESH_AXES, ShardingRules
from tests.model.samples import assert_trees_close, tiny_model
from tests.train.samples import ONE_DEVICE, tiny_run
from tests.train.test_meshes import Trained, train_with


def mesh_along(**sizes: Any) -> MeshConfig:
    return MeshConfig(**sizes)


# Heads, widths, experts, rows and lengths of the samples divide by four.
ALONE = {axis: mesh_along(**{axis: 4}) for axis in MESH_AXES}
PAIRS = {
    f"{one} and {other}": mesh_along(**{one: 2, other: 4})
    for one, other in combinations(MESH_AXES, 2)
}
ATTENTION = AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=8)


def dense(mesh: MeshConfig) -> RunConfig:
    return tiny_run(mesh=mesh)


def mixture(mesh: MeshConfig) -> RunConfig:
    """Four experts, two for each token; balance counts in the loss."""
    mlp = MoEConfig(mlp_dim=48, num_experts=4, experts_per_token=2)
    return tiny_run(mesh=mesh, model=tiny_model(attention=ATTENTION, mlp=mlp, tie_embeddings=True))


@cache
def on_one_device(sample: str) -> Trained:
    return train_with(SAMPLES[sample](ONE_DEVICE))


SAMPLES = {"dense": dense, "mixture": mixture}


def assert_trains_as_on_one_device(sample: str, config: RunConfig) -> None:
    one, many = on_one_device(sample), train_with(config)
    assert many.losses[0] == pytest.approx(one.losses[0], rel=1e-6)
    assert_trees_close(many.gradient, one.gradient, 1e-5)
    np.testing.assert_allclose(many.losses, one.losses, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ALONE)
def test_an_axis_alone_changes_nothing(axis):
    assert_trains_as_on_one_device("dense", dense(ALONE[axis]))


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_a_pair_of_axes_changes_nothing(pair):
    assert_trains_as_on_one_device("dense", dense(PAIRS[pair]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["expert", *(name for name in PAIRS if "expert" in name.split(" and "))]
)
def test_a_mixture_of_experts_is_the_same_however_it_is_cut(name):
    assert_trains_as_on_one_device("mixture", mixture((ALONE | PAIRS)[name]))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [MeshConfig(tensor=4), MeshConfig(sequence=2, tensor=4)])
def test_the_residual_may_be_cut_along_the_length_by_tensor_too(mesh):
    rules = ShardingRules(residual_length=("sequence", "tensor"))
    assert_trains_as_on_one_device("dense", dense(replace(mesh, rules=rules)))


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["attention", "dots", "full"])
def test_what_is_computed_again_changes_nothing_on_a_mesh(remat):
    config = dense(MeshConfig(fsdp=2, sequence=2, tensor=2))
    model = replace(config.model, remat=remat, scan_layers=True)
    assert_trains_as_on_one_device("dense", replace(config, model=model))
