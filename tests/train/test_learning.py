"""Every optimizer learns, on any mesh the same, and resumes from a checkpoint bit for bit."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.schema import MeshConfig, RunConfig
from data.batches import Batch
from tests.model.samples import QUICK_COMPILE, assert_trees_close, tiny_model
from tests.train.samples import ONE_DEVICE, mesh_of, random_batch, random_state
from tests.train.test_state import OPTIMIZERS, run_with
from train.checkpoint import Checkpoints
from train.feed import put_batch
from train.optimizers import make_optimizer
from train.state import TrainState, abstract_state
from train.step import batch_sharding, make_train_step

VOCAB_SIZE = 64
UNIGRAM_LOSS = np.log(VOCAB_SIZE)  # all tokens come equally often
NUM_STEPS = 60
ONE_LAYER = tiny_model(num_layers=1)


def counting_rows(seed: int, rows: int, length: int) -> np.ndarray:
    """Each token says the next: x, 5x + 3, … mod 64. int32 [rows, length]."""
    tokens = np.empty((rows, length), np.int32)
    tokens[:, 0] = np.random.default_rng(seed).integers(0, VOCAB_SIZE, rows)
    for place in range(1, length):
        tokens[:, place] = (5 * tokens[:, place - 1] + 3) % VOCAB_SIZE
    return tokens


def small_params() -> dict:
    """A table, two stacked residual layers and a head, named as the model's are."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape) * shape[-2] ** -0.5, jnp.float32)

    layers = {"mlp": {"up": {"kernel": draw(2, 32, 48)}, "down": {"kernel": draw(2, 48, 32)}}}
    table = jnp.asarray(rng.standard_normal((VOCAB_SIZE, 32)), jnp.float32)
    return {
        "token_embedding": {"embedding": table},
        "decoder": {"layers": layers},
        "head": {"kernel": draw(32, VOCAB_SIZE)},
    }


def small_loss(params: dict, tokens_BL: jax.Array) -> jax.Array:
    x_BLD = params["token_embedding"]["embedding"][tokens_BL[:, :-1]]
    mlp = params["decoder"]["layers"]["mlp"]
    for up, down in zip(mlp["up"]["kernel"], mlp["down"]["kernel"], strict=True):
        x_BLD = x_BLD + jax.nn.relu(x_BLD @ up) @ down
    logits_BLV = x_BLD @ params["head"]["kernel"]
    return optax.softmax_cross_entropy_with_integer_labels(logits_BLV, tokens_BL[:, 1:]).mean()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_sixty_steps_at_default_rates_learn_more_than_how_often_each_token_comes(kind):
    optimizer = make_optimizer(OPTIMIZERS[kind], NUM_STEPS)

    @partial(jax.jit, compiler_options=QUICK_COMPILE)
    def step(params, state, tokens_BL):
        loss, gradient = jax.value_and_grad(small_loss)(params, tokens_BL)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = small_params()
    state, losses = optimizer.init(params), []
    for number in range(NUM_STEPS):
        params, state, loss = step(params, state, counting_rows(number, 8, 17))
        losses.append(float(loss))
    assert losses[0] > UNIGRAM_LOSS
    assert losses[-1] < UNIGRAM_LOSS - 1.0


@cache
def compiled_step(config: RunConfig):
    """The train step, and batches by number, on the config's mesh."""
    mesh = mesh_of(config)
    sharding = batch_sharding(config, mesh)

    def batch(number: int) -> Batch:
        drawn = random_batch(config, number)
        rows, length = drawn.inputs.shape
        tokens = counting_rows(number, rows, length + 1)
        weights = np.ones((rows, length), np.float32)
        counting = drawn._replace(
            inputs=tokens[:, :-1], targets=tokens[:, 1:], loss_weights=weights
        )
        return put_batch(counting, sharding)

    state = abstract_state(config, mesh)
    return make_train_step(config, mesh).lower(state, batch(0)).compile(QUICK_COMPILE), batch


def trained(config: RunConfig, state: TrainState, steps: range) -> tuple[TrainState, list[float]]:
    step, batch = compiled_step(config)
    losses = []
    for number in steps:
        state, metrics = step(state, batch(number))
        losses.append(float(metrics.loss))
    return state, losses


def test_adafactors_state_resumed_from_a_checkpoint_goes_on_bit_for_bit(tmp_path):
    config = run_with(OPTIMIZERS["adafactor, momentum"], model=ONE_LAYER)
    mesh = mesh_of(config)
    whole, losses = trained(config, random_state(config, mesh), range(6))
    half, first = trained(config, random_state(config, mesh), range(3))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(half, {})
    restored = checkpoints.restore_latest(abstract_state(config, mesh))
    checkpoints.close()
    assert restored is not None
    resumed, second = trained(config, restored.state, range(3, 6))
    assert first + second == losses
    assert jax.tree.structure(resumed) == jax.tree.structure(whole)
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_transformer_of_one_layer_learns_under_every_optimizer(kind):
    config = run_with(OPTIMIZERS[kind], model=ONE_LAYER, num_steps=NUM_STEPS)
    _, losses = trained(config, random_state(config, mesh_of(config)), range(NUM_STEPS))
    assert losses[0] > UNIGRAM_LOSS
    assert losses[-1] < UNIGRAM_LOSS - 1.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adafactor", "adafactor, momentum", "lion", "sgd"])
def test_an_optimizer_on_eight_devices_equals_itself_on_one(kind):
    one, eight = (
        run_with(OPTIMIZERS[kind], mesh=mesh)
        for mesh in (ONE_DEVICE, MeshConfig(fsdp=2, tensor=2, data=2))
    )
    ends = [trained(c, random_state(c, mesh_of(c)), range(5)) for c in (one, eight)]
    np.testing.assert_allclose(ends[1][1], ends[0][1], rtol=1e-5)
    # The sign of a gradient near zero flips where sums are added up in another order.
    assert_trees_close(ends[1][0].params, ends[0][0].params, 1e-2 if kind == "lion" else 1e-5)
