"""A bit that changed on one device is found, and the array and the device are named."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.errors import InputError
from configs.schema import GuardConfig, MeshConfig, RunConfig
from tests.train.samples import mesh_of, random_batch, random_state, tiny_run
from train.corruption import (
    SilentCorruption,
    StateChecks,
    make_replica_check,
    recompute_check,
    require_repeatable,
)
from train.feed import put_batch
from train.state import TrainState
from train.step import batch_sharding, make_train_step

MESH = MeshConfig(data=4, fsdp=2)


def with_piece(array: jax.Array, device: Any, change) -> jax.Array:
    """The array, of which one device holds what `change` makes of its piece."""
    pieces = []
    for shard in array.addressable_shards:
        piece = np.array(shard.data)
        pieces.append(
            jax.device_put(change(piece) if shard.device == device else piece, shard.device)
        )
    return jax.make_array_from_single_device_arrays(array.shape, array.sharding, pieces)


def flipped(piece: np.ndarray, place: int = 0, bit: int = 3) -> np.ndarray:
    bits = piece.reshape(-1).view(f"uint{8 * piece.itemsize}").copy()
    bits[place % bits.size] ^= bits.dtype.type(1) << bit
    return bits.view(piece.dtype).reshape(piece.shape)


def exchanged(piece: np.ndarray) -> np.ndarray:
    entries = piece.reshape(-1).copy()
    entries[[0, -1]] = entries[[-1, 0]]
    assert entries[0] != entries[-1]
    return entries.reshape(piece.shape)


def changed_state(state: TrainState, name: str, device: Any, change) -> TrainState:
    def of_leaf(path: Any, leaf: jax.Array) -> jax.Array:
        own = jax.tree_util.keystr(path).lstrip(".")
        return with_piece(leaf, device, change) if own == name else leaf

    return jax.tree_util.tree_map_with_path(of_leaf, state)


@pytest.fixture(scope="module")
def replicated():
    config = tiny_run(mesh=MESH)
    mesh = mesh_of(config)
    return make_replica_check(config, mesh), random_state(config, mesh), mesh.devices.ravel()


def test_every_array_is_compared_where_rows_are_cut_over_replicas(replicated):
    check, state, _ = replicated
    assert len(check.names) == len(jax.tree.leaves(state))
    assert check(state) == []


@pytest.mark.parametrize("change", [flipped, lambda x: flipped(x, -1, 31), exchanged])
def test_what_changed_on_one_of_four_replicas_is_named(replicated, change):
    check, state, devices = replicated
    for name in check.names[1 :: len(check.names) // 3]:
        moment = "opt_state" in name  # of a state before step 0: all entries are alike
        if change is exchanged and moment:
            continue
        found = check(changed_state(state, name, devices[5], change))
        assert [(one.name, one.devices) for one in found] == [(name, (devices[5],))]
        assert found[0].describe() == f"{name} on device {devices[5].id} (process 0)"


def test_the_step_number_is_compared_too(replicated):
    check, state, devices = replicated
    (found,) = check(changed_state(state, "step", devices[0], flipped))
    assert (found.name, found.devices) == ("step", (devices[0],))


def test_without_a_majority_all_holders_of_the_piece_are_named():
    config = tiny_run(mesh=MeshConfig(data=2, fsdp=4))
    mesh = mesh_of(config)
    check, state = make_replica_check(config, mesh), random_state(config, mesh)
    name = "params['token_embedding']['embedding']"
    (found,) = check(changed_state(state, name, mesh.devices.flat[1], flipped))
    assert set(found.devices) == {mesh.devices.flat[1], mesh.devices.flat[5]}


def test_a_single_device_has_nothing_to_compare():
    config = tiny_run()
    assert make_replica_check(config, mesh_of(config)).names == ()


def test_what_is_cut_over_the_whole_mesh_is_not_compared():
    config = tiny_run(mesh=MeshConfig(fsdp=8))
    names = make_replica_check(config, mesh_of(config)).names
    assert "step" in names and "params['token_embedding']['embedding']" not in names


def toy_step(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
    params = jax.tree.map(lambda p: p * 1.5 + batch, state.params)
    return state._replace(step=state.step + 1, params=params), batch


class Faulty:
    """A step of which the second call flips a bit of one device's result."""

    def __init__(self, name: str, device: Any):
        self._name, self._device, self._calls = name, device, 0
        self._step = jax.jit(toy_step, donate_argnums=0)

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        self._calls += 1
        state, metrics = self._step(state, batch)
        if self._calls == 2:
            state = changed_state(state, self._name, self._device, flipped)
        return state, metrics


