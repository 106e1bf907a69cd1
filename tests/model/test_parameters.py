"""Which parameters there are, how they are cut, and how many of them multiply a token."""

import jax
import pytest
from jax.sharding import PartitionSpec as P

from configs.mlp_config import MoEConfig
from configs.model_config import NoHeadConfig
from configs.schema import MeshConfig
from model.build import abstract_params, count_matmul_params, count_params, param_shardings
from planner.parameters import matmul_params, total_params
from tests.model.samples import VARIANTS, tiny_model
from tests.planner.samples import random_model
from train.mesh import make_mesh


@pytest.mark.parametrize("seed", range(3))
def test_counts_of_the_tree_are_the_planners(seed):
    config = random_model(seed)
    params = abstract_params(config)
    assert total_params(config) == count_params(params)
    assert matmul_params(config) == count_matmul_params(params, config)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_tied_models_have_no_head(tie_embeddings):
    params = abstract_params(tiny_model(tie_embeddings=tie_embeddings))
    assert ("head" in params) != tie_embeddings


def test_sides_are_named_for_what_they_are():
    assert {"encoder", "decoder"} & set(abstract_params(VARIANTS["bert"])) == {"encoder"}
    assert {"encoder", "decoder"} & set(abstract_params(VARIANTS["gpt2"])) == {"decoder"}
    t5 = abstract_params(VARIANTS["t5"])
    assert {"encoder", "decoder"} <= set(t5)
    assert "cross_attention" in t5["decoder"]["layers"]
    assert "cross_attention" not in t5["encoder"]["layers"]
    assert all("relative_bias" in t5[side] for side in ("encoder", "decoder"))


def test_post_norm_has_no_final_norm_and_sandwich_has_two_a_sublayer():
    assert "final_norm" not in abstract_params(VARIANTS["bert"])["encoder"]
    layers = abstract_params(VARIANTS["gemma2"])["decoder"]["layers"]
    assert {"attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm"} <= set(layers)


def test_a_token_multiplies_its_own_experts_alone_and_no_table_without_a_head():
    config = tiny_model(mlp=MoEConfig(mlp_dim=48, num_experts=4, experts_per_token=2))
    dense = tiny_model()
    difference = count_matmul_params(abstract_params(config), config) - count_matmul_params(
        abstract_params(dense), dense
    )
    assert difference == 2 * 3 * 32 * 48 + 2 * 32 * 4  # a second expert and a router a layer
    bare = tiny_model(head=NoHeadConfig(), tie_embeddings=True)
    assert count_matmul_params(abstract_params(dense), dense) - 64 * 32 == count_matmul_params(
        abstract_params(bare), bare
    )


def test_parameters_are_cut_as_their_logical_axes_say():
    config = tiny_model()
    mesh_config = MeshConfig(data=2, fsdp=2, tensor=2)
    shardings = param_shardings(config, make_mesh(mesh_config), mesh_config.rules)
    attention = shardings["decoder"]["layers"]["attention"]
    assert shardings["token_embedding"]["embedding"].spec == P("tensor", "fsdp")
    assert attention["query"]["kernel"].spec == P(None, "fsdp", "tensor", None)
    assert attention["out"]["kernel"].spec == P(None, "tensor", None, "fsdp")
    down = shardings["decoder"]["layers"]["mlp"]["down"]
    assert down["kernel"].spec == P(None, "tensor", "fsdp")
    assert shardings["decoder"]["final_norm"]["scale"].spec == P(None)


def test_biases_and_tables_are_cut_along_with_what_they_are_added_to():
    mesh_config = MeshConfig(data=2, fsdp=2, tensor=2)
    mesh = make_mesh(mesh_config)
    bart, t5 = (param_shardings(VARIANTS[n], mesh, mesh_config.rules) for n in ("bart", "t5"))
    attention = bart["decoder"]["layers"]["cross_attention"]
    assert attention["key"]["bias"].spec == P(None, "tensor", None)
    assert attention["out"]["bias"].spec == P(None, None)
    assert bart["decoder"]["layers"]["mlp"]["up"]["bias"].spec == P(None, "tensor")
    assert bart["head"]["bias"].spec == P("tensor")
    assert bart["decoder_embedding"]["position"]["embedding"].spec == P(None, "fsdp")
    assert t5["encoder"]["relative_bias"]["embedding"].spec == P(None, "tensor")
    assert jax.tree.all(jax.tree.map(lambda s: s.mesh == mesh, (bart, t5)))
