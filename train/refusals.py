"""What becomes of a step whose update was not applied: passed over, rewound, or the end of the run.

The train step itself refuses (train/guard.py); here the run decides how to go on. All processes
read the same numbers and decide alike.
"""

import io
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.errors import InputError
from configs.schema import GuardConfig
from data.batches import Batch

CULPRITS_FOLDER = "culprits"


class Refused(NamedTuple):
    """A batch that left no trace in the parameters.

    first_row, stop_row: its rows, stop excluded; where rows were rewound, all that are passed over.
    action: "skipped" (the update was) or "rewound" (the run went back and passes the rows over).
    """

    step: int
    first_row: int
    stop_row: int
    reason: str
    action: str

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


class Rewind(Exception):
    """Go back to a checkpoint before `step`, and pass over the rows from there to `stop_row`."""

    def __init__(self, step: int, stop_row: int, reason: str):
        super().__init__(f"step {step}: {reason}")
        self.step, self.stop_row, self.reason = step, stop_row, reason


class TooManyRefusals(FloatingPointError):
    """The limit of refused updates in a row, or of rewinds, is reached."""


class Refusals(NamedTuple):
    """What a run has refused so far; travels in its checkpoints.

    in_a_row: updates refused since the last one that was applied. rewinds: times it went back.
    """

    refused: tuple[Refused, ...] = ()
    in_a_row: int = 0
    rewinds: int = 0

    def after(
        self, guard: GuardConfig, step: int, rows: np.ndarray, values: dict[str, float]
    ) -> "Refusals":
        """What follows from a step's metrics.

        Raises:
          Rewind: a spike, and the config wants the run to go back.
          TooManyRefusals: it is one too many.
        """
        if values["applied"]:
            return self._replace(in_a_row=0) if self.in_a_row else self
        reason = _reason(values)
        first, stop = int(rows[0]), int(rows[-1]) + 1
        if values["is_spike"] and guard.spike_action == "rewind":
            if self.rewinds >= guard.max_rewinds:
                raise TooManyRefusals(
                    f"step {step}: {reason}; guard.max_rewinds ({guard.max_rewinds}) are used up"
                )
            raise Rewind(step, stop, reason)
        refused = Refused(step, first, stop, reason, "skipped")
        after = self._replace(refused=(*self.refused, refused), in_a_row=self.in_a_row + 1)
        if after.in_a_row >= guard.nonfinite_limit:
            raise TooManyRefusals(
                f"step {step}: {reason}; {after.in_a_row} updates in a row were refused, "
                f"guard.nonfinite_limit is {guard.nonfinite_limit}"
            )
        return after

    def rewound(self, rewind: Rewind, first_row: int, rewinds: int) -> "Refusals":
        """After going back to before `first_row`; `rewinds` counts this one."""
        refused = Refused(rewind.step, first_row, rewind.stop_row, rewind.reason, "rewound")
        return self._replace(refused=(*self.refused, refused), rewinds=rewinds)

    def to_json(self) -> dict[str, Any]:
        refused = [one.to_json() for one in self.refused]
        return {"refused": refused, "in_a_row": self.in_a_row, "rewinds": self.rewinds}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Refusals":
        refused = tuple(Refused(**one) for one in record["refused"])
        return cls(refused, record["in_a_row"], record["rewinds"])


def save_culprit(folder: Path, step: int, rows: np.ndarray, batch: Batch, reason: str) -> Path:
    """Keeps the batch that a run ended on, as this process had it, for `isoflop inspect --culprit`.

    Args:
      folder: the run's `culprits/`.
      rows: row numbers [b] of `batch`.
    """
    folder.mkdir(exist_ok=True)
    fields = {name: array for name, array in batch._asdict().items() if array is not None}
    path = folder / f"{step}.npz"
    np.savez_compressed(path, rows=rows, reason=np.array(reason), **fields)
    return path


def read_culprit(folder: Path, step: int) -> tuple[np.ndarray, Batch, str]:
    """Row numbers, batch and reason that `save_culprit` wrote.

    Raises:
      InputError: there is none of that step, or it cannot be read.
    """
    path = folder / f"{step}.npz"
    if not path.is_file():
        kept = ", ".join(sorted(p.stem for p in folder.glob("*.npz"))) or "none"
        raise InputError(f"culprit: got step {step}, expected one of those kept: {kept}")
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            fields = {name: arrays[name] for name in arrays.files}
        rows, reason = fields.pop("rows"), str(fields.pop("reason"))
        return rows, Batch(**fields), reason
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"culprit: got {path} ({error}), expected a batch kept whole") from error


def _reason(values: dict[str, float]) -> str:
    if values["is_spike"]:
        return f"a spike: loss {values['loss']:.4g}"
    names = ("loss", "z_loss", "auxiliary_loss", "grad_norm")
    wrong = [f"{name} is {values[name]}" for name in names if not np.isfinite(values[name])]
    return ", ".join(wrong) or "a gradient is not finite"
