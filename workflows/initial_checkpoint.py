"""A run's checkpoint before its first step, where its weights come from elsewhere."""

from typing import Any

import jax
import numpy as np

from configs.errors import require
from configs.schema import RunConfig
from data.batches import Cursor
from data.dataset import Corpora, training_rows
from data.ledger import Ledger
from model.build import Params
from train.checkpoint import Checkpoints
from train.mesh import make_mesh
from train.run_directory import RunDirectory
from train.state import init_state
from train.training import Progress


def write_initial_checkpoint(
    run: RunDirectory, config: RunConfig, corpora: Corpora, params: Params
) -> None:
    """Writes step 0 of a run: the given parameters, and fresh ones for a head they do not have.

    Args:
      params: of a model of the same shape, layers stacked; its head may be another.

    Raises:
      InputError: parameters other than the head's are missing or of other shapes.
    """
    fresh = init_state(config, make_mesh(config.mesh))
    state = fresh._replace(params=merged(fresh.params, params))
    ledger = Ledger(facts=training_rows(config, corpora).facts)
    checkpoints = Checkpoints(run.checkpoints)
    checkpoints.save(state, Progress(Cursor(), ledger, 0.0).to_json())
    checkpoints.close()


def has_checkpoint(run: RunDirectory) -> bool:
    """Whether the run has a checkpoint of any step."""
    return any(path.name.isdigit() for path in run.checkpoints.glob("*"))


def merged(fresh: Params, given: Params) -> Params:
    """The given parameters in the places of fresh ones.

    A head is kept whole, where it is the same to the last array, or else is fresh whole.

    Raises:
      InputError: as `write_initial_checkpoint`.
    """
    is_same_head = _shapes(fresh.get("head")) == _shapes(given.get("head"))
    taken: dict[str, Any] = {
        name: given.get(name) for name in fresh if name != "head" or is_same_head
    }
    for name, part in taken.items():
        expected = _shapes(fresh[name])
        require(_shapes(part) == expected, f"parameters of {name}", _shapes(part), str(expected))
    placed = {
        name: jax.tree.map(
            lambda array, leaf: jax.device_put(np.asarray(array), leaf.sharding), part, fresh[name]
        )
        for name, part in taken.items()
    }
    return {name: placed.get(name, part) for name, part in fresh.items()}


def _shapes(params: Any) -> Any:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), params)
