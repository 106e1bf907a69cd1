"""How large fresh parameters are, and what that keeps equal from one width to another."""

from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.mlp_config import GELUConfig, MoEConfig, SwiGLUConfig
from configs.model_config import (
    FanInInitConfig,
    InitConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    MuPInitConfig,
    NoHeadConfig,
    NormalInitConfig,
    T5InitConfig,
)
from configs.optimizer_config import AdamWConfig, CosineConfig
from configs.position_config import LearnedPositionConfig
from model.build import (
    abstract_params,
    build_model,
    forward,
    init_params,
    rate_multipliers,
)
from model.initializers import Init, Role
from tests.model.samples import QUICK_COMPILE, attention, tiny_model
from train.optimizers import make_optimizer

Path = tuple[str, ...]

# Three roots of numbers of projections into the residual: 2 layers of 2, or of 3 with memory.
ROOT_4, ROOT_6 = 4**0.5, 6**0.5


@cache
def fresh(config: ModelConfig) -> Any:
    init = partial(init_params, build_model(config))
    init = jax.jit(init, compiler_options=QUICK_COMPILE)
    # This generator is one operation: the default one takes seconds to compile.
    return jax.tree.map(np.asarray, init(jax.random.key(0, impl="unsafe_rbg")))


def deviations(params: Any) -> dict[Path, float]:
    """Root mean square of every kernel and table, by the end of its path."""
    return {
        tuple(key.key for key in path)[-3:]: float(np.sqrt(np.mean(np.square(leaf))))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key in ("kernel", "embedding")
    }


