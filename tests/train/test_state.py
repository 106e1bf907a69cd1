"""Every optimizer's state is cut over the mesh like its parameters."""

from dataclasses import replace
from functools import cache
from math import prod
from typing import Any
from unittest import mock

import jax
import pytest

from configs.mlp_config import MoEConfig
from configs.objective_config import SpanCorruptionConfig
from configs.optimizer_config import (
    AdafactorConfig,
    AdamWConfig,
    CosineConfig,
    LionConfig,
    MuonConfig,
    OptimizerConfig,
    SGDConfig,
)
from configs.schema import MeshConfig, RunConfig
from model.build import abstract_params, param_shardings
from tests.model.samples import VARIANTS, tiny_model
from tests.train.samples import mesh_of, tiny_run
from train.state import TrainState, abstract_state, init_state

SCHEDULE = CosineConfig(warmup_steps=5)
OPTIMIZERS: dict[str, OptimizerConfig] = {
    "adamw": AdamWConfig(schedule=SCHEDULE),
    "muon": MuonConfig(schedule=SCHEDULE),
    "adafactor": AdafactorConfig(min_factored_dim=16),
    "adafactor, momentum": AdafactorConfig(min_factored_dim=16, momentum=0.9),
    "lion": LionConfig(schedule=SCHEDULE),
    "sgd": SGDConfig(schedule=SCHEDULE),
}
MOE = tiny_model(
    attention=replace(tiny_model().attention, num_kv_heads=4),
    mlp=MoEConfig(mlp_dim=48, num_experts=4),
)
MODELS = {"dense": None, "mixture": MOE, "two sides": replace(VARIANTS["t5"], vocab_size=64)}
MESHES = {
    "fsdp=8": MeshConfig(fsdp=8),
    "fsdp=2, tensor=2, data=2": MeshConfig(fsdp=2, tensor=2, data=2),
    "expert=2, fsdp=4": MeshConfig(expert=2, fsdp=4),
}


def run_with(optimizer: OptimizerConfig, **settings: Any) -> RunConfig:
    model = settings.get("model")
    if model is not None and model.architecture == "encoder_decoder":
        settings["objective"] = SpanCorruptionConfig()
    config = tiny_run(**settings)
    return replace(config, optimizer=replace(optimizer, clip_norm=0.0))


# Tracing a model takes most of the time, and it is the same under every optimizer.
TRACED_ONCE: Any = {
    "abstract_params": cache(abstract_params),
    "param_shardings": cache(param_shardings),
}


@cache
def abstract_of(config: RunConfig) -> TrainState:
    with mock.patch.multiple("train.state", **TRACED_ONCE):
        return abstract_state(config, mesh_of(config))


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("model", MODELS)
def test_no_state_the_size_of_a_parameter_is_whole_where_the_parameter_is_cut(model, mesh):
    for kind, optimizer in OPTIMIZERS.items():
        config = run_with(optimizer, model=MODELS[model], mesh=MESHES[mesh])
        state = abstract_of(config)
        params = _by_path(state.params)
        followed = set()
        for path, leaf in _by_path(state.opt_state).items():
            piece = leaf.sharding.shard_shape(leaf.shape)
            names = next((p for p in params if path[-len(p) :] == p), None)
            if names is None:  # counters, Muon's coefficients
                assert leaf.size <= 3 and leaf.sharding.is_fully_replicated
                continue
            param, whole_piece = params[names], _piece(params[names])
            followed.add(names)
            # Along every axis they share, cut as the parameter is; the others have size 1.
            for n, own, theirs, cut in zip(
                leaf.shape, piece, param.shape, whole_piece, strict=True
            ):
                assert (n, own) in ((theirs, cut), (1, 1)), (kind, path)
            if prod(leaf.shape) == prod(param.shape):
                assert piece == whole_piece, (kind, path)
        assert followed == set(params), kind


def _by_path(tree: Any) -> dict[tuple[str, ...], Any]:
    return {
        tuple(str(getattr(key, "key", getattr(key, "name", ""))) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _piece(leaf: Any) -> tuple[int, ...]:
    return leaf.sharding.shard_shape(leaf.shape)


def test_rows_are_cut_like_inputs_and_columns_like_outputs():
    mesh = MeshConfig(fsdp=2, tensor=2, data=2)
    config = run_with(OPTIMIZERS["adafactor"], mesh=mesh)
    state = _by_path(abstract_state(config, mesh_of(config)).opt_state)
    attention = ("decoder", "layers", "attention")

    def piece(field: str, *names: str) -> tuple[int, ...]:
        ending = (field, *attention, *names, "kernel")
        return next(_piece(leaf) for path, leaf in state.items() if path[-len(ending) :] == ending)

    assert piece("rows", "query") == (2, 16, 1, 1)  # D over fsdp
    assert piece("columns", "query") == (2, 1, 2, 8)  # heads over tensor
    assert piece("rows", "out") == (2, 2, 8, 1)
    assert piece("columns", "out") == (2, 1, 1, 16)


@pytest.mark.slow
def test_a_fresh_state_has_the_shardings_that_were_promised():
    config = run_with(OPTIMIZERS["adafactor"], mesh=MeshConfig(fsdp=4, tensor=2))
    mesh = mesh_of(config)
    state, promised = init_state(config, mesh), abstract_state(config, mesh)
    for x, a in zip(jax.tree.leaves(state), jax.tree.leaves(promised), strict=True):
        assert (x.shape, x.dtype) == (a.shape, a.dtype)
        assert x.sharding.is_equivalent_to(a.sharding, x.ndim)
