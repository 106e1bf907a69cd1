"""The mixture of experts against loops in NumPy, against transformers, and against itself.

Tolerance 1e-5 of the norm in fp32: sums over widths of 16 to 24 in another order.
"""

from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from configs.mlp_config import MoEConfig
from configs.model_config import ModelConfig
from model.constrain import UNCONSTRAINED
from model.initializers import Init
from model.moe import MoE, row_capacity
from tests.model.samples import QUICK_COMPILE, assert_trees_close, relative_difference

B, L, D, F, E, k = 2, 12, 16, 24, 4, 2
CONFIG = MoEConfig(mlp_dim=F, num_experts=E, experts_per_token=k)
DISPATCHES: tuple[Literal["dropless", "capacity"], ...] = ("dropless", "capacity")


class Sample(NamedTuple):
    """Activations [B, L, D], and which places hold a token."""

    x: np.ndarray
    is_token: np.ndarray


def sample(seed: int = 0) -> Sample:
    """The second row ends in three places of padding, which hold large numbers."""
    x = np.random.default_rng(seed).standard_normal((B, L, D)).astype(np.float32)
    is_token = np.ones((B, L), bool)
    is_token[1, -3:] = False
    x[~is_token] *= 100
    return Sample(x, is_token)


def random_params(config: MoEConfig = CONFIG, seed: int = 1) -> dict[str, Any]:
    rng, E = np.random.default_rng(seed), config.num_experts

    def kernel(*shape: int) -> dict[str, jax.Array]:
        return {"kernel": jnp.asarray(rng.standard_normal(shape) / 4, jnp.float32)}

    experts = {"gate": kernel(E, D, F), "up": kernel(E, D, F), "down": kernel(E, F, D)}
    return {"router": kernel(D, E), "experts": experts}


def moe(config: MoEConfig, dtype: str = "float32") -> MoE:
    return MoE(config, jnp.dtype(dtype), UNCONSTRAINED, Init(ModelConfig(emb_dim=D, mlp=config)))


@cache
def _apply(config: MoEConfig, dtype: str):
    def apply(params: Any, x: jax.Array, is_token: jax.Array):
        return moe(config, dtype).apply({"params": params}, x, is_token)

    return jax.jit(apply, compiler_options=QUICK_COMPILE)


def outputs(config: MoEConfig, params: Any, s: Sample, dtype: str = "float32") -> np.ndarray:
    return np.asarray(_apply(config, dtype)(params, jnp.asarray(s.x, dtype), s.is_token)[0])


def losses(config: MoEConfig, params: Any, s: Sample) -> dict[str, float]:
    return {name: float(x) for name, x in _apply(config, "float32")(params, *s)[1].items()}


@cache
def _gradient(config: MoEConfig):
    reading = np.random.default_rng(7).standard_normal((B, L, D)).astype(np.float32)

    def product(params: Any, x: jax.Array, is_token: jax.Array) -> jax.Array:
        y, of_router = moe(config).apply({"params": params}, x, is_token)  # type: ignore[misc]
        return jnp.sum(y * reading) + sum(of_router.values())

    return jax.jit(jax.grad(product, argnums=(0, 1)), compiler_options=QUICK_COMPILE)