def decoder(init: InitConfig, **changes: Any) -> ModelConfig:
    """Width 64, a head of 32 numbers in all, an MLP of 96; a table of positions."""
    fields = {"emb_dim": 64, "mlp": GELUConfig(mlp_dim=96), "init": init, "vocab_size": 256}
    return tiny_model(**(fields | {"position": LearnedPositionConfig(num_positions=64)} | changes))


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        (
            FanInInitConfig(),
            {"query": 1 / 8, "up": 1 / 8, "out": 32**-0.5 / ROOT_4, "down": 96**-0.5 / ROOT_4}
            | {"token_embedding": 1 / 8, "position": 1 / 8, "head": 1 / 8},
        ),
        (
            NormalInitConfig(stddev=0.03),
            {"query": 0.03, "up": 0.03, "out": 0.03 / ROOT_4, "down": 0.03 / ROOT_4}
            | {"token_embedding": 0.03, "position": 0.03, "head": 0.03},
        ),
        (
            T5InitConfig(),
            {"query": (64 * 8) ** -0.5, "up": 1 / 8, "out": 32**-0.5, "down": 96**-0.5}
            | {"token_embedding": 1.0, "position": 1.0, "head": 1 / 8},
        ),
        (
            MuPInitConfig(base_emb_dim=16),
            {"query": 1 / 8, "up": 1 / 8, "out": 32**-0.5 / ROOT_4, "down": 96**-0.5 / ROOT_4}
            | {"token_embedding": 1 / 4, "position": 1 / 4, "head": 1 / 4},
        ),
    ],
    ids=["fan_in", "normal", "t5", "mup"],
)
def test_kernels_and_tables_start_with_the_deviation_of_their_role(init, expected):
    params = fresh(decoder(init))
    for (*_, name, leaf), measured in deviations(params).items():
        name = {"key": "up", "value": "up"}.get(name, name)
        # 4096 or more draws (tables, queries and outputs of 2 · 2048): within 6% at five of the
        # sample deviation's own deviations.
        assert measured == pytest.approx(expected[name], rel=0.06), (name, leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key in ("scale", "bias"):
            assert (leaf == (path[-1].key == "scale")).all()


def test_the_residuals_projections_may_start_like_all_others():
    ours = Init(decoder(NormalInitConfig(stddev=0.03, scale_residual=False)))
    assert ours.stddev("residual", 100) == ours.stddev("hidden", 7) == 0.03


def test_layers_start_differently():
    up_NDF = fresh(decoder(FanInInitConfig()))["decoder"]["layers"]["mlp"]["up"]["kernel"]
    assert abs(np.corrcoef(up_NDF[0].ravel(), up_NDF[1].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("init", [FanInInitConfig(), NormalInitConfig(), T5InitConfig()])
def test_roles_of_experts_routers_and_heads(init):
    config = tiny_model(
        architecture="encoder_only",
        mlp=MoEConfig(mlp_dim=48, num_experts=2),
        head=MaskedLMHeadConfig(),
        init=init,
    )
    ours = Init(config)
    assert ours.stddev("router", 32) == ours.stddev("hidden", 32)
    assert ours.stddev("head", 32) == ours.stddev("hidden", 32)


def test_an_encoder_decoders_residual_adds_up_three_projections_a_layer():
    config = tiny_model(architecture="encoder_decoder")
    assert Init(config).stddev("residual", 100) == pytest.approx(0.1 / ROOT_6)
    deep_encoder = tiny_model(architecture="encoder_decoder", num_encoder_layers=8)
    assert Init(deep_encoder).stddev("residual", 100) == pytest.approx(0.1 / 16**0.5)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_logits_start_with_variance_one(tie_embeddings):
    # A normed vector of 64 against a table (or head) of deviation 1/8.
    params = fresh(decoder(FanInInitConfig()))
    config = decoder(FanInInitConfig(), tie_embeddings=tie_embeddings)
    if tie_embeddings:
        params = {name: branch for name, branch in params.items() if name != "head"}
    run = jax.jit(partial(_logits, config), compiler_options=QUICK_COMPILE)
    logits = np.asarray(run(params))
    # 32 places share one head: the mean square over 8192 products is within 10%.
    assert np.std(logits) == pytest.approx(1.0, rel=0.1)


TOKENS = np.random.default_rng(0).integers(4, 256, (2, 17), dtype=np.int32)


def _logits(config: ModelConfig, params: Any) -> jax.Array:
    index = jnp.broadcast_to(jnp.arange(16), (2, 16))
    ones = jnp.ones_like(index)
    tokens = jnp.asarray(TOKENS[:, :-1])
    return forward(build_model(config), params, tokens, positions=index, segment_ids=ones)


class Coordinates(NamedTuple):
    """Root mean squares: of the logits at first; what one step changes of the last layer's normed
    activations, and of the logits."""

    logits: float
    activations_change: float
    logits_change: float


def coordinates(init: InitConfig, width: int) -> Coordinates:
    """One step of Adam on random tokens: heads of 16 numbers, more of them where wider."""
    heads = width // 16
    config = tiny_model(
        vocab_size=256,
        emb_dim=width,
        num_layers=1,
        attention=attention(num_heads=heads, num_kv_heads=heads, head_dim=16),
        mlp=SwiGLUConfig(mlp_dim=width),
        init=init,
    )
    adam = AdamWConfig(
        learning_rate=2e-4, weight_decay=0.0, clip_norm=0.0, schedule=CosineConfig(warmup_steps=0)
    )
    optimizer = make_optimizer(adam, 10, rate_multipliers(config))
    without_head = replace(config, head=NoHeadConfig())

    def activations(params: Any) -> jax.Array:
        return _logits(
            without_head, {name: params[name] for name in ("token_embedding", "decoder")}
        )

    def measure(params: Any) -> tuple[jax.Array, ...]:
        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            logits, targets = _logits(config, params), jnp.asarray(TOKENS[:, 1:])
            nats = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return jnp.mean(nats), logits

        gradient, logits = jax.grad(loss, has_aux=True)(params)
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        after = optax.apply_updates(params, updates)
        changes = activations(after) - activations(params), _logits(config, after) - logits
        return logits, *changes

    run = jax.jit(measure, compiler_options=QUICK_COMPILE)
    params = numpy_init(config)
    return Coordinates(*(float(np.sqrt(np.mean(np.square(x)))) for x in run(params)))


def numpy_init(config: ModelConfig) -> Any:
    """As `init_params`, drawn by NumPy: compiling JAX's own generator takes seconds."""
    rng, ours = np.random.default_rng(0), Init(config)
    roles: dict[str, Role] = {
        "out": "residual",
        "down": "residual",
        "token_embedding": "embedding",
        "head": "head",
    }

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if path[-1].key == "scale":
            return jnp.ones(leaf.shape)
        stddev = ours.stddev(roles.get(path[-2].key, "hidden"), config.emb_dim)
        return jnp.asarray(stddev * rng.standard_normal(leaf.shape, np.float32))

    return jax.tree_util.tree_map_with_path(draw, abstract_params(config))


def test_one_step_changes_as_much_at_any_width_under_mup_and_otherwise_more_where_wider():
    # At its base width muP is the plain parametrisation; the wide ones are sixteen times as wide.
    narrow = coordinates(MuPInitConfig(base_emb_dim=64), 64)
    wide = coordinates(MuPInitConfig(base_emb_dim=64), 1024)
    plain = coordinates(FanInInitConfig(), 1024)
    # Fresh logits shrink as 1/sqrt(m) by design: the head is not yet aligned with what it reads.
    assert wide.logits * 4 == pytest.approx(narrow.logits, rel=0.2)
    assert plain.logits == pytest.approx(narrow.logits, rel=0.2)
    assert wide.activations_change == pytest.approx(narrow.activations_change, rel=0.4)
    assert plain.activations_change > 8 * narrow.activations_change
    # The change along the gradient keeps its size, the rest of it shrinks as fresh logits do.
    assert narrow.logits_change / 4 < wide.logits_change < 2 * narrow.logits_change
    assert plain.logits_change > 8 * narrow.logits_change


def test_mup_at_its_base_width_is_the_plain_parametrisation():
    mup, plain = (
        tiny_model(init=init) for init in (MuPInitConfig(base_emb_dim=32), FanInInitConfig())
    )
    assert rate_multipliers(mup) is rate_multipliers(plain) is None
    for role in ("hidden", "residual", "query", "router", "embedding", "head"):
        assert Init(mup).stddev(role, 32) == pytest.approx(Init(plain).stddev(role, 32))


def test_mups_rates_fall_with_the_width_for_kernels_inside_the_model_alone():
    config = tiny_model(
        architecture="encoder_only",
        head=MaskedLMHeadConfig(),
        mlp=GELUConfig(mlp_dim=48),
        init=MuPInitConfig(base_emb_dim=8),
    )
    rates = rate_multipliers(config)
    assert rates is not None
    slowed = {
        ".".join(key.key for key in path)
        for path, rate in jax.tree_util.tree_leaves_with_path(rates)
        if rate != 1.0
    }
    inside = {f"attention.{name}" for name in ("query", "key", "value", "out")}
    inside |= {"mlp.up", "mlp.down"}
    assert slowed == {f"encoder.layers.{name}.kernel" for name in inside} | {"head.dense.kernel"}
    assert {rate for rate in jax.tree.leaves(rates)} == {1.0, 1 / 4}
