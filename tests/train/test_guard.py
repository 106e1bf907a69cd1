"""No update that is not finite is applied, none of a spike; restarts change no decision."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.mlp_config import MoEConfig
from configs.optimizer_config import AdamWConfig
from configs.schema import GuardConfig, RunConfig
from data.batches import Batch
from tests.model.samples import QUICK_COMPILE, tiny_model
from tests.train.samples import mesh_of, random_batch, random_state, rate_at, tiny_run
from train.feed import put_batch
from train.guard import GuardState, after_step, judge, new_guard, update_if
from train.state import TrainState, abstract_state
from train.step import batch_sharding, make_train_step

WINDOW = 8
GUARD = GuardConfig(spike_sigma=4.0, spike_window=WINDOW)


@jax.jit
def guarded(guard: Any, loss: Any, grad_norm: Any) -> Any:
    applied, is_spike = judge(GUARD, guard, loss, grad_norm)
    return after_step(guard, loss, applied), applied, is_spike


def decisions(losses: np.ndarray, guard: Any = None) -> tuple[list[bool], list[bool], Any]:
    guard, applied, spikes = guard or new_guard(GUARD), [], []
    for loss in losses:
        guard, is_applied, is_spike = guarded(guard, np.float32(loss), np.float32(1.0))
        applied.append(bool(is_applied))
        spikes.append(bool(is_spike))
    return applied, spikes, guard


def reference(losses: np.ndarray) -> tuple[list[bool], list[bool]]:
    """The same in NumPy, in fp64, with a list for a window."""
    window, applied, spikes = [], [], []
    for loss in losses.astype(np.float64):
        finite, is_spike = bool(np.isfinite(loss)), False
        if finite and len(window) >= WINDOW:
            last = np.array(window[-WINDOW:])
            deviation = max(last.std(), 1e-3 * abs(last.mean()))
            is_spike = bool(loss > last.mean() + GUARD.spike_sigma * deviation)
        if finite and not is_spike:
            window.append(loss)
        applied.append(finite and not is_spike)
        spikes.append(is_spike)
    return applied, spikes


def test_decisions_are_those_of_a_plain_reference():
    rng = np.random.default_rng(0)
    losses = 3.0 * np.exp(-np.arange(300) / 200) + 0.05 * rng.standard_normal(300)
    losses += np.where(rng.random(300) < 0.1, rng.random(300), 0.0)
    losses[rng.integers(0, 300, 12)] = [np.nan, np.inf, -np.inf] * 4
    losses = losses.astype(np.float32)
    applied, spikes, _ = decisions(losses)
    assert (applied, spikes) == reference(losses)
    assert 10 < sum(spikes) < 60 and sum(applied) > 200


def test_nothing_is_a_spike_before_the_window_is_full():
    # However large a loss is; those that are not finite do not count towards the window.
    losses = np.array([3, np.nan, 900, 3, 3, 3, np.nan, 3, 3, 3, 9000], np.float32)
    assert not any(decisions(losses[:-1])[1])
    losses = np.array([3, np.nan, 3, 3, 3, 3, np.nan, 3, 3, 3, 9], np.float32)
    assert decisions(losses)[1] == [False] * 10 + [True]


def test_a_flat_window_takes_rounding_and_small_steps_for_what_they_are():
    flat = np.full(WINDOW, 0.7, np.float32)
    applied, _, guard = decisions(flat)
    assert all(applied)
    nearby = np.nextafter(np.float32(0.7), np.float32(1))
    assert decisions(np.array([nearby, 0.702], np.float32), guard)[0] == [True, True]
    assert decisions(np.array([0.71], np.float32), guard)[0] == [False]


def test_a_restart_from_host_copies_decides_alike_bit_for_bit():
    rng = np.random.default_rng(1)
    losses = (2 + 0.1 * rng.standard_normal(40) + (rng.random(40) < 0.2)).astype(np.float32)
    applied, spikes, guard = decisions(losses)
    first_applied, first_spikes, half = decisions(losses[:17])
    copied = jax.tree.map(lambda x: jnp.asarray(np.array(x)), half)
    last_applied, last_spikes, resumed = decisions(losses[17:], copied)
    assert (first_applied + last_applied, first_spikes + last_spikes) == (applied, spikes)
    assert any(spikes[17:])
    jax.tree.map(np.testing.assert_array_equal, resumed, guard)


def test_without_a_guard_the_state_holds_nothing_for_it():
    config = tiny_run()
    assert abstract_state(config, mesh_of(config)).guard == new_guard(config.guard) == ()
    applied, is_spike = judge(config.guard, (), jnp.float32(1e30), jnp.float32(1.0))
    assert applied and not is_spike


def test_each_number_that_is_not_finite_refuses_the_update():
    for bad in (np.nan, np.inf, -np.inf):
        for place in range(3):
            numbers = [jnp.float32(bad if n == place else 1.0) for n in range(3)]
            assert not judge(GuardConfig(), (), *numbers).applied
    assert judge(GuardConfig(), (), *[jnp.float32(1.0)] * 3).applied


MOE = tiny_model(
    attention=replace(tiny_model().attention, num_kv_heads=4),
    mlp=MoEConfig(mlp_dim=48, num_experts=4),
)
RUNS = {
    "dense": replace(tiny_run(), guard=GUARD),
    "clipped, in microbatches": replace(
        tiny_run(num_microbatches=4), optimizer=replace(tiny_run().optimizer, clip_norm=1.0)
    ),
    "mixture": tiny_run(model=MOE),
}


@cache
def compiled_step(config: RunConfig) -> Any:
    mesh = mesh_of(config)
    state, batch = random_state(config, mesh), on_devices(config, random_batch(config))
    return make_train_step(config, mesh).lower(state, batch).compile(QUICK_COMPILE)


def on_devices(config: RunConfig, batch: Batch) -> Batch:
    return put_batch(batch, batch_sharding(config, mesh_of(config)))


def step(config: RunConfig, state: TrainState, seed: int = 0, **fields: Any) -> tuple[Any, Any]:
    batch = random_batch(config, seed)._replace(**fields)
    return compiled_step(config)(state, on_devices(config, batch))


def with_nan_weight(config: RunConfig) -> np.ndarray:
    weights = random_batch(config).loss_weights.copy()
    weights[5, 3] = np.nan
    return weights


def on_host(tree: Any) -> Any:
    return jax.tree.map(np.array, tree)


def without_schedules(opt_state: Any) -> list[Any]:
    """The leaves, without the steps that schedules have counted."""
    is_schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)  # noqa: E731
    nodes = jax.tree.leaves(opt_state, is_leaf=is_schedule)
    return [node for node in nodes if not is_schedule(node)]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_batch_that_gives_nan_leaves_no_trace_but_the_step(name):
    config = RUNS[name]
    state, _ = step(config, random_state(config, mesh_of(config)))
    before = on_host(state)
    after, metrics = step(config, state, loss_weights=with_nan_weight(config))
    assert metrics.applied == 0 and metrics.is_spike == 0 and not np.isfinite(metrics.loss)
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, after.guard, before.guard)
    for own, old in zip(*map(without_schedules, (after.opt_state, before.opt_state)), strict=True):
        np.testing.assert_array_equal(own, old)
    assert int(after.step) == 2
    # The next batch is learnt from, at the rate of its step, from moments of one update.
    after, metrics = step(config, after)
    assert metrics.applied == 1
    assert isinstance(config.optimizer, AdamWConfig)
    assert metrics.learning_rate == pytest.approx(rate_at(config.optimizer, 2, 10), rel=1e-6)
    counts = [int(x) for x in jax.tree.leaves(after.opt_state) if x.dtype == jnp.int32]
    assert sorted(counts) == [2, 3]  # Adam's updates, the schedule's steps


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_parameter_that_is_nan_refuses_every_update(name):
    config = RUNS[name]
    state = random_state(config, mesh_of(config))
    router = ("decoder", "layers", "mlp", "router", "kernel")
    names = router if name == "mixture" else ("token_embedding", "embedding")
    *owners, last = names
    part = state.params
    for owner in owners:
        part = part[owner]
    part[last] = part[last].at[(0,) * part[last].ndim].set(jnp.nan)
    before = on_host(state.params)
    tokens = np.zeros_like(random_batch(config).inputs)
    after, metrics = step(config, state, inputs=tokens)
    assert metrics.applied == 0
    jax.tree.map(np.testing.assert_array_equal, after.params, before)


@pytest.mark.slow
def test_a_spike_is_not_learnt_from_and_a_restart_from_the_host_goes_on_alike():
    config = RUNS["dense"]
    mesh = mesh_of(config)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    usual = np.array(
        [5.0, 5.1] * (WINDOW // 2), np.float32
    )  # about ln(V) and the untrained model's noise
    low = GuardState(jnp.asarray(usual / 10), jnp.asarray(WINDOW, jnp.int32))
    state = random_state(config, mesh)._replace(guard=jax.device_put(low, shardings.guard))
    before = on_host(state)
    state, metrics = step(config, state)
    assert metrics.is_spike == 1 and metrics.applied == 0 and np.isfinite(metrics.loss)
    jax.tree.map(np.testing.assert_array_equal, state.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, state.guard, before.guard)

    high = GuardState(jnp.asarray(usual * 2), jnp.asarray(WINDOW, jnp.int32))
    state = state._replace(guard=jax.device_put(high, shardings.guard))
    seen, restarted = [], jax.tree.map(jax.device_put, on_host(state), shardings)
    for seed in range(4):
        state, metrics = step(config, state, seed)
        restarted = jax.tree.map(jax.device_put, on_host(restarted), shardings)
        restarted, again = step(config, restarted, seed)
        assert on_host(metrics) == on_host(again)
        seen.append(float(metrics.loss))
    jax.tree.map(np.testing.assert_array_equal, state, restarted)
    np.testing.assert_array_equal(state.guard.losses_W[:4], np.array(seen, np.float32))
    assert int(state.guard.count) == WINDOW + 4


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("applied", [True, False])
def test_a_branch_and_a_select_do_the_same(platform, applied):
    optimizer = optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(lambda step: 0.1))
    params = {"w": jnp.arange(4.0)}
    state: Any = optimizer.init(params)
    gradient = {"w": jnp.ones(4) if applied else jnp.full(4, jnp.nan)}

    def update(params, opt_state):
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    new, new_state = update_if(jnp.asarray(applied), update, params, state, platform=platform)
    expected: Any = update(params, state) if applied else (params, state)
    jax.tree.map(np.testing.assert_array_equal, new, expected[0])
    jax.tree.map(np.testing.assert_array_equal, new_state[0], expected[1][0])
    assert int(new_state[1].count) == 1  # the run's step went on
