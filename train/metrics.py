"""Throughput, MFU and where the numbers go."""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from planner.hardware import chip_of_device


def peak_flops_per_second(devices: list[Any]) -> tuple[float, str]:
    """Peak of the devices together, FLOP/s, and where the figure is from.

    Known chips: the vendor's dense bf16 peak. Anything else (a CPU): the best of a few large
    fp32 matrix products, timed now on all of it.
    """
    chip = chip_of_device(devices[0].device_kind)
    if chip is not None:
        return chip.bf16_flops / chip.devices * len(
            devices
        ), f"{chip.name} dense bf16, vendor's figure"
    return _measured_matmul_flops(), "largest fp32 matrix product measured at start"


def _measured_matmul_flops(size: int = 1536, trials: int = 4) -> float:
    import time

    x = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(jnp.dot)
    multiply(x, x).block_until_ready()
    best = float("inf")
    for _ in range(trials):
        start = time.perf_counter()
        multiply(x, x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best


class TensorBoard:
    """Scalars for TensorBoard; with `is_writer` False it writes nothing.

    Written in the caller's thread: tensorboardX's own writer has a thread and a queue, and once a
    full disk has ended the thread, whoever puts into the queue waits for ever.
    """

    def __init__(self, folder: Path, is_writer: bool = True):
        from tensorboardX.event_file_writer import EventsWriter

        self._events = None
        if is_writer:
            folder.mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(folder / "events"))

    def write(self, record: dict[str, Any], prefix: str) -> None:
        """Every number of a record but its step, under `prefix/name`.

        Raises:
          OSError: the disk refuses.
        """
        from tensorboardX.proto import event_pb2, summary_pb2

        if self._events is None:
            return
        summary: Any = summary_pb2.Summary  # type: ignore[attr-defined]
        values = [
            summary.Value(tag=f"{prefix}/{name}", simple_value=value)
            for name, value in record.items()
            if name != "step" and isinstance(value, int | float)
        ]
        event = event_pb2.Event(  # type: ignore[attr-defined]
            wall_time=time.time(), step=record["step"], summary=summary(value=values)
        )
        self._events.write_event(event)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
