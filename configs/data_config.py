"""What a run reads: corpora and their mixture, and how rows are packed from them.

Part of the schema (configs/schema.py), in a file of its own for its length. Pure data.
"""

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import require, require_at_least_zero, require_positive

Documents = Literal["separate", "joined"]


@dataclass(frozen=True, kw_only=True)
class ConcatenateConfig:
    """Rows are consecutive slices of the token stream: no padding, documents cut where a row ends.

    `documents` "separate": attention and loss stay within a document; "joined": a row is one
    text, and the first token of a document is predicted from the document before it.
    """

    kind: Literal["concatenate"] = "concatenate"
    documents: Documents = "separate"


@dataclass(frozen=True, kw_only=True)
class BestFitConfig:
    """Whole documents packed into rows, best fit first within windows of the stream.

    A document longer than a row is cut into rows; others are cut only where a window has no gap
    left that holds them. Rows are 97.5% full (Ding et al. 2024, arXiv 2404.10830, compare the
    policies). `documents` as for ConcatenateConfig.
    """

    kind: Literal["best_fit"] = "best_fit"
    documents: Documents = "separate"


@dataclass(frozen=True, kw_only=True)
class LengthBucketsConfig:
    """One document a row, padded to a bucket's length: for classification and the like.

    Documents of similar length come in groups of `group_rows` rows, padded to the smallest of
    `lengths` that holds the longest of them; what a document has beyond data.seq_len is cut off
    and counted. With `group_rows` equal to the batch size every batch has one length. No
    `lengths`: seq_len, a half, a quarter and an eighth of it.
    """

    kind: Literal["length_buckets"] = "length_buckets"
    lengths: tuple[int, ...] = ()
    group_rows: int = 16

    def __post_init__(self):
        require_positive("data.packing", group_rows=self.group_rows)
        for length in self.lengths:
            require(length >= 2, "data.packing.lengths", length, "2 or more tokens")
        require(
            list(self.lengths) == sorted(set(self.lengths)),
            "data.packing.lengths",
            self.lengths,
            "different lengths, shortest first",
        )


PackingConfig = ConcatenateConfig | BestFitConfig | LengthBucketsConfig


@dataclass(frozen=True, kw_only=True)
class SingleCorpusConfig:
    """All rows come from data.corpus."""

    kind: Literal["single"] = "single"


@dataclass(frozen=True, kw_only=True)
class WeightedMixtureConfig:
    """Several corpora, each with a share of the rows, which may change as training goes on.

    `weights` has a number for every corpus, relative to one another; with `stage_steps`, one such
    list after another, the first from step 0 on and the others from the given steps on:
    corpora A B, weights 9 1 5 5, stage_steps 1000 is nine to one, and even from step 1,000 on.
    """

    kind: Literal["weighted"] = "weighted"
    corpora: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    stage_steps: tuple[int, ...] = ()

    def __post_init__(self):
        expected = len(self.corpora) * (1 + len(self.stage_steps))
        require(
            len(self.weights) == expected,
            "data.mixture.weights",
            self.weights,
            f"{expected} numbers: one a corpus, for each of {1 + len(self.stage_steps)} stages",
        )
        for weight in self.weights:
            require_at_least_zero("data.mixture", weights=weight)
        steps = list(self.stage_steps)
        require(
            steps == sorted(set(steps)) and all(step > 0 for step in steps),
            "data.mixture.stage_steps",
            self.stage_steps,
            "steps above 0, each later than the one before",
        )
        for number, weights in enumerate(self.stages):
            require(
                not weights or sum(weights) > 0,
                "data.mixture.weights",
                weights,
                f"a sum above 0 in stage {number}",
            )

    @property
    def stages(self) -> tuple[tuple[float, ...], ...]:
        """The weights of each stage, one a corpus."""
        size = len(self.corpora)
        return tuple(
            self.weights[stage * size : (stage + 1) * size]
            for stage in range(1 + len(self.stage_steps))
        )


@dataclass(frozen=True, kw_only=True)
class ProportionalMixtureConfig:
    """Several corpora, each with a share that follows from its number of tokens n.

    Shares are proportional to min(n, cap) ** (1 / temperature): temperature 1 is by size, a high
    one brings small corpora forward (Raffel et al. 2020, arXiv 1910.10683, section 3.5.2).
    `cap_tokens` 0: no cap.
    """

    kind: Literal["proportional"] = "proportional"
    corpora: tuple[str, ...] = ()
    temperature: float = 1.0
    cap_tokens: float = 0.0

    def __post_init__(self):
        require_positive("data.mixture", temperature=self.temperature)
        require_at_least_zero("data.mixture", cap_tokens=self.cap_tokens)


MixtureConfig = SingleCorpusConfig | WeightedMixtureConfig | ProportionalMixtureConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which text, and how rows are made of it.

    `corpus` is the folder `isoflop prepare` wrote; a `mixture` names several instead. Row i is a
    pure function of (seed, i). `max_epochs`: a run that would read a corpus more often is refused;
    0: no limit. `read_threads` read ahead (0: none does); they change speed, not rows.
    """

    corpus: str = ""
    mixture: MixtureConfig = field(default_factory=SingleCorpusConfig)
    packing: PackingConfig = field(default_factory=ConcatenateConfig)
    seq_len: int = 256
    seed: int = 0
    max_epochs: float = 0.0
    read_threads: int = 2

    def __post_init__(self):
        require(self.seq_len >= 2, "data.seq_len", self.seq_len, "2 or more tokens")
        require(
            0 <= self.seed < 2**32, "data.seed", self.seed, "a whole number from 0 to 2**32 - 1"
        )
        require_at_least_zero("data", max_epochs=self.max_epochs, read_threads=self.read_threads)
        if not isinstance(self.mixture, SingleCorpusConfig):
            require(bool(self.mixture.corpora), "data.mixture.corpora", "none", "one or more")
            require(
                len(set(self.mixture.corpora)) == len(self.mixture.corpora),
                "data.mixture.corpora",
                self.mixture.corpora,
                "different folders",
            )
            require(not self.corpus, "data.corpus", self.corpus, "none beside data.mixture.corpora")
        if isinstance(self.packing, LengthBucketsConfig) and self.packing.lengths:
            require(
                self.packing.lengths[-1] == self.seq_len,
                "data.packing.lengths",
                self.packing.lengths,
                f"data.seq_len ({self.seq_len}) as the longest",
            )

    @property
    def corpora(self) -> tuple[str, ...]:
        """The folders of all corpora; empty if none is named."""
        if isinstance(self.mixture, SingleCorpusConfig):
            return (self.corpus,) if self.corpus else ()
        return self.mixture.corpora

    @property
    def row_lengths(self) -> tuple[int, ...]:
        """Every length a batch's rows may have, shortest first."""
        if not isinstance(self.packing, LengthBucketsConfig):
            return (self.seq_len,)
        halves = {max(2, self.seq_len >> shift) for shift in range(4)}
        return self.packing.lengths or tuple(sorted(halves))
