"""Rows as training consumes them: of one corpus or of several, under one objective.

Row i is a pure function of (corpora, seed, i): the mixture says which corpus serves it and as which
of that corpus's rows, the packing says which tokens that row holds, the objective makes an example
of them, with noise drawn from (seed, i).
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from configs.objective_config import ExampleLengths, ObjectiveConfig
from data.batches import Batch, stack_examples
from data.ledger import CorpusFacts, RowEntry
from data.mixture import Assignment
from data.objectives import OBJECTIVES
from data.objectives.example import Context, Example
from data.objectives.symbols import Symbols
from data.packing import Packing
from data.tokenizer import PAD_ID

NO_SYMBOLS = Symbols(0, *[np.zeros(0, bool)] * 4, ids={})
"""For objectives that ask nothing of a tokenizer, as causal language modelling does."""

_TOKEN_FIELDS = ("inputs", "targets", "encoder_inputs")


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
        symbols: Symbols = NO_SYMBOLS,
        assignment: Assignment | None = None,
    ):
        """Args:
        packings: name of a corpus -> its rows.
        seed: of the data.
        objective: turns rows into examples.
        symbols: of the tokenizer, which all corpora share.
        assignment: which corpus serves which row; None where there is one corpus.
        """
        self.names = tuple(packings)
        self.seed, self.objective = seed, objective
        self._packings: Sequence[Packing] = tuple(packings.values())
        self.assignment = assignment
        self._transform = OBJECTIVES[type(objective)].transform
        self._context = cache(lambda length: Context(symbols, objective.lengths(length)))
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
        packing = self._packings[corpus]
        row = packing.row(own_number)
        example = self._transform(
            self.objective,
            row,
            lambda: np.random.default_rng([self.seed, number]),
            self._context(packing.length(own_number)),
        )
        trained_on = int(np.count_nonzero(example.loss_weights))
        entry = RowEntry(corpus, row.epoch, 1, len(row.tokens), *row.counts, trained_on)
        return ServedRow(example, entry)

    def batch(
        self, numbers: Sequence[int] | np.ndarray, *, length: int | None = None
    ) -> ServedBatch:
        """The rows of `numbers` [B], stacked in that order.

        Args:
            length: the batch length of the batch these rows are part of; None: they are all of it.
        """
        served = [self.row(int(number)) for number in numbers]
        lengths = self.lengths(length or self.batch_length(numbers))
        examples = [padded(row.example, lengths) for row in served]
        entries = [_with_padding(row.entry, lengths.tokens) for row in served]
        return ServedBatch(stack_examples(examples), entries)

    def lengths(self, length: int) -> ExampleLengths:
        """Lengths of the examples in a batch of a batch length."""
        return self._context(length).lengths

    def batch_length(self, numbers: Sequence[int] | np.ndarray) -> int:
        """The row length of the batch of `numbers`: that of its longest row (`Packing.length`)."""
        lengths = set()
        for number in numbers:
            corpus, own_number = self.locate(int(number))
            lengths.add(self._packings[corpus].length(own_number))
        return max(lengths)


def _with_padding(entry: RowEntry, places: int) -> RowEntry:
    """The entry of a row that is given as many places as the longest of its batch."""
    missing = places - entry.places
    return entry._replace(places=places, padded=entry.padded + missing)


def padded(example: Example, lengths: ExampleLengths) -> Example:
    """The example with padding after each of its sides, fields [length] and [encoder_length]."""

    def pad(name: str, field: np.ndarray | None) -> np.ndarray | None:
        if field is None:
            return None
        size = lengths.encoder_length if name.startswith("encoder") else lengths.length
        value = PAD_ID if name in _TOKEN_FIELDS else 0
        return np.pad(field, (0, size - len(field)), constant_values=value)

    if (len(example.inputs), _size(example.encoder_inputs)) == (
        lengths.length,
        lengths.encoder_length,
    ):
        return example
    return Example(**{name: pad(name, field) for name, field in example._asdict().items()})  # type: ignore[arg-type]


def _size(field: np.ndarray | None) -> int:
    return 0 if field is None else len(field)
