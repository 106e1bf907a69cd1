"""One of N processes, of one device each, that train the tiny run of the mesh tests together.

python train_process.py OUT AXIS PROCESS NUM_PROCESSES PORT

Process 0 writes ten losses and the first step's first moments, put together again.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental.multihost_utils import process_allgather

from configs.schema import MeshConfig
from data.batches import Batch
from tests.model.samples import QUICK_COMPILE
from tests.train.samples import random_batch, random_state, tiny_run
from train.feed import put_batch
from train.mesh import make_mesh
from train.step import batch_sharding, make_train_step

NUM_STEPS = 10


def main() -> None:
    out, axis = sys.argv[1:3]
    process, num_processes, port = map(int, sys.argv[3:])
    if num_processes > 1:
        jax.distributed.initialize(f"localhost:{port}", num_processes, process)
    sizes: Any = {axis: num_processes}
    config = tiny_run(mesh=MeshConfig(**sizes))
    mesh = make_mesh(config.mesh)
    sharding = batch_sharding(config, mesh)

    def batch(step: int) -> Batch:
        return put_batch(random_batch(config, seed=step), sharding)

    state = random_state(config, mesh)
    compiled = make_train_step(config, mesh).lower(state, batch(0)).compile(QUICK_COMPILE)
    losses, moments = [], {}
    for number in range(NUM_STEPS):
        state, metrics = compiled(state, batch(number))
        losses.append(float(metrics.loss))  # awaited: gloo may deadlock with steps in flight
        if number == 0:
            mu = [mu for _, mu in optax.tree.get_all_with_path(state.opt_state, "mu")]
            flat = jax.tree_util.tree_leaves_with_path(process_allgather(mu, tiled=True))
            moments = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}
    if process == 0:
        arrays: Any = {"losses": np.array(losses), **moments}
        np.savez(Path(out), **arrays)


if __name__ == "__main__":
    main()
