"""The strict resolver: every case that Flax would silently replicate is an error here."""

import dataclasses

import pytest

from configs.errors import InputError
from configs.sharding import DEFAULT_RULES, ShardingRules, resolve

AXES = {"replica": 1, "data": 2, "fsdp": 2, "expert": 3, "sequence": 1, "tensor": 4}


def test_each_dimension_gets_the_mesh_axes_its_rule_names():
    assert resolve(DEFAULT_RULES, ("embed", "heads", "head_dim"), (64, 8, 16), AXES) == (
        ("fsdp", "sequence"),
        ("tensor",),
        (),
    )


def test_several_mesh_axes_may_cut_one_dimension():
    assert resolve(DEFAULT_RULES, ("batch", "length"), (24, 7), AXES) == (
        ("replica", "data", "fsdp", "expert"),
        ("sequence",),
    )


def test_an_unnamed_dimension_stays_whole():
    assert resolve(DEFAULT_RULES, (None, "mlp"), (3, 8), AXES) == ((), ("tensor",))


def test_a_scalar_has_no_axes():
    assert resolve(DEFAULT_RULES, (), (), AXES) == ()


def test_shards_is_the_product_over_mesh_axes():
    assert DEFAULT_RULES.shards("batch", AXES) == 12
    assert DEFAULT_RULES.shards("length", AXES) == 1


@pytest.mark.parametrize(
    "rules, logical_axes, shape, axes, message",
    [
        (
            DEFAULT_RULES,
            ("embde",),
            (8,),
            AXES,
            "mesh.rules: got logical axis 'embde', expected one of batch, length",
        ),
        (
            ShardingRules(mlp=("model",)),
            ("mlp",),
            (8,),
            AXES,
            "mesh.rules: got mesh axis 'model', expected one of replica, data, fsdp, expert, "
            "sequence, tensor",
        ),
        (
            DEFAULT_RULES,
            ("heads", "mlp"),
            (8, 8),
            AXES,
            "mesh.rules.mlp: got mesh axis 'tensor', which already cuts 'heads'",
        ),
        (
            ShardingRules(batch=("data", "data")),
            ("batch",),
            (8,),
            AXES,
            "mesh.rules.batch: got mesh axis 'data', which already cuts 'batch'",
        ),
        (
            DEFAULT_RULES,
            ("embed",),
            (8, 8),
            AXES,
            "sharding: got 1 logical axes ('embed',) for shape (8, 8)",
        ),
        (
            DEFAULT_RULES,
            ("vocab",),
            (10,),
            AXES,
            "mesh.rules.vocab: got 4 shards for a dimension of 10, expected a divisor of 10",
        ),
        (
            DEFAULT_RULES,
            ("embed",),
            (8,),
            {},
            "mesh.rules: got mesh axis 'fsdp', expected one of",
        ),
    ],
    ids=[
        "unknown logical axis",
        "mesh axis not in the mesh",
        "one mesh axis on two dimensions",
        "one mesh axis twice on a dimension",
        "rank mismatch",
        "dimension that does not divide",
        "rules without a mesh",
    ],
)
def test_a_bad_sharding_is_refused(rules, logical_axes, shape, axes, message):
    with pytest.raises(InputError) as caught:
        resolve(rules, logical_axes, shape, axes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_every_rule_is_a_field_so_that_a_typo_cannot_pass():
    with pytest.raises(TypeError):
        ShardingRules(embedd=("fsdp",))  # type: ignore[call-arg]
    assert all(
        isinstance(getattr(DEFAULT_RULES, f.name), tuple) for f in dataclasses.fields(ShardingRules)
    )
