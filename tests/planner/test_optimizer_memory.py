"""Elements of optimizer state, counted from the config, are those of the state that is built."""

import math

import jax
import jax.numpy as jnp
import pytest

from configs.errors import InputError
from configs.optimizer_config import AdafactorConfig, SGDConfig
from configs.schema import MeshConfig
from configs.sharding import ShardingRules
from planner.optimizer_memory import state_elements
from planner.parameters import total_params
from tests.train.samples import tiny_run
from tests.train.test_state import MESHES, MODELS, OPTIMIZERS, SCHEDULE, abstract_of, run_with

ALL = OPTIMIZERS | {
    "adafactor, not factored": AdafactorConfig(),
    "sgd, no momentum": SGDConfig(momentum=0.0, schedule=SCHEDULE),
}


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("model", MODELS)
def test_elements_per_device_are_exact_for_every_optimizer(model, mesh):
    for kind, optimizer in ALL.items():
        config = run_with(optimizer, model=MODELS[model], mesh=MESHES[mesh])
        state = abstract_of(config).opt_state
        held = sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape))
            for path, leaf in jax.tree_util.tree_leaves_with_path(state)
            if leaf.dtype == jnp.float32 and "ns_coeffs" not in jax.tree_util.keystr(path)
        )
        assert state_elements(config) == held, kind


def test_what_each_optimizer_costs_on_one_device():
    run = {kind: state_elements(run_with(optimizer)) for kind, optimizer in ALL.items()}
    params = total_params(tiny_run().model)
    assert run["adamw"] == 2 * params
    assert params < run["muon"] < 2 * params
    assert run["lion"] == run["sgd"] == run["adafactor, not factored"] == params
    assert run["sgd, no momentum"] == 0
    assert run["adafactor"] < 0.1 * params
    assert run["adafactor, momentum"] == run["adafactor"] + params


def test_rules_that_cut_a_parameter_twice_with_one_axis_are_refused():
    mesh = MeshConfig(fsdp=2, rules=ShardingRules(heads=("fsdp",)))
    with pytest.raises(InputError, match="which already cuts 'embed'"):
        state_elements(run_with(ALL["adamw"], mesh=mesh))
