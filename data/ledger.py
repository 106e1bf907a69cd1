"""The token ledger: where every token that was read went."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from configs.errors import require
from data.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Counts of target positions over a run.

    tokens_read = tokens_trained_on + those whose loss weight is 0 (the <s> that opens the next
    document in a row is nobody's target). Every position of a batch is read or padded. Over whole
    epochs, tokens_read + tokens_dropped is the stream's tokens times the epochs.

    Attributes:
        rows_per_epoch: rows in one turn of the corpus.
        dropped_per_epoch: tokens a turn leaves over (num_tokens % seq_len).
        tokens_read: target positions that held a token.
        tokens_trained_on: those with a loss weight above 0.
        tokens_padded: positions without a token.
        tokens_truncated: tokens cut off because a document was longer than a row; rows continue
            from one to the next, so causal language modelling cuts none.
        rows: rows read.
    """

    rows_per_epoch: int
    dropped_per_epoch: int
    tokens_read: int = 0
    tokens_trained_on: int = 0
    tokens_padded: int = 0
    tokens_truncated: int = 0
    rows: int = 0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            fits = type(value) is int and value >= (field.name == "rows_per_epoch")
            require(fits, f"ledger.{field.name}", value, "a whole number")

    @property
    def epochs(self) -> float:
        """Turns of the corpus that were read."""
        return self.rows / self.rows_per_epoch

    @property
    def tokens_dropped(self) -> int:
        """Tokens the finished epochs left over."""
        return self.rows // self.rows_per_epoch * self.dropped_per_epoch

    def add(self, batch: Batch) -> "Ledger":
        """The ledger after one more batch of [B, L] positions."""
        tokens_read = int(np.count_nonzero(batch.segment_ids))
        return replace(
            self,
            tokens_read=self.tokens_read + tokens_read,
            tokens_trained_on=self.tokens_trained_on + int(np.count_nonzero(batch.loss_weights)),
            tokens_padded=self.tokens_padded + batch.segment_ids.size - tokens_read,
            rows=self.rows + len(batch.segment_ids),
        )

    def to_json(self) -> dict[str, Any]:
        """The ledger as JSON types, `tokens_dropped` and `epochs` worked out."""
        counts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**counts, "tokens_dropped": self.tokens_dropped, "epochs": self.epochs}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Ledger":
        """Reads what `to_json` wrote.

        Raises:
            InputError: unknown or missing keys, or a count that is not a whole number.
        """
        names = {field.name for field in fields(cls)}
        expected = names | {"tokens_dropped", "epochs"}
        require(
            isinstance(record, Mapping) and set(record) == expected,
            "ledger",
            record,
            f"an object with {', '.join(sorted(expected))}",
        )
        return cls(**{name: record[name] for name in names})
