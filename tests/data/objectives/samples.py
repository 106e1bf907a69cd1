"""A tokenizer's symbols made up for tests, rows, and the arrays that docstrings show.

Ids: 4 is <mask>; 5, 6, 7 are <fim_prefix>, <fim_middle>, <fim_suffix>; 8, 9, 10 are <R>, <S>, <X>;
90 to 289 are sentinels. Of the others, multiples of 4 begin with a space, multiples of 7 end with
one, and ids that leave 1 when divided by 3 end a sentence.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from configs.objective_config import (
    FIM_MARKERS,
    MASK,
    MODE_R,
    MODE_S,
    MODE_X,
    ObjectiveConfig,
    sentinel,
)
from data.objectives import OBJECTIVES
from data.objectives.example import Context, Example
from data.objectives.symbols import Symbols
from data.packing import Row, RowCounts

VOCAB_SIZE = 1000
FIRST_SENTINEL, NUM_SENTINELS = 90, 200
BOS, EOS, MASK_ID = 2, 3, 4


def _symbols() -> Symbols:
    ids = {name: 4 + i for i, name in enumerate((MASK, *FIM_MARKERS, MODE_R, MODE_S, MODE_X))}
    ids |= {sentinel(i): FIRST_SENTINEL + i for i in range(NUM_SENTINELS)}
    is_special = np.zeros(VOCAB_SIZE, bool)
    is_special[[0, 1, 2, 3, *ids.values()]] = True
    index = np.arange(VOCAB_SIZE)
    return Symbols(
        VOCAB_SIZE,
        is_special,
        starts_with_space=(index % 4 == 0) & ~is_special,
        ends_with_space=(index % 7 == 0) & ~is_special,
        ends_sentence=(index % 3 == 1) & ~is_special,
        ids=ids,
    )


SYMBOLS = _symbols()
PLAIN_IDS = np.flatnonzero(~SYMBOLS.is_special).astype(np.int32)


@cache
def context(config: ObjectiveConfig, seq_len: int) -> Context:
    return Context(SYMBOLS, config.lengths(seq_len))


def make_row(tokens, segment_ids) -> Row:
    """A row whose positions count from each segment's first place."""
    positions, counts = [], {}
    for segment in map(int, segment_ids):
        counts[segment] = counts.get(segment, -1) + 1
        positions.append(counts[segment] if segment else 0)
    return Row(
        np.array(tokens, np.int32),
        np.array(segment_ids, np.int32),
        np.array(positions, np.int32),
        RowCounts(0, 0, 0, 0, 0),
        0,
    )


def transform(config: ObjectiveConfig, row: Row, seq_len: int, seed: int = 0) -> Example:
    return OBJECTIVES[type(config)].transform(
        config, row, lambda: np.random.default_rng(seed), context(config, seq_len)
    )


def reconstruct(config: ObjectiveConfig, example: Example, seq_len: int) -> list[list[int]]:
    rebuilt = OBJECTIVES[type(config)].reconstruct(config, example, context(config, seq_len))
    return [content.tolist() for content in rebuilt]


def contents(row: Row) -> list[list[int]]:
    """The plain tokens of each segment that has any, by a loop."""
    found: dict[int, list[int]] = {}
    for token, segment in zip(row.tokens.tolist(), row.segment_ids.tolist(), strict=True):
        if segment and not SYMBOLS.is_special[token]:
            found.setdefault(segment, []).append(token)
    return list(found.values())


class RowPlan(NamedTuple):
    """Documents of a row: their content's sizes, which ends they lack, and whether all are one."""

    sizes: list[int]
    lacks_bos: list[bool]
    lacks_eos: list[bool]
    joined: bool
    seed: int


def build_row(plan: RowPlan, size: int) -> Row:
    """Documents one after another until the row is full; the last is cut, padding follows."""
    random = np.random.default_rng(plan.seed)
    tokens, segment_ids = [], []
    for number, (length, no_bos, no_eos) in enumerate(
        zip(plan.sizes, plan.lacks_bos, plan.lacks_eos, strict=True), start=1
    ):
        document = [BOS] * (not no_bos) + random.choice(PLAIN_IDS, length).tolist()
        document += [EOS] * (not no_eos)
        tokens += document
        segment_ids += [1 if plan.joined else number] * len(document)
    padding = max(size - len(tokens), 0)
    return make_row((tokens + [0] * padding)[:size], (segment_ids + [0] * padding)[:size])


