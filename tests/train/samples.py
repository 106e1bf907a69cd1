"""Tiny runs: a config, packed batches with uneven loss weights, and a state without any compile."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from configs.data_config import DataConfig
from configs.model_config import AttentionConfig
from configs.objective_config import CausalLMConfig
from configs.optimizer_config import AdamWConfig, CosineConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from data.batches import Batch
from tests.model.samples import QUICK_COMPILE, random_params, tiny_model
from train.guard import new_guard
from train.mesh import make_mesh
from train.optimizers import make_optimizer
from train.programs import CompiledSteps, abstract_batch, batch_shapes
from train.schedules import make_schedule
from train.state import TrainState, abstract_state
from train.step import make_eval_step, make_train_step

BATCH_SIZE, SEQ_LEN = 8, 16
ONE_DEVICE = MeshConfig()
CAUSAL = CausalLMConfig()


def tiny_run(
    *,
    mesh: MeshConfig = ONE_DEVICE,
    model: Any = None,
    objective: Any = CAUSAL,
    **training: Any,
) -> RunConfig:
    """Ten steps of eight rows of 16 tokens; every width divides over eight devices."""
    model = model or tiny_model(
        attention=AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=8), tie_embeddings=True
    )
    defaults = {"num_steps": 10, "batch_size": BATCH_SIZE, "z_loss": 1e-2}
    return RunConfig(
        model=model,
        objective=objective,
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
    """Rows of two documents; about a third of the targets do not count, in some rows none does.

    Whatever the objective, it has the fields of its examples: a prefix that begins each document,
    an encoder's rows of the same two segments.
    """
    rng = np.random.default_rng(seed)
    lengths, rows = config.lengths, config.training.batch_size
    shape = (rows, lengths.length)
    inputs, targets = rng.integers(0, config.model.vocab_size, (2, *shape), dtype=np.int32)
    positions, segment_ids = _two_documents(rng, *shape)
    weights = (rng.random(shape) < 0.7).astype(np.float32)
    weights[1] = 0.0
    batch = Batch(inputs, targets, weights, positions, segment_ids)
    if lengths.has_prefix:
        batch = batch._replace(prefix=(positions < 3).astype(np.int32))
    if not lengths.encoder_length:
        return batch
    shape = (rows, lengths.encoder_length)
    tokens = rng.integers(0, config.model.vocab_size, shape, dtype=np.int32)
    encoder_positions, encoder_segment_ids = _two_documents(rng, *shape)
    return batch._replace(
        encoder_inputs=tokens,
        encoder_positions=encoder_positions,
        encoder_segment_ids=encoder_segment_ids,
    )


def _two_documents(
    rng: np.random.Generator, rows: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and segment ids [rows, length], cut at a random place in each row."""
    index, cut = np.arange(length), rng.integers(1, length, (rows, 1))
    positions = np.where(index < cut, index, index - cut).astype(np.int32)
    return positions, np.where(index < cut, 1, 2).astype(np.int32)


def random_state(config: RunConfig, mesh: Mesh, seed: int = 0) -> TrainState:
    """A state before step 0 with random parameters, put onto the mesh."""
    params = random_params(config.model, seed)
    opt_state = make_optimizer(config.optimizer, config.training.num_steps).init(params)
    guard = new_guard(config.guard)
    state = TrainState(jnp.zeros((), jnp.int32), params, opt_state, guard)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    # Copies, so that donating the state leaves nothing of it deleted elsewhere.
    return jax.tree.map(lambda x, s: jax.device_put(np.array(x), s), state, shardings)


def rate_at(optimizer: AdamWConfig, step: int, num_steps: int) -> float:
    """The learning rate of a step."""
    schedule = make_schedule(optimizer.schedule, optimizer.learning_rate, num_steps)
    return float(np.asarray(schedule(step)))


def compile_steps_quickly(config: RunConfig, mesh: Mesh) -> CompiledSteps:
    """What `train.programs.compile_steps` gives, compiled in half the time to slower code."""
    state, train_steps = abstract_state(config, mesh), {}
    for shape in batch_shapes(config):
        batch = abstract_batch(config, mesh, shape)
        step = make_train_step(config, mesh).lower(state, batch)
        arrays = tuple(array.shape for array in jax.tree.leaves(batch))
        train_steps[arrays] = step.compile(QUICK_COMPILE)
    eval_step = make_eval_step(config, mesh).lower(state.params, abstract_batch(config, mesh))
    return CompiledSteps(
        train_steps, eval_step.compile(QUICK_COMPILE), seconds=1.0, peak_bytes=1000
    )
