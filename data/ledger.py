"""The token ledger: where every token went, by corpus and epoch.

Two sums hold exactly, for every corpus and epoch:
    places              = read + repeated + padded
    the corpus's tokens = read + truncated + dropped    (finished epochs)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from configs.errors import require


class CorpusFacts(NamedTuple):
    """A corpus as one packing reads it.

    tokens: in the training stream. rows_per_epoch: rows that hold it once. dropped_per_epoch:
    tokens an epoch leaves over, too few for a row.
    """

    name: str
    tokens: int
    rows_per_epoch: int
    dropped_per_epoch: int


class RowEntry(NamedTuple):
    """Counts of one row, or of several of one corpus and epoch added up.

    places: for tokens in the rows, those included that are only targets. read: tokens met for the
    first time this epoch. repeated: tokens another row holds too, where a text was cut. padded:
    places without a token. truncated: tokens cut off a document that no row holds. cuts: segments
    that begin inside their document. trained_on: targets with a loss weight above 0.
    """

    corpus: int
    epoch: int
    rows: int
    places: int
    read: int
    repeated: int
    padded: int
    truncated: int
    cuts: int
    trained_on: int

    def __add__(self, other: "RowEntry") -> "RowEntry":  # type: ignore[override]
        """The counts together; both are of one corpus and epoch."""
        sums = (a + b for a, b in zip(self[2:], other[2:], strict=True))
        return RowEntry(self.corpus, self.epoch, *sums)


_COUNTS = ("read", "repeated", "padded", "truncated", "trained_on")


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Counts over a run.

    Attributes:
        facts: of each corpus.
        entries: (corpus, epoch) -> counts, epochs that were begun only.
    """

    facts: tuple[CorpusFacts, ...]
    entries: Mapping[tuple[int, int], RowEntry] = field(default_factory=dict)

    def add(self, entries: Iterable[RowEntry]) -> "Ledger":
        """The ledger after more rows."""
        sums = dict(self.entries)
        for entry in entries:
            key = entry.corpus, entry.epoch
            sums[key] = sums[key] + entry if key in sums else entry
        return Ledger(facts=self.facts, entries=sums)

    def dropped(self, entry: RowEntry) -> int:
        """Tokens that an epoch left over; 0 until it is finished."""
        facts = self.facts[entry.corpus]
        return facts.dropped_per_epoch if entry.rows == facts.rows_per_epoch else 0

    @property
    def rows(self) -> int:
        """Rows read."""
        return self._sum("rows")

    @property
    def places(self) -> int:
        """Places for tokens in those rows."""
        return self._sum("places")

    @property
    def tokens_read(self) -> int:
        return self._sum("read")

    @property
    def tokens_trained_on(self) -> int:
        return self._sum("trained_on")

    @property
    def tokens_padded(self) -> int:
        return self._sum("padded")

    @property
    def tokens_truncated(self) -> int:
        return self._sum("truncated")

    @property
    def tokens_dropped(self) -> int:
        return sum(self.dropped(entry) for entry in self.entries.values())

    def epochs(self, corpus: int) -> float:
        """Turns of a corpus that were read."""
        rows = sum(entry.rows for entry in self.entries.values() if entry.corpus == corpus)
        return rows / self.facts[corpus].rows_per_epoch

    def to_json(self) -> dict[str, Any]:
        """The ledger as JSON types (docs/run_directory.md), sums worked out."""
        corpora = []
        for number, facts in enumerate(self.facts):
            entries = [self.entries[key] for key in sorted(self.entries) if key[0] == number]
            corpora.append(
                facts._asdict()
                | {"epochs": self.epochs(number)}
                | {"by_epoch": [self._record(entry) for entry in entries]}
            )
        totals = {f"tokens_{name}": self._sum(name) for name in _COUNTS}
        return {
            "rows": self.rows,
            "places": self.places,
            **totals,
            "tokens_dropped": self.tokens_dropped,
            "cuts": self._sum("cuts"),
            "epochs": max(self.epochs(number) for number in range(len(self.facts))),
            "corpora": corpora,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Ledger":
        """Reads what `to_json` wrote.

        Raises:
            InputError: not a ledger, or sums that do not follow from its entries.
        """
        try:
            facts = tuple(
                CorpusFacts(**{name: corpus[name] for name in CorpusFacts._fields})
                for corpus in record["corpora"]
            )
            entries = {
                (number, epoch["epoch"]): RowEntry(
                    corpus=number,
                    epoch=epoch["epoch"],
                    rows=epoch["rows"],
                    places=epoch["places"],
                    cuts=epoch["cuts"],
                    **{name: epoch[f"tokens_{name}"] for name in _COUNTS},
                )
                for number, corpus in enumerate(record["corpora"])
                for epoch in corpus["by_epoch"]
            }
            ledger = cls(facts=facts, entries=entries)
            counts = [count for entry in entries.values() for count in entry]
            same = all(type(count) is int and count >= 0 for count in counts)
            same = same and ledger.to_json() == dict(record)
        except (KeyError, TypeError, ZeroDivisionError, ValueError):
            same, ledger = False, None
        require(same, "ledger", record, "an object whose counts add up, as training writes it")
        assert ledger is not None
        return ledger

    def _record(self, entry: RowEntry) -> dict[str, int]:
        counts = {f"tokens_{name}": getattr(entry, name) for name in _COUNTS}
        dropped = {"tokens_dropped": self.dropped(entry), "cuts": entry.cuts}
        size = {"rows": entry.rows, "places": entry.places}
        return {"epoch": entry.epoch, **size, **counts, **dropped}

    def _sum(self, name: str) -> int:
        return sum(getattr(entry, name) for entry in self.entries.values())


def merged(ledgers: Sequence[Ledger]) -> Ledger:
    """The ledgers of several readers of one run, added up."""
    return ledgers[0].add(entry for ledger in ledgers[1:] for entry in ledger.entries.values())
