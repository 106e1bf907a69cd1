"""Activations against PyTorch; which variants have a gate and biases."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs.mlp_config import (
    GEGLUConfig,
    GELUConfig,
    MLPConfig,
    MoEConfig,
    ReLUConfig,
    SquaredReLUConfig,
    SwiGLUConfig,
)
from model.build import abstract_params
from model.mlp import MLPS, activation
from tests.model.samples import tiny_model

X = np.linspace(-6.0, 6.0, 241, dtype=np.float32)


@pytest.mark.parametrize(
    ("config", "theirs"),
    [
        (GELUConfig(gelu="exact"), lambda F, x: F.gelu(x)),
        (GELUConfig(gelu="tanh"), lambda F, x: F.gelu(x, approximate="tanh")),
        (GEGLUConfig(gelu="exact"), lambda F, x: F.gelu(x)),
        (GEGLUConfig(gelu="tanh"), lambda F, x: F.gelu(x, approximate="tanh")),
        (SwiGLUConfig(), lambda F, x: F.silu(x)),
        (ReLUConfig(), lambda F, x: F.relu(x)),
        (SquaredReLUConfig(), lambda F, x: F.relu(x) ** 2),
    ],
    ids=lambda value: (
        f"{value.kind}, {getattr(value, 'gelu', '')}" if hasattr(value, "kind") else ""
    ),
)
def test_activations_are_those_of_torch(config, theirs):
    torch = pytest.importorskip("torch")
    expected = theirs(torch.nn.functional, torch.tensor(X)).numpy()
    # Another polynomial for erf, tanh and exp: a few units of the last place of values up to 6;
    # in the exact GELU's left tail torch's 1 + erf cancels, which leaves it off by 6 * 1e-7.
    np.testing.assert_allclose(activation(config)(jnp.asarray(X)), expected, rtol=1e-6, atol=6e-7)


def test_the_two_gelus_differ():
    exact, tanh = (activation(GELUConfig(gelu=kind))(jnp.asarray(X)) for kind in ("exact", "tanh"))
    assert 1e-4 < np.abs(np.asarray(exact) - np.asarray(tanh)).max() < 1e-3


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SwiGLUConfig(mlp_dim=48), {"gate", "up", "down"}),
        (GEGLUConfig(mlp_dim=48), {"gate", "up", "down"}),
        (GELUConfig(mlp_dim=48), {"up", "down"}),
        (ReLUConfig(mlp_dim=48), {"up", "down"}),
        (SquaredReLUConfig(mlp_dim=48), {"up", "down"}),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_only_gated_variants_have_a_gate(config: MLPConfig, expected: set[str]):
    mlp = abstract_params(tiny_model(mlp=config))["decoder"]["layers"]["mlp"]
    assert set(mlp) == expected
    for kernel in mlp.values():
        assert set(kernel) == ({"kernel", "bias"} if config.kind == "gelu" else {"kernel"})


def test_every_member_of_the_union_has_a_module():
    assert set(MLPS) == {*MLPConfig.__args__}
    assert MoEConfig in MLPS
