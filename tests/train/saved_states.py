"""States for the tests of checkpoints: every number another one at another step."""

from typing import Any

import jax
import numpy as np

from configs.schema import RunConfig
from tests.train.samples import mesh_of, random_state
from train.state import TrainState


def state_at(config: RunConfig, step: int) -> TrainState:
    """A state of the config's mesh, moments and counts included."""
    state = random_state(config, mesh_of(config), seed=step)

    def moved(leaf: jax.Array) -> jax.Array:
        values = np.asarray(leaf.addressable_data(0)) if leaf.ndim == 0 else leaf
        distance = np.asarray(step if leaf.ndim == 0 else step / 7, leaf.dtype)
        return jax.device_put(values + distance, leaf.sharding)

    return state._replace(step=moved(state.step), opt_state=jax.tree.map(moved, state.opt_state))


def assert_bits_equal(a: Any, b: Any) -> None:
    """The same trees, and the same bits in what this process holds of them."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if x.is_fully_addressable:
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
            continue
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
        for own, other in zip(x.addressable_shards, y.addressable_shards, strict=True):
            assert np.asarray(own.data).tobytes() == np.asarray(other.data).tobytes()
