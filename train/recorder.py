"""From device scalars to the records of metrics.jsonl."""

import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from configs.schema import RunConfig
from data.ledger import Ledger
from planner.flops import training_flops_per_row
from train.goodput import Goodput
from train.metrics import TensorBoard
from train.progress import TrainingProgress
from train.run_directory import RunDirectory
from train.step import StepMetrics

_MEASURED = ("loss", "z_loss", "auxiliary_loss", "grad_norm", "learning_rate")


class _TimedStep(NamedTuple):
    """Seconds a step took, and what it came to, places without tokens counted like tokens."""

    seconds: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0
    flops_palm: float = 0.0


class Clock:
    """Wall-clock seconds of training, over restarts.

    Args:
      already: seconds counted before this start.
    """

    def __init__(self, already: float):
        self._start = time.perf_counter() - already

    def seconds(self) -> float:
        return time.perf_counter() - self._start


class Recorder:
    """Reads each step's metrics, times steps, and writes every `log_every`-th record.

    MFU = model FLOPs (attention halved for the causal mask, recomputation not counted) per
    second over the peak of all devices; `mfu_palm` does not halve attention.
    """

    def __init__(
        self,
        config: RunConfig,
        run: RunDirectory,
        board: TensorBoard,
        clock: Clock,
        goodput: Goodput,
        peak_flops: float,
    ):
        self._model, self._objective = config.model, config.objective
        self._training, self._run, self._board = config.training, run, board
        self._clock, self._goodput, self._peak_flops = clock, goodput, peak_flops
        self._step_seconds: list[float] = []
        self._since_log: list[_TimedStep] = []
        self._last_read: float | None = None

    def pause(self) -> None:
        """Leaves out of the step times whatever happens until the next read."""
        self._last_read = None

    def read(
        self,
        step: int,
        metrics: StepMetrics,
        shape: tuple[int, int],
        ledger: Callable[[], Ledger],
        bar: TrainingProgress,
    ) -> dict[str, float]:
        """Waits for a step, and records it if its turn has come.

        Args:
          step: steps done once this one is.
          shape: rows of the step's batch, and their row length (a `seq_len`).
          ledger: gives the whole run's, this step included; called where the step is recorded, by
            all processes together.

        Returns:
          The step's metrics by name, recorded or not.
        """
        # All copies to the host begin before the first is waited for.
        values = {name: float(value) for name, value in jax.device_get(metrics)._asdict().items()}
        now = time.perf_counter()
        if self._last_read is not None:
            self._step_seconds.append(now - self._last_read)
            self._since_log.append(self._timed(now - self._last_read, shape))
        self._last_read = now
        if step % self._training.log_every and step not in (1, self._training.num_steps):
            return values
        timed = _TimedStep(*map(sum, zip(*self._since_log, strict=True)))  # type: ignore[arg-type]
        steps = len(self._since_log)
        self._since_log.clear()
        counted = ledger()
        record = {
            "step": step,
            **{name: _finite(values[name]) for name in _MEASURED},
            "applied": bool(values["applied"]),
            "tokens": counted.tokens_trained_on,
            "tokens_read": counted.tokens_read,
            "tokens_padded": counted.tokens_padded,
            "epochs": max(counted.epochs(number) for number in range(len(counted.facts))),
            "step_seconds": timed.seconds / steps if steps else None,
            "tokens_per_second": timed.tokens / timed.seconds if steps else None,
            "mfu": timed.flops / timed.seconds / self._peak_flops if steps else None,
            "mfu_palm": timed.flops_palm / timed.seconds / self._peak_flops if steps else None,
            "train_seconds": self._clock.seconds(),
            "goodput": self._goodput.share(),
        }
        self._run.append("metrics.jsonl", record)
        self._board.write(record, "train")
        self._goodput.write(is_due=False)
        bar.update(record)
        return values

    def median_step_seconds(self) -> float | None:
        """Of all steps timed in this process; None before two steps were read."""
        return statistics.median(self._step_seconds) if self._step_seconds else None

    def _timed(self, seconds: float, shape: tuple[int, int]) -> "_TimedStep":
        rows, seq_len = shape
        lengths = self._objective.lengths(seq_len)
        flops = training_flops_per_row(self._model, lengths).total
        palm = training_flops_per_row(self._model, lengths, causal=False).total
        return _TimedStep(seconds, rows * lengths.places, rows * flops, rows * palm)


def _finite(value: float) -> float | None:
    """The number, or None for what JSON cannot say."""
    return value if math.isfinite(value) else None
