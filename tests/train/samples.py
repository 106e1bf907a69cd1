"""Tiny runs: a config, packed batches with uneven loss weights, and a state without any compile."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from configs.data_config import DataConfig
from configs.model_config import AttentionConfig
from configs.optimizer_config import AdamWConfig, CosineConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from data.batches import Batch
from tests.model.samples import random_params, tiny_model
from train.mesh import make_mesh
from train.optimizers import make_optimizer
from train.schedules import make_schedule
from train.state import TrainState, abstract_state

BATCH_SIZE, SEQ_LEN = 8, 16
ONE_DEVICE = MeshConfig()


def tiny_run(*, mesh: MeshConfig = ONE_DEVICE, model: Any = None, **training: Any) -> RunConfig:
    """Ten steps of eight rows of 16 tokens; every width divides over eight devices."""
    model = model or tiny_model(
        attention=AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=8), tie_embeddings=True
    )
    defaults = {"num_steps": 10, "batch_size": BATCH_SIZE, "z_loss": 1e-2}
    return RunConfig(
        model=model,
        data=DataConfig(seq_len=SEQ_LEN),
        optimizer=AdamWConfig(
            learning_rate=1e-2, clip_norm=0.0, schedule=CosineConfig(warmup_steps=2)
        ),
        mesh=mesh,
        training=TrainingConfig(**(defaults | training)),
    )


def mesh_of(config: RunConfig) -> Mesh:
    """The config's mesh on the first devices, however many there are."""
    return make_mesh(config.mesh, jax.devices()[: config.mesh.num_devices])


def random_batch(config: RunConfig, seed: int = 0) -> Batch:
    """Rows of two documents; about a third of the targets do not count, in some rows none does."""
    rng = np.random.default_rng(seed)
    shape = (config.training.batch_size, config.data.seq_len)
    vocab_size = config.model.vocab_size
    inputs, targets = rng.integers(0, vocab_size, (2, *shape), dtype=np.int32)
    index, cut = np.arange(shape[1]), rng.integers(1, shape[1], (shape[0], 1))
    weights = (rng.random(shape) < 0.7).astype(np.float32)
    weights[1] = 0.0
    return Batch(
        inputs=inputs,
        targets=targets,
        loss_weights=weights,
        positions=np.where(index < cut, index, index - cut).astype(np.int32),
        segment_ids=np.where(index < cut, 1, 2).astype(np.int32),
    )


def random_state(config: RunConfig, mesh: Mesh, seed: int = 0) -> TrainState:
    """A state before step 0 with random parameters, put onto the mesh."""
    params = random_params(config.model, seed)
    opt_state = make_optimizer(config.optimizer, config.training.num_steps).init(params)
    state = TrainState(jnp.zeros((), jnp.int32), params, opt_state)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    # Copies, so that donating the state leaves nothing of it deleted elsewhere.
    return jax.tree.map(lambda x, s: jax.device_put(np.array(x), s), state, shardings)


def rate_at(optimizer: AdamWConfig, step: int, num_steps: int) -> float:
    """The learning rate of a step."""
    schedule = make_schedule(optimizer.schedule, optimizer.learning_rate, num_steps)
    return float(np.asarray(schedule(step)))
