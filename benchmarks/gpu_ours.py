"""One of our train steps under the clock, on the first device of this machine.

    .venv/bin/python -m benchmarks.gpu_ours CASE OUT.json --steps 20 --seconds 30

CASE is a timed or smoke case of benchmarks/gpu_cases.py. The program is the one that `isoflop
train` runs, with its XLA flags; the batch is random tokens, the same in every step. A step ends
when its loss has been read.
"""

import argparse
import importlib.metadata
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_attention import cudnn_calls
from benchmarks.gpu_cases import SMOKE_CASES, TIMED_CASES
from configs.schema import RunConfig
from configs.serialize import write_json
from planner.accounting import total_params, training_bytes
from train.platform import expected_platform, flags_in_force, set_flags

_WARM_UP_STEPS = 3
_FEWEST_STEPS = 5
_VERSIONED = ("jax", "jaxlib", "flax", "optax", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")


def measure(config: RunConfig, *, max_steps: int, max_seconds: float) -> dict[str, Any]:
    """Compiles and times the config's train step.

    Args:
      max_steps: timed at most; fewer (five at least) where they take longer than `max_seconds`.

    Returns:
      status: "measured" or, where the compiler's count exceeds the device's memory, "does not
      fit". seconds: median of a step. step_seconds: of each. peak_bytes: the allocator's high-water
      mark, None where it keeps none (CPUs). compiled_bytes: arguments and temporaries by the
      compiler. planned_bytes: by the planner. losses: first and last.
    """
    import jax

    from train.mesh import make_mesh
    from train.state import abstract_state, init_state
    from train.step import batch_sharding, make_train_step

    device = jax.devices()[0]
    mesh = make_mesh(config.mesh, [device])
    batch = jax.device_put(random_batch(config), batch_sharding(config, mesh))
    start = time.perf_counter()
    step = make_train_step(config, mesh).lower(abstract_state(config, mesh), batch).compile()
    compile_seconds = time.perf_counter() - start
    memory = step.memory_analysis()
    assert memory is not None
    limit = (device.memory_stats() or {}).get("bytes_limit")
    record: dict[str, Any] = {
        "device": device.device_kind,
        "platform": device.platform,
        "params": total_params(config.model),
        "compile_seconds": compile_seconds,
        "compiled_bytes": memory.argument_size_in_bytes + memory.temp_size_in_bytes,
        "planned_bytes": training_bytes(config, platform=_platform(device.platform)).total,
        "limit_bytes": limit,
        "cudnn_calls": cudnn_calls(step.as_text() or ""),
        "flags": flags_in_force(),
        "versions": _versions(),
    }
    if limit is not None and record["compiled_bytes"] > limit:
        return record | {"status": "does not fit"}
    state, losses, seconds = init_state(config, mesh), [], []
    for number in range(_WARM_UP_STEPS + max_steps):
        start = time.perf_counter()
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
        if number >= _WARM_UP_STEPS:
            seconds.append(time.perf_counter() - start)
        if len(seconds) >= _FEWEST_STEPS and sum(seconds) > max_seconds:
            break
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return record | {
        "status": "measured",
        "seconds": statistics.median(seconds),
        "step_seconds": seconds,
        "peak_bytes": peak,
        "losses": [losses[0], losses[-1]],
    }


def random_batch(config: RunConfig) -> Any:
    """Full rows of one document each, of random tokens, all of which count in the loss."""
    import numpy as np

    from data.batches import Batch

    lengths, rows = config.lengths, config.training.batch_size
    rng = np.random.default_rng(0)

    def tokens(length: int) -> Any:
        return rng.integers(1, config.model.vocab_size, (rows, length), dtype=np.int32)

    def places(length: int) -> Any:
        return np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)).copy()

    shape = rows, lengths.length
    batch = Batch(
        inputs=tokens(lengths.length),
        targets=tokens(lengths.length),
        loss_weights=np.ones(shape, np.float32),
        positions=places(lengths.length),
        segment_ids=np.ones(shape, np.int32),
    )
    if lengths.encoder_length:
        batch = batch._replace(
            encoder_inputs=tokens(lengths.encoder_length),
            encoder_positions=places(lengths.encoder_length),
            encoder_segment_ids=np.ones((rows, lengths.encoder_length), np.int32),
        )
    return batch


def _platform(name: str) -> Any:
    """JAX's name of a device's platform as the planner's: "cpu", "gpu" or "tpu"."""
    return "gpu" if name in ("cuda", "rocm") else name


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Measures a case and writes the record to a file."""
    cases = {case.name: case for case in (*TIMED_CASES, *SMOKE_CASES)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=cases)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    # Nothing else is on the device: all of its memory but CUDA's own may be ours.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
    set_flags("", expected_platform())
    config = cases[options.case].config()
    record = measure(config, max_steps=options.steps, max_seconds=options.seconds)
    write_json(options.out, record)


if __name__ == "__main__":
    sys.exit(main())
