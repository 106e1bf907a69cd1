"""The programs of a run, compiled ahead of its first batch."""

import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from configs.schema import RunConfig
from data.batches import Batch
from train.compilation_cache import counted_hits
from train.state import TrainState, abstract_state
from train.step import StepMetrics, batch_sharding, make_eval_step, make_train_step

BatchShapes = tuple[tuple[int, ...], ...]


class CompiledSteps(NamedTuple):
    """Train steps by the shape of their batch, the evaluation step; how long compiling took, the
    memory of the largest train step, and how many of them the compilation cache held."""

    train_steps: dict[BatchShapes, Any]
    eval_step: Any
    seconds: float
    peak_bytes: int
    num_cached: int = 0

    def describe(self) -> str:
        """One line: "compiled 2 programs in 3.2 s (1 of them from the cache)"."""
        programs = len(self.train_steps) + 1
        return (
            f"compiled {programs} programs in {self.seconds:.1f} s "
            f"({self.num_cached} of them from the cache)"
        )

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        """The step compiled for a batch of this shape."""
        return self.train_steps[_shapes(batch)](state, batch)


def compile_steps(config: RunConfig, mesh: Mesh) -> CompiledSteps:
    """Compiles the steps for a mesh, for every batch shape of the run, ahead of the first batch."""
    start = time.perf_counter()
    state = abstract_state(config, mesh)
    train_step, train_steps, peak_bytes = make_train_step(config, mesh), {}, 0
    with counted_hits() as hits:
        for shape in batch_shapes(config):
            batch = abstract_batch(config, mesh, shape)
            compiled = train_step.lower(state, batch).compile()
            train_steps[_shapes(batch)] = compiled
            if memory := compiled.memory_analysis():
                bytes_needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
                peak_bytes = max(peak_bytes, bytes_needed)
        batch = abstract_batch(config, mesh)
        eval_step = make_eval_step(config, mesh).lower(state.params, batch).compile()
    seconds = time.perf_counter() - start
    return CompiledSteps(train_steps, eval_step, seconds, peak_bytes, len(hits))


def batch_shapes(config: RunConfig) -> list[tuple[int, int]]:
    """Rows and row length (a `seq_len`) of every batch that the run may meet."""
    return [
        (size, length) for size in config.training.batch_sizes for length in config.data.row_lengths
    ]


def abstract_batch(config: RunConfig, mesh: Mesh, shape: tuple[int, int] | None = None) -> Batch:
    """Shape, dtype and sharding of a batch's arrays.

    Args:
      shape: rows and row length (a `seq_len`); None for those of a full batch.
    """
    rows, seq_len = shape or (config.training.batch_size, config.data.seq_len)
    lengths, sharding = config.objective.lengths(seq_len), batch_sharding(config, mesh)

    def field(name: str) -> jax.ShapeDtypeStruct | None:
        length = lengths.encoder_length if name.startswith("encoder_") else lengths.length
        if length == 0 or (name == "prefix" and not lengths.has_prefix):
            return None
        dtype = np.float32 if name == "loss_weights" else np.int32
        return jax.ShapeDtypeStruct((rows, length), dtype, sharding=sharding)

    fields: dict[str, Any] = {name: field(name) for name in Batch._fields}
    return Batch(**fields)


def _shapes(batch: Batch) -> BatchShapes:
    return tuple(array.shape for array in jax.tree.leaves(batch))
