"""Rows as training consumes them: of one corpus or of several, under one objective.

Row i is a pure function of (corpora, seed, i): the mixture says which corpus serves it and as which
of that corpus's rows, the packing says which tokens that row holds, the objective makes an example
of them, with noise drawn from (seed, i).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data.batches import Batch, stack_examples
from data.ledger import CorpusFacts, RowEntry
from data.mixture import Assignment
from data.objectives import OBJECTIVES, Example, ObjectiveConfig
from data.packing import Packing
from data.tokenizer import PAD_ID


class ServedRow(NamedTuple):
    """An example, and what the ledger writes down about it."""

    example: Example
    entry: RowEntry


class ServedBatch(NamedTuple):
    """A batch [B, L], and a ledger entry a row."""

    batch: Batch
    entries: list[RowEntry]


class RowSource:
    """Rows under one objective. Random access, safe to share among threads."""

    def __init__(
        self,
        packings: Mapping[str, Packing],
        *,
        seed: int,
        objective: ObjectiveConfig,
        assignment: Assignment | None = None,
    ):
        """Args:
        packings: name of a corpus -> its rows.
        seed: of the data.
        objective: turns rows into examples.
        assignment: which corpus serves which row; None where there is one corpus.
        """
        self.names = tuple(packings)
        self.seed, self.objective = seed, objective
        self._packings: Sequence[Packing] = tuple(packings.values())
        self.assignment = assignment
        self._transform = OBJECTIVES[type(objective)].transform
        assert assignment is not None or len(packings) == 1

    @property
    def facts(self) -> tuple[CorpusFacts, ...]:
        """What the ledger needs to know of each corpus."""
        return tuple(
            CorpusFacts(
                name,
                tokens=packing.stream.num_tokens,
                rows_per_epoch=packing.rows_per_epoch,
                dropped_per_epoch=packing.dropped_per_epoch,
            )
            for name, packing in zip(self.names, self._packings, strict=True)
        )

    def locate(self, number: int) -> tuple[int, int]:
        """Which corpus serves row `number`, and as which of its own rows."""
        return (0, number) if self.assignment is None else self.assignment.locate(number)

    def place(self, number: int) -> tuple[int, int]:
        """The corpus and the epoch of row `number`; nothing is read."""
        corpus, own_number = self.locate(number)
        return corpus, own_number // self._packings[corpus].rows_per_epoch

    def row(self, number: int) -> ServedRow:
        """Row number `number`, 0 or more, without an end."""
        corpus, own_number = self.locate(number)
        row = self._packings[corpus].row(own_number)
        example = self._transform(
            self.objective, row, lambda: np.random.default_rng([self.seed, number])
        )
        trained_on = int(np.count_nonzero(example.loss_weights))
        entry = RowEntry(corpus, row.epoch, 1, len(row.tokens), *row.counts, trained_on)
        return ServedRow(example, entry)

    def batch(
        self, numbers: Sequence[int] | np.ndarray, *, length: int | None = None
    ) -> ServedBatch:
        """The rows of `numbers` [B], stacked in that order.

        Args:
            length: of the batch these rows are part of; None: they are all of it.
        """
        served = [self.row(int(number)) for number in numbers]
        length = length or self.batch_length(numbers)
        examples = [padded(row.example, length) for row in served]
        entries = [_with_padding(row, length - len(row.example.inputs)) for row in served]
        return ServedBatch(stack_examples(examples), entries)

    def batch_length(self, numbers: Sequence[int] | np.ndarray) -> int:
        """Places in each row of the batch of `numbers`: those of its longest row."""
        lengths = set()
        for number in numbers:
            corpus, own_number = self.locate(int(number))
            lengths.add(self._packings[corpus].length(own_number))
        return max(lengths)


def _with_padding(row: ServedRow, missing: int) -> RowEntry:
    entry = row.entry
    return entry._replace(places=entry.places + missing, padded=entry.padded + missing)


def padded(example: Example, length: int) -> Example:
    """The example with padding after it, [length]."""
    missing = length - len(example.inputs)
    if missing == 0:
        return example
    return Example(
        inputs=np.pad(example.inputs, (0, missing), constant_values=PAD_ID),
        targets=np.pad(example.targets, (0, missing), constant_values=PAD_ID),
        loss_weights=np.pad(example.loss_weights, (0, missing)),
        positions=np.pad(example.positions, (0, missing)),
        segment_ids=np.pad(example.segment_ids, (0, missing)),
    )