def by_hand(
    config: MoEConfig,
    params: Any,
    s: Sample,
    dropped: frozenset[tuple[int, int, int]] = frozenset(),
) -> np.ndarray:
    """Token by token in float64; `dropped` choices (row, place, rank) contribute nothing."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    y = np.zeros(s.x.shape)
    for row, place in zip(*np.nonzero(s.is_token), strict=True):
        x = s.x[row, place].astype(np.float64)
        logits = x @ p["router"]["kernel"]
        chosen = np.argsort(-logits, kind="stable")[: config.experts_per_token]
        gates = np.exp(logits[chosen]) / np.exp(logits[chosen]).sum()
        for rank, (expert, gate) in enumerate(zip(chosen, gates, strict=True)):
            if (row, place, rank) not in dropped:
                y[row, place] += gate * expert_output(p["experts"], expert, x)
    return y


def expert_output(experts: Any, expert: int, x: np.ndarray) -> np.ndarray:
    gate, up, down = (np.asarray(experts[n]["kernel"][expert]) for n in ("gate", "up", "down"))
    before = x @ gate
    return (before * expit(before) * (x @ up)) @ down


def test_parameters_are_where_and_what_the_layout_says():
    def init() -> Any:
        # The field `init` hides the method of that name.
        return nn.init(lambda module, *inputs: module(*inputs), moe(CONFIG))(
            jax.random.key(0), *map(jnp.asarray, sample())
        )

    boxes = jax.eval_shape(init)["params"]
    wide, narrow = ("experts", "embed", "mlp"), ("experts", "mlp", "embed")
    assert boxes["router"]["kernel"].names == ("embed", "router")
    assert {n: box["kernel"].names for n, box in boxes["experts"].items()} == {
        "gate": wide,
        "up": wide,
        "down": narrow,
    }
    assert jax.tree.map(jnp.shape, nn.meta.unbox(boxes)) == jax.tree.map(jnp.shape, random_params())


@pytest.mark.parametrize("experts_per_token", [1, 2, 3])
def test_dropless_equals_a_loop_over_tokens(experts_per_token):
    config = replace(CONFIG, experts_per_token=experts_per_token)
    params, s = random_params(config), sample()
    assert relative_difference(outputs(config, params, s), by_hand(config, params, s)) <= 1e-5


def test_all_experts_chosen_is_the_dense_mixture():
    config, params, s = replace(CONFIG, experts_per_token=E), random_params(), sample()
    logits = s.x @ np.asarray(params["router"]["kernel"])
    weights = np.asarray(jax.nn.softmax(logits, axis=-1))
    each = [expert_output(params["experts"], expert, s.x) for expert in range(E)]
    dense = sum(weights[..., [expert]] * each[expert] for expert in range(E))
    difference = relative_difference(outputs(config, params, s), dense * s.is_token[..., None])
    assert difference <= 1e-5


def test_outputs_equal_those_of_transformers_mixtral():
    torch = pytest.importorskip("torch")
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    theirs_config = pytest.importorskip("transformers").MixtralConfig(
        hidden_size=D, intermediate_size=F, num_local_experts=E, num_experts_per_tok=k
    )
    params, s = random_params(), sample()
    s = s._replace(is_token=np.ones_like(s.is_token))
    theirs = mixtral.MixtralSparseMoeBlock(theirs_config).eval()
    gate, up, down = (np.asarray(params["experts"][n]["kernel"]) for n in ("gate", "up", "down"))
    state = {
        "gate.weight": np.asarray(params["router"]["kernel"]).T,
        "experts.gate_up_proj": np.concatenate([gate, up], axis=2).swapaxes(1, 2),
        "experts.down_proj": down.swapaxes(1, 2),
    }
    theirs.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    with torch.no_grad():
        expected = theirs(torch.tensor(s.x)).numpy()
    assert relative_difference(outputs(CONFIG, params, s), expected) <= 1e-5


def test_room_for_every_choice_equals_dropless_in_values_and_gradients():
    params, s = random_params(), sample()
    roomy = replace(CONFIG, dispatch="capacity", capacity_factor=100.0)
    assert relative_difference(outputs(roomy, params, s), outputs(CONFIG, params, s)) <= 1e-5
    assert_trees_close(_gradient(roomy)(params, *s), _gradient(CONFIG)(params, *s), 1e-5)


def test_capacity_is_the_rounded_up_share_of_a_row():
    def room(factor: float, length: int) -> int:
        return row_capacity(replace(CONFIG, capacity_factor=factor), length)

    assert [room(1.0, 12), room(1.25, 12), room(1.0, 13), room(1.1, 20)] == [6, 8, 7, 11]
    assert room(100.0, 12) == 12  # no expert is chosen twice by one token


def test_choices_beyond_an_experts_room_are_dropped_by_place_then_rank():
    # Room for 2 of 4 · 2 / 4 choices a row. Places choose experts (0, 1), (0, 1), (2, 0), (0, 3).
    config = replace(CONFIG, dispatch="capacity", capacity_factor=1.0)
    wanted = [(0, 1), (0, 1), (2, 0), (0, 3)]
    x = np.zeros((1, 4, D), np.float32)
    for place, (first, second) in enumerate(wanted):
        x[0, place, first], x[0, place, second] = 4, 3
    params = random_params()
    params["router"]["kernel"] = jnp.eye(D, E)
    s = Sample(x, np.ones((1, 4), bool))
    # Expert 0 is full when place 2 comes with its second choice and place 3 with its first.
    expected = by_hand(config, params, s, dropped=frozenset({(0, 2, 1), (0, 3, 0)}))
    assert relative_difference(outputs(config, params, s), expected) <= 1e-5
    # With padding in place 0, which takes no room, only the last of four choices is too much.
    s = s._replace(is_token=np.array([[False, True, True, True]]))
    expected = by_hand(config, params, s, dropped=frozenset({(0, 3, 0)}))
    assert relative_difference(outputs(config, params, s), expected) <= 1e-5


def test_equal_scores_go_to_the_lower_experts():
    params, s = random_params(), sample()
    params["router"]["kernel"] = jnp.zeros((D, E))
    each = [expert_output(params["experts"], expert, s.x) for expert in (0, 1)]
    expected = (each[0] + each[1]) / 2 * s.is_token[..., None]
    assert relative_difference(outputs(CONFIG, params, s), expected) <= 1e-5


def test_balance_loss_is_one_at_uniform_routing_and_e_over_k_at_collapse():
    config = replace(CONFIG, balance_loss=0.5)
    cycle = np.eye(E, D, dtype=np.float32)[np.arange(L) % E][None]
    s = Sample(cycle, np.ones((1, L), bool))
    params = random_params()
    # Token i prefers experts i and i + 1 (mod E): shares and mean probabilities are all 1/E.
    params["router"]["kernel"] = (
        jnp.zeros((D, E)).at[:E].set(np.eye(E) + np.eye(E)[:, [3, 0, 1, 2]])
    )
    assert losses(config, params, s)["balance"] == pytest.approx(0.5, rel=1e-6)
    # All agree on experts 0 and 1: f = P = 1/k for these, E · k · (1/k)² = E/k.
    params["router"]["kernel"] = jnp.zeros((D, E)).at[:E, :k].set(50.0)
    assert losses(config, params, s)["balance"] == pytest.approx(0.5 * E / k, rel=1e-6)


def test_losses_are_means_over_the_tokens_of_the_batch():
    params, s = random_params(), sample()
    x = s.x[s.is_token].astype(np.float64)
    logits = x @ np.asarray(params["router"]["kernel"], np.float64)
    chosen = np.argsort(-logits, axis=-1)[:, :k]
    share = np.bincount(chosen.ravel(), minlength=E) / chosen.size
    logsumexp = np.log(np.exp(logits).sum(-1))
    probability = np.exp(logits - logsumexp[:, None]).mean(0)
    got = losses(CONFIG, params, s)
    assert got["balance"] == pytest.approx(CONFIG.balance_loss * E * share @ probability, rel=1e-5)
    expected = CONFIG.router_z_loss * np.mean(logsumexp**2)
    assert got["router_z"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_gradients_are_finite_and_reach_every_parameter(dispatch):
    silent = replace(CONFIG, dispatch=dispatch, balance_loss=0.0, router_z_loss=0.0)
    gradient, _ = _gradient(silent)(random_params(), *sample())
    for leaf in jax.tree.leaves(gradient):
        assert np.all(np.isfinite(leaf)) and np.linalg.norm(leaf) > 1e-3
    # The router learns from the outputs and, besides, from each of the losses.
    for name in ("balance_loss", "router_z_loss"):
        louder, _ = _gradient(replace(silent, **{name: 1.0}))(random_params(), *sample())
        change = relative_difference(louder["router"]["kernel"], gradient["router"]["kernel"])
        assert change > 1e-3


def test_the_gradient_equals_finite_differences_along_a_direction():
    params, s = random_params(), sample()
    gradient = _gradient(CONFIG)(params, *s)
    direction = jax.tree.map(lambda p: jnp.sin(jnp.arange(p.size).reshape(p.shape) + 1.0), params)
    reading = np.random.default_rng(7).standard_normal((B, L, D)).astype(np.float32)

    def value(step: float) -> float:
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return float(np.sum(outputs(CONFIG, moved, s) * reading)) + sum(
            losses(CONFIG, moved, s).values()
        )

    slope = (value(1e-3) - value(-1e-3)) / 2e-3
    exact = sum(
        jax.tree.leaves(jax.tree.map(lambda g, d: float(jnp.vdot(g, d)), gradient[0], direction))
    )
    assert slope == pytest.approx(
        exact, rel=2e-2
    )  # fp32 sums of about 400 terms over a step of 2e-3


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_padding_changes_nothing_and_gets_zeros(dispatch):
    config, params, s = replace(CONFIG, dispatch=dispatch), random_params(), sample()
    other = s.x.copy()
    other[~s.is_token] = -3.0
    y = outputs(config, params, s)
    np.testing.assert_array_equal(y, outputs(config, params, s._replace(x=other)))
    assert not np.any(y[~s.is_token])
    assert losses(config, params, s) == losses(config, params, s._replace(x=other))
    _, dx = _gradient(config)(params, *s)
    assert not np.any(np.asarray(dx)[~s.is_token])


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_a_token_does_not_depend_on_later_ones(dispatch):
    # Little room, so that many choices are dropped.
    config = replace(CONFIG, dispatch=dispatch, capacity_factor=0.5)
    params, s = random_params(), sample()
    for place in (3, 7):
        later = s.x.copy()
        later[:, place:] = sample(seed=5).x[:, place:]
        y, changed = outputs(config, params, s), outputs(config, params, s._replace(x=later))
        # Products of blocks of other rows may round otherwise.
        np.testing.assert_allclose(y[:, :place], changed[:, :place], rtol=1e-5, atol=1e-6)
        assert not np.allclose(y[0, place:], changed[0, place:])


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_bf16_follows_fp32_with_the_same_choices(dispatch):
    config, params, s = replace(CONFIG, dispatch=dispatch), random_params(), sample()
    exact = s._replace(x=np.asarray(jnp.asarray(s.x, jnp.bfloat16), np.float32))
    low = outputs(config, params, exact, "bfloat16").astype(np.float32)
    # Three products and a gate rounded to 8 bits; another expert would differ by order one.
    assert relative_difference(low, outputs(config, params, exact)) <= 2e-2


def test_no_tokens_at_all_give_zeros_and_no_loss():
    s = sample()._replace(is_token=np.zeros((B, L), bool))
    for dispatch in DISPATCHES:
        config = replace(CONFIG, dispatch=dispatch)
        assert not np.any(outputs(config, random_params(), s))
        assert losses(config, random_params(), s) == {"balance": 0.0, "router_z": 0.0}


def test_one_token_works_as_among_others():
    params, s = random_params(), sample()
    alone = Sample(s.x[:1, :1], s.is_token[:1, :1])
    both = outputs(CONFIG, params, alone)[0, 0], outputs(CONFIG, params, s)[0, 0]
    assert relative_difference(*both) <= 1e-5


def test_mapped_over_rows_it_gives_the_same():
    params, s = random_params(), sample()

    @partial(jax.jit, compiler_options=QUICK_COMPILE)
    @jax.vmap
    def apply(x: jax.Array, is_token: jax.Array) -> Any:
        return moe(CONFIG).apply({"params": params}, x[None], is_token[None])

    assert relative_difference(apply(*s)[0][:, 0], outputs(CONFIG, params, s)) <= 1e-5