def test_a_step_computed_twice_is_one_step_and_equal():
    config = tiny_run(mesh=MESH)
    mesh = mesh_of(config)
    state = random_state(config, mesh)
    expected, _ = jax.jit(toy_step)(state, jnp.float32(0.5))
    recomputed = recompute_check(jax.jit(toy_step, donate_argnums=0), state, jnp.float32(0.5))
    assert recomputed.differences == () and recomputed.metrics == 0.5
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))  # it was donated
    for own, theirs in zip(
        jax.tree.leaves(recomputed.state), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(own, theirs)
        assert own.sharding.is_equivalent_to(theirs.sharding, own.ndim)


def test_a_bit_that_flips_in_the_second_computation_is_found():
    config = tiny_run(mesh=MESH)
    mesh = mesh_of(config)
    name, device = "params['token_embedding']['embedding']", mesh.devices.flat[6]
    state = random_state(config, mesh)
    (found,) = recompute_check(Faulty(name, device), state, jnp.float32(0.5)).differences
    assert (found.name, found.devices) == (name, (device,))


def checked(config: RunConfig, every: int) -> RunConfig:
    return replace(config, guard=GuardConfig(check_every=every))


def test_a_run_is_told_where_its_state_is_corrupt():
    config = checked(tiny_run(mesh=MESH), 5)
    mesh = mesh_of(config)
    checks, device = StateChecks(config, mesh), mesh.devices.flat[6]
    assert [step for step in range(1, 16) if checks.is_due(step)] == [5, 10, 15]
    name = "params['decoder']['final_norm']['scale']"
    with pytest.raises(SilentCorruption, match=r"computed twice.*final_norm.*device 6 \(process 0"):
        checks.step(Faulty(name, device), random_state(config, mesh), jnp.float32(0.5))
    state = changed_state(random_state(config, mesh), name, device, flipped)
    with pytest.raises(SilentCorruption, match=r"replicas.*final_norm.*device 6 \(process 0"):
        checks.step(jax.jit(toy_step, donate_argnums=0), state, jnp.float32(0.5))


def test_checks_that_are_not_asked_for_are_never_due():
    config = tiny_run()
    checks = StateChecks(config, mesh_of(config))
    assert not any(checks.is_due(step) for step in range(100))


def test_a_gpu_must_be_told_to_repeat_its_bits():
    with pytest.raises(InputError, match="guard.check_every: got 5, expected 0, or"):
        require_repeatable(5, "gpu", {"XLA_FLAGS": "--xla_gpu_deterministic_ops=false"})
    require_repeatable(5, "gpu", {"XLA_FLAGS": "--x=1 --xla_gpu_deterministic_ops=true"})
    require_repeatable(0, "gpu", {})
    require_repeatable(5, "tpu", {})


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [MeshConfig(), MESH], ids=["one device", "eight"])
def test_a_train_step_computed_twice_gives_the_bits_of_one(mesh):
    config = tiny_run(mesh=mesh)
    mesh = mesh_of(config)
    batch = put_batch(random_batch(config), batch_sharding(config, mesh))
    train_step = make_train_step(config, mesh)
    recomputed = recompute_check(train_step, random_state(config, mesh), batch)
    assert recomputed.differences == ()
    once, _ = train_step(random_state(config, mesh), batch)
    jax.tree.map(np.testing.assert_array_equal, recomputed.state, once)