@st.composite
def row_plans(draw, *, max_size: int, joined: bool | None = None) -> RowPlan:
    """Rows of few long or many short documents, whole or cut anywhere, even of nothing else."""
    sizes = draw(
        st.one_of(
            st.lists(st.integers(0, max_size), max_size=4),
            st.lists(st.integers(0, 6), max_size=80),
            st.integers(1, 12).map(lambda size: [size] * 100),
        )
    )
    ends = st.one_of(
        st.just([True] * len(sizes)),
        st.just([False] * len(sizes)),
        st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)),
    )
    is_joined = draw(st.booleans()) if joined is None else joined
    return RowPlan(sizes, draw(ends), draw(ends), is_joined, draw(st.integers(0, 2**32 - 1)))


def one_text(size: int, seed: int = 0) -> Row:
    """A row of one document's middle: neither <s> nor </s>."""
    return build_row(RowPlan([size], [True], [True], False, seed), size)


def docstring_arrays(function: Any) -> list[dict[str, Any]]:
    """The Before and After arrays that a docstring shows, one dict for each heading, in order."""
    sections: list[dict[str, Any]] = []
    for line in function.__doc__.splitlines():
        if re.match(r"\s+(Before|After)\b.*:$", line):
            sections.append({})
        elif sections and (found := re.match(r"\s+([a-z_' ]*[a-z])\s+(\[[\d, ]*\]|[\d.]+)$", line)):
            values = found[2]
            sections[-1][found[1]] = (
                [int(value) for value in re.findall(r"\d+", values)]
                if values[0] == "["
                else float(values)
            )
    assert all(sections), "every heading is followed by arrays"
    return sections


def shows(example: Example, arrays: dict[str, Any]) -> bool:
    """Whether the example's fields are those of a docstring."""
    return all(getattr(example, name).tolist() == values for name, values in arrays.items())


def docstring_is_true(function: Any, cases: Sequence[tuple[ObjectiveConfig, int]]) -> bool:
    """Whether some draw of each (config, seq_len), one for each After, makes what is shown."""
    before, *afters = docstring_arrays(function)
    for (config, seq_len), after in zip(cases, afters, strict=True):
        padding = [0] * (config.lengths(seq_len).tokens - len(before["tokens"]))
        row = make_row(before["tokens"] + padding, before["segment_ids"] + padding)
        if not any(shows(transform(config, row, seq_len, seed), after) for seed in range(3000)):
            return False
    return True


def filled(field: np.ndarray | None) -> np.ndarray:
    """A field that the objective fills."""
    assert field is not None
    return field


def check_example(config: ObjectiveConfig, example: Example, seq_len: int) -> None:
    """What holds for every objective: lengths, types, padding without weight, positions."""
    lengths = config.lengths(seq_len)
    places = {name: lengths.length for name in ("inputs", "targets", "positions", "segment_ids")}
    if lengths.has_prefix:
        places["prefix"] = lengths.length
    if lengths.encoder_length:
        names = ("encoder_inputs", "encoder_positions", "encoder_segment_ids")
        places |= dict.fromkeys(names, lengths.encoder_length)
    for name, field in example._asdict().items():
        if name == "loss_weights":
            assert field.shape == (lengths.length,) and field.dtype == np.float32
            assert set(field.tolist()) <= {0, 1}
        elif name in places:
            assert field.shape == (places[name],) and field.dtype == np.int32, name
        else:
            assert field is None, name
    assert not example.loss_weights[example.segment_ids == 0].any()
    assert not (example.targets[example.loss_weights > 0] == 0).any()
    assert (example.positions == make_row(example.inputs, example.segment_ids).positions).all()
    if lengths.encoder_length:
        encoder = make_row(filled(example.encoder_inputs), filled(example.encoder_segment_ids))
        assert (example.encoder_positions == encoder.positions).all()
        assert set(encoder.segment_ids) - {0} == set(example.segment_ids) - {0}
