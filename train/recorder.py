"""From device scalars to the records of metrics.jsonl."""

import math
import statistics
import time

from configs.schema import RunConfig
from planner.accounting import training_flops_per_token
from train.metrics import TensorBoard
from train.progress import TrainingProgress
from train.run_directory import RunDirectory
from train.step import StepMetrics


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
        peak_flops: float,
    ):
        seq_len = config.data.seq_len
        self._flops = training_flops_per_token(config.model, seq_len).total
        self._flops_palm = training_flops_per_token(config.model, seq_len, causal=False).total
        self._batch_tokens = config.batch_tokens
        self._training, self._run, self._board = config.training, run, board
        self._clock, self._peak_flops = clock, peak_flops
        self._step_seconds: list[float] = []
        self._since_log: list[float] = []
        self._last_read: float | None = None

    def pause(self) -> None:
        """Leaves out of the step times whatever happens until the next read."""
        self._last_read = None

    def read(self, step: int, metrics: StepMetrics, tokens: int, bar: TrainingProgress) -> None:
        """Waits for a step, and records it if its turn has come.

        Args:
          step: steps done once this one is.
          tokens: trained on so far, this step included.

        Raises:
          FloatingPointError: the loss is not finite.
        """
        values = {name: float(value) for name, value in metrics._asdict().items()}
        now = time.perf_counter()
        if self._last_read is not None:
            self._step_seconds.append(now - self._last_read)
            self._since_log.append(now - self._last_read)
        self._last_read = now
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(f"the loss of step {step} is {values['loss']}")
        if step % self._training.log_every and step not in (1, self._training.num_steps):
            return
        seconds = statistics.fmean(self._since_log) if self._since_log else math.nan
        self._since_log.clear()
        speed = self._batch_tokens / seconds
        record = {
            "step": step,
            "loss": values["loss"],
            "z_loss": values["z_loss"],
            "grad_norm": values["grad_norm"],
            "learning_rate": values["learning_rate"],
            "tokens": tokens,
            "step_seconds": _number(seconds),
            "tokens_per_second": _number(speed),
            "mfu": _number(speed * self._flops / self._peak_flops),
            "mfu_palm": _number(speed * self._flops_palm / self._peak_flops),
            "train_seconds": self._clock.seconds(),
        }
        self._run.append("metrics.jsonl", record)
        self._board.write(record, "train")
        bar.update(record)

    def median_step_seconds(self) -> float | None:
        """Of all steps timed in this process; None before two steps were read."""
        return statistics.median(self._step_seconds) if self._step_seconds else None


def _number(value: float) -> float | None:
    """None for what could not be measured: JSON has no NaN."""
    return value if math.isfinite(value) else None
