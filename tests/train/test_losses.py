"""Cross-entropy and z-loss against NumPy, and their gradients; in chunks against whole logits."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.schema import MeshConfig
from model.constrain import UNCONSTRAINED, Constrain
from model.head import Readout
from tests.model.samples import relative_difference
from train import losses
from train.losses import Scored, chunked_cross_entropy, cross_entropy_sums, score_readout
from train.mesh import make_mesh

B, L, V = 2, 3, 5


@pytest.fixture(scope="module")
def example():
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((B, L, V))).astype(np.float32)
    targets = rng.integers(0, V, (B, L), dtype=np.int32)
    weights = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 1.0]], np.float32)
    return logits, targets, weights


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits.astype(np.float64))
    return exponents / exponents.sum(-1, keepdims=True)


def test_sums_equal_numpy(example):
    logits, targets, weights = example
    sums = cross_entropy_sums(*map(jnp.asarray, example))
    of_target = np.take_along_axis(softmax(logits), targets[..., None], axis=-1)[..., 0]
    log_normaliser = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    assert sums.cross_entropy == pytest.approx(-(weights * np.log(of_target)).sum(), rel=1e-6)
    assert sums.z_loss == pytest.approx((weights * log_normaliser**2).sum(), rel=1e-6)
    assert float(sums.weight) == 3.5


def test_gradients_equal_numpy(example):
    logits, targets, weights = example

    def gradient_of(field: str) -> np.ndarray:
        def loss(x: jax.Array) -> jax.Array:
            sums = cross_entropy_sums(x, jnp.asarray(targets), jnp.asarray(weights))
            return getattr(sums, field)

        return np.asarray(jax.grad(loss)(jnp.asarray(logits)))

    probabilities, one_hot = softmax(logits), np.eye(V)[targets]
    np.testing.assert_allclose(
        gradient_of("cross_entropy"), weights[..., None] * (probabilities - one_hot), atol=1e-6
    )
    log_normaliser = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    expected = weights[..., None] * 2 * log_normaliser[..., None] * probabilities
    np.testing.assert_allclose(gradient_of("z_loss"), expected, atol=2e-6)


def test_uniform_logits_cost_the_log_of_the_vocabulary():
    sums = cross_entropy_sums(
        jnp.full((1, 4, 8), 2.5), jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4))
    )
    assert sums.cross_entropy / sums.weight == pytest.approx(np.log(8), rel=1e-6)


def test_huge_logits_stay_finite():
    logits = jnp.asarray([[[1e4, -1e4, 0.0]]])
    sums = cross_entropy_sums(logits, jnp.asarray([[1]], jnp.int32), jnp.ones((1, 1)))
    assert float(sums.cross_entropy) == 2e4


def test_no_weight_gives_sums_of_zero():
    sums = cross_entropy_sums(jnp.zeros((1, 4, 8)), jnp.zeros((1, 4), jnp.int32), jnp.zeros((1, 4)))
    assert tuple(map(float, sums)) == (0.0, 0.0, 0.0, 0.0)


class Case(NamedTuple):
    """A readout and what it is judged by: T = 2 · 12 tokens, D = 8, V = 16."""

    readout: Readout
    targets: jax.Array
    weights: jax.Array


def case(*, has_bias: bool = False, softcap: float = 0.0) -> Case:
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    bias = normal(16) if has_bias else None
    targets = jnp.asarray(rng.integers(0, 16, (2, 12)), jnp.int32)
    weights = jnp.asarray(rng.random((2, 12)) * (rng.random((2, 12)) < 0.7), jnp.float32)
    return Case(Readout(normal(2, 12, 8), normal(8, 16), bias, softcap), targets, weights)


def with_parts(readout: Readout, parts: Any) -> Readout:
    """Other features, kernel and bias."""
    features, kernel, bias = parts
    return Readout(features, kernel, bias, readout.softcap)


def whole_logits(readout: Readout) -> jax.Array:
    logits = readout.features_BLD @ readout.kernel_DV
    if readout.bias_V is not None:
        logits = logits + readout.bias_V[None, None, :]
    return readout.softcap * jnp.tanh(logits / readout.softcap) if readout.softcap else logits


def plainly(of: Case) -> Any:
    def loss(parts: Any) -> tuple[jax.Array, Any]:
        logits = whole_logits(with_parts(of.readout, parts))
        sums = cross_entropy_sums(logits, of.targets, of.weights)
        return sums.cross_entropy + 0.1 * sums.z_loss, sums

    return jax.value_and_grad(loss, has_aux=True)(of.readout[:3])


def in_chunks(of: Case, chunk_tokens: int, constrain: Constrain = UNCONSTRAINED) -> Any:
    def loss(parts: Any) -> tuple[jax.Array, Any]:
        return chunked_cross_entropy(
            with_parts(of.readout, parts),
            of.targets,
            of.weights,
            z_loss=0.1,
            constrain=constrain,
            chunk_tokens=chunk_tokens,
        )

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(of.readout[:3])


# Sums over tokens and widths in another order.
CHUNKED: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("chunk_tokens", [24, 8, 7, 1])
def test_in_chunks_of_any_size_loss_and_gradients_are_those_of_whole_logits(chunk_tokens):
    of = case()
    jax.tree.map(
        partial(np.testing.assert_allclose, **CHUNKED), in_chunks(of, chunk_tokens), plainly(of)
    )


@pytest.mark.parametrize("changes", [{"has_bias": True}, {"has_bias": True, "softcap": 1.5}])
def test_biases_and_softcaps_are_differentiated_too(changes):
    of = case(**changes)
    jax.tree.map(partial(np.testing.assert_allclose, **CHUNKED), in_chunks(of, 5), plainly(of))


CUTS = {
    "rows and width": MeshConfig(data=2, fsdp=2),
    "vocabulary": MeshConfig(tensor=4, replica=2),
    "all": MeshConfig(fsdp=2, sequence=2, tensor=2),
}


@pytest.mark.parametrize("chunk_tokens", [24, 5])
@pytest.mark.parametrize("keeps", [True, False])
def test_in_bf16_the_gradient_is_that_of_fp32_up_to_rounding(keeps, chunk_tokens, monkeypatch):
    monkeypatch.setattr(losses, "_keeps_gradients", lambda tokens, kernel: keeps)
    of = case()
    (total, _), exact = plainly(of)
    features, kernel, _, _ = of.readout
    parts = (features.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), None)
    half = of._replace(readout=with_parts(of.readout, parts))
    (rounded_total, _), rounded = in_chunks(half, chunk_tokens)
    assert float(rounded_total) == pytest.approx(float(total), rel=1e-2)
    for a, b in zip(rounded[:2], exact[:2], strict=True):
        assert a.dtype == jnp.bfloat16
        # Eight bits of mantissa, rounded in operands and result.
        assert relative_difference(np.asarray(a, np.float32), np.asarray(b)) < 2e-2


@pytest.mark.parametrize(
    "name", ["all", *(pytest.param(n, marks=pytest.mark.slow) for n in CUTS if n != "all")]
)
def test_cut_over_a_mesh_loss_and_gradients_are_those_of_one_device(name):
    mesh = make_mesh(CUTS[name], jax.devices()[: CUTS[name].num_devices])
    of = case(has_bias=True, softcap=1.5)
    if name == "rows and width":  # four shards of rows
        of = Case(
            of.readout._replace(features_BLD=jnp.reshape(of.readout.features_BLD, (4, 6, 8))),
            jnp.reshape(of.targets, (4, 6)),
            jnp.reshape(of.weights, (4, 6)),
        )
    jax.tree.map(
        partial(np.testing.assert_allclose, **CHUNKED),
        in_chunks(of, 2, Constrain(mesh)),
        plainly(of),
    )

    @jax.jit
    def score(parts: Any) -> Scored:
        readout = with_parts(of.readout, parts)
        constrain = Constrain(mesh)
        return score_readout(readout, of.targets, of.weights, constrain=constrain, chunk_tokens=2)

    scored = score(of.readout[:3])
    likeliest = jnp.argmax(whole_logits(of.readout), axis=-1)
    np.testing.assert_array_equal(scored.is_correct_BL, likeliest == of.targets)
    np.testing.assert_allclose(
        scored.sums.cross_entropy, plainly(of)[0][1].cross_entropy, rtol=1e-5
    )


def test_the_gradient_is_scaled_by_what_it_is_passed_back():
    of = case()

    def doubled(parts: Any) -> jax.Array:
        readout = with_parts(of.readout, parts)
        total, _ = chunked_cross_entropy(
            readout, of.targets, of.weights, z_loss=0.1, constrain=UNCONSTRAINED, chunk_tokens=8
        )
        return 2.0 * total

    _, once = plainly(of)
    for twice, gradient in zip(jax.grad(doubled)(of.readout[:3])[:2], once[:2], strict=True):
        np.testing.assert_allclose(twice, 2 * gradient, **CHUNKED)


def test_of_several_likeliest_tokens_the_first_counts():
    readout = Readout(jnp.zeros((1, 2, 4)), jnp.zeros((4, 8)), None, 0.0)
    scored = score_readout(readout, jnp.array([[0, 3]]), jnp.ones((1, 2)), constrain=UNCONSTRAINED)
    np.testing.assert_array_equal(scored.is_correct_BL, [[True, False]])
