import math
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import InputError
from data.mixture import (
    BLOCK_ROWS,
    Assignment,
    _block_table,
    epochs_ahead,
    proportional_weights,
)

# Fixed examples, as everywhere in these tests, and nothing written to disk.
steady = settings(max_examples=150, deadline=None, derandomize=True, database=None)

weight = st.one_of(
    st.sampled_from([0.0, 1e-6, 1e-3, 0.25, 1 / 3, 0.5, 1.0, 2.0, 1e6]),
    st.floats(0, 1),
)


@st.composite
def assignments(draw, max_stages=4, max_gap=3 * BLOCK_ROWS):
    num_corpora = draw(st.integers(1, 8))
    num_stages = draw(st.integers(1, max_stages))
    stage = st.lists(weight, min_size=num_corpora, max_size=num_corpora)
    weights = [draw(stage.filter(lambda ws: sum(ws) > 0)) for _ in range(num_stages)]
    gap = st.one_of(st.integers(1, max_gap), st.sampled_from([1, BLOCK_ROWS - 1, BLOCK_ROWS]))
    gaps = [draw(gap) for _ in range(num_stages - 1)]
    return Assignment(weights, np.cumsum([0, *gaps]).tolist())


def shares(assignment, num_rows):
    """Normalised weights in force at each row, [num_rows, k], by the definition."""
    stage = np.searchsorted(assignment.starts, np.arange(num_rows), side="right") - 1
    weights = np.array(assignment.weights)
    return (weights / weights.sum(axis=1, keepdims=True))[stage]


def deviations(assignment, num_blocks):
    """Count minus exact share, at every prefix of each block, [num_blocks, BLOCK_ROWS, k]."""
    num_rows = num_blocks * BLOCK_ROWS
    corpus, _ = assignment.locate_many(np.arange(num_rows))
    served = corpus[:, None] == np.arange(assignment.num_corpora)
    excess = served - shares(assignment, num_rows)
    return excess.reshape(num_blocks, BLOCK_ROWS, -1).cumsum(axis=1)


def bound(num_corpora):
    """Tijdeman's, and what float64 adds to 4,096 summed weights."""
    return 1 - 1 / max(1, 2 * num_corpora - 2) + 1e-7


def test_three_to_one_is_served_as_documented():
    assignment = Assignment([[0.75, 0.25]])
    assert assignment.num_corpora == 2
    corpus, number = assignment.locate_many(np.arange(8))
    assert corpus.tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    assert number.tolist() == [0, 1, 0, 2, 3, 4, 1, 5]
    assert corpus.dtype == number.dtype == np.int64
    assert assignment.locate(6) == (1, 1)
    assert assignment.counts(7).tolist() == [5, 2]
    assert assignment.counts(7).dtype == np.int64


@steady
@given(assignments())
def test_each_prefix_of_each_block_is_within_a_row_of_the_exact_share(assignment):
    num_blocks = assignment.starts[-1] // BLOCK_ROWS + 2
    worst = abs(deviations(assignment, num_blocks)).max()
    assert worst <= bound(assignment.num_corpora) < 1


@pytest.mark.parametrize("num_corpora", [2, 3, 5, 8])
def test_weights_that_change_at_every_row_are_followed(num_corpora):
    # Mostly near 0 and 1, so that shares move from corpus to corpus in lumps.
    rng = np.random.default_rng(num_corpora)
    weights = rng.dirichlet([0.1] * num_corpora, size=2 * BLOCK_ROWS)
    weights[::3] = np.eye(num_corpora)[rng.integers(num_corpora, size=len(weights[::3]))]
    worst = abs(deviations(Assignment(weights.tolist(), range(len(weights))), 2)).max()
    assert worst <= bound(num_corpora)


@pytest.mark.parametrize("num_corpora", [2, 3, 6, 7])
def test_equal_weights_take_turns(num_corpora):
    corpus, _ = Assignment([[1 / num_corpora] * num_corpora]).locate_many(np.arange(BLOCK_ROWS))
    assert corpus.tolist() == [row % num_corpora for row in range(BLOCK_ROWS)]


@pytest.mark.parametrize("weights", [[1, 5], [3, 7], [1, 2, 3], [1, 1, 4, 6], [2, 3, 5, 7, 11]])
def test_ties_do_not_hang_on_the_last_bits_of_weights(weights):
    rows = np.arange(BLOCK_ROWS)
    corpus, _ = Assignment([weights]).locate_many(rows)
    for sign in (1, -1):
        nudged = [w * (1 + sign * (-1) ** c * 4e-16) for c, w in enumerate(weights)]
        assert nudged != weights
        np.testing.assert_array_equal(Assignment([nudged]).locate_many(rows)[0], corpus)


@steady
@given(assignments())
def test_each_corpus_serves_its_rows_in_order_without_a_gap(assignment):
    num_rows = assignment.starts[-1] + 2 * BLOCK_ROWS + 5
    corpus, number = assignment.locate_many(np.arange(num_rows))
    for index, count in enumerate(assignment.counts(num_rows)):
        assert number[corpus == index].tolist() == list(range(count))


@steady
@given(assignments(), st.lists(st.integers(0, 10**12), min_size=1, max_size=20), st.randoms())
def test_locate_many_equals_locate_and_agrees_with_counts(assignment, rows, random):
    rows += [max(0, start + shift) for start in assignment.starts for shift in (-1, 0, 1)]
    random.shuffle(rows)
    corpus, number = assignment.locate_many(np.array(rows, np.int64))
    for i, row in enumerate(rows):
        assert assignment.locate(row) == (corpus[i], number[i])
        before, after = assignment.counts(row), assignment.counts(row + 1)
        assert before.sum() == row
        assert before[corpus[i]] == number[i]
        assert np.flatnonzero(after - before).tolist() == [corpus[i]]


@steady
@given(assignments(max_gap=10**12), st.integers(0, 10**12))
def test_far_counts_are_those_of_the_blocks_added_up(assignment, row):
    block = row // BLOCK_ROWS
    row = block * BLOCK_ROWS
    exact = [Fraction(0)] * assignment.num_corpora
    for start, stop, weights in zip(
        assignment.starts, [*assignment.starts[1:], math.inf], assignment.weights, strict=True
    ):
        rows = max(0, min(stop, row) - start)
        exact = [e + rows * Fraction(w) for e, w in zip(exact, weights, strict=True)]
    counts = assignment.counts(row).tolist()
    assert sum(counts) == row
    # Each block is within a row; a float's weight is within 2**-53, which 1e12 rows make 1e-4.
    assert all(abs(c - e) <= block + 1 for c, e in zip(counts, exact, strict=True))
    after = assignment.counts(row + BLOCK_ROWS) - counts
    corpus, _ = assignment.locate_many(np.arange(row, row + BLOCK_ROWS))
    assert after.tolist() == np.bincount(corpus, minlength=assignment.num_corpora).tolist()


def test_a_corpus_without_weight_in_a_block_is_not_served_in_it():
    starts = [0, BLOCK_ROWS + 100, 3 * BLOCK_ROWS - 7, 4 * BLOCK_ROWS]
    weights = [[1, 1e-6, 0], [0.2, 0, 0.8], [0, 1, 1], [1, 1, 0]]
    assignment = Assignment(weights, starts)
    corpus, _ = assignment.locate_many(np.arange(6 * BLOCK_ROWS))
    due = shares(assignment, len(corpus)).reshape(6, BLOCK_ROWS, 3).sum(axis=1)
    for block, served in enumerate(corpus.reshape(6, BLOCK_ROWS)):
        counts = np.bincount(served, minlength=3)
        assert not counts[due[block] == 0].any()
        assert counts[due[block] > 1].all()


def test_one_corpus_serves_every_row():
    assignment = Assignment([[0.3], [5]], (0, 10))
    assert assignment.locate(10**12) == (0, 10**12)
    assert assignment.counts(10**12).tolist() == [10**12]


def test_a_corpus_owed_too_little_in_a_block_is_never_served():
    # The price of fresh blocks: two corpora are read from half a row due in a block.
    below, above = 0.49 / BLOCK_ROWS, 0.51 / BLOCK_ROWS
    assert Assignment([[1 - below, below]]).counts(10**9 * BLOCK_ROWS)[1] == 0
    assert Assignment([[1 - above, above]]).counts(10**9 * BLOCK_ROWS)[1] == 10**9


def test_rows_do_not_depend_on_later_blocks_weights():
    one, two = [[2, 1, 4]], [[2, 1, 4], [1, 1, 0]]
    rows = np.arange(5 * BLOCK_ROWS)
    stays, changes = Assignment(one), Assignment(two, (0, 5 * BLOCK_ROWS))
    for a, b in zip(stays.locate_many(rows), changes.locate_many(rows), strict=True):
        np.testing.assert_array_equal(a, b)


def test_scaled_weights_are_the_same_assignment():
    assignment = Assignment([[3, 1]], [0])
    assert assignment == Assignment(((0.75, 0.25),))
    assert assignment.weights == ((0.75, 0.25),) and assignment.starts == (0,)
    with pytest.raises(AttributeError):
        assignment.starts = (0, 1)  # pyright: ignore[reportAttributeAccessIssue]


def test_threads_get_the_same_rows_as_one():
    weights = np.random.default_rng(1).dirichlet([1] * 4, size=6).tolist()
    starts = [BLOCK_ROWS // 3 * stage for stage in range(6)]
    rows = np.arange(0, 6 * BLOCK_ROWS, 97)
    expected = list(map(Assignment(weights, starts).locate, rows.tolist()))
    _block_table.cache_clear()
    shared = Assignment(weights, starts)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shared.locate, rows.tolist())) == expected


def test_another_process_assigns_alike():
    code = (
        "import pickle, sys, zlib; import numpy as np\n"
        "assignment = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "print(zlib.crc32(np.stack(assignment.locate_many(np.arange(20_000)))))"
    )
    assignment = Assignment([[0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3]], (0, 9_999))
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, pickle.dumps(assignment).hex()],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            check=True,
            capture_output=True,
        ).stdout
        for seed in "12"
    }
    # A golden value, so that a platform, or a change of ours, that assigns otherwise shows.
    assert outputs == {b"3832222352\n"}


@pytest.mark.parametrize(
    ("weights", "starts", "message"),
    [
        ([], (0,), "weights: got .*one corpus or more"),
        ([[]], (0,), "weights: got .*one corpus or more"),
        ([[1, 2], [1]], (0, 5), "weights: got .*2 weights, as in the first stage"),
        ([[1, -1e-9]], (0,), "weights: got .*finite numbers from 0 on"),
        ([[1, math.nan]], (0,), "weights: got .*finite numbers from 0 on"),
        ([[1, math.inf]], (0,), "weights: got .*finite numbers from 0 on"),
        ([[1, 1], [0, 0]], (0, 5), "weights: got .*a finite sum above 0"),
        ([[1e308, 1e308]], (0,), "weights: got .*a finite sum above 0"),
        ([[1, 1]], (), "starts: got .*begin with 0 and grow"),
        ([[1, 1]], (1,), "starts: got .*begin with 0 and grow"),
        ([[1, 1], [1, 2]], (0, 0), "starts: got .*begin with 0 and grow"),
        ([[1, 1], [1, 2], [1, 3]], (0, 9, 8), "starts: got .*begin with 0 and grow"),
        ([[1, 1], [1, 2]], (0,), "starts: got .*one for each of 2 stages"),
    ],
)
def test_weights_and_starts_that_make_no_mixture_are_refused(weights, starts, message):
    with pytest.raises(InputError, match=f"data.mixture.{message}"):
        Assignment(weights, starts)


def test_temperature_goes_from_proportional_to_equal():
    sizes = (900, 100)
    at = [proportional_weights(sizes, temperature=t, cap=None) for t in (1, 2, 1e9, math.inf)]
    assert at[0] == (0.9, 0.1) and at[1] == pytest.approx((0.75, 0.25), abs=1e-15)
    assert at[2] == pytest.approx((0.5, 0.5), abs=1e-8)
    assert at[3] == (0.5, 0.5)
    cold = proportional_weights(sizes, temperature=1e-300, cap=None)
    assert cold == (1, 0)


def test_cap_limits_what_a_large_corpus_counts_for():
    assert proportional_weights((900, 100), temperature=1, cap=300) == (0.75, 0.25)
    assert proportional_weights((900, 100), temperature=1, cap=50) == (0.5, 0.5)
    assert proportional_weights((900, 100), temperature=1, cap=901) == (0.9, 0.1)


@steady
@given(
    st.lists(st.integers(1, 10**15), min_size=1, max_size=8),
    st.floats(0.05, 100),
    st.none() | st.floats(1, 1e15),
)
def test_proportional_weights_are_the_formula(sizes, temperature, cap):
    weights = proportional_weights(sizes, temperature=temperature, cap=cap)
    top = max(min(size, cap or math.inf) for size in sizes)
    powers = [(min(size, cap or math.inf) / top) ** (1 / temperature) for size in sizes]
    expected = [power / sum(powers) for power in powers]
    # The reference's ratio and exponent are rounded; a power of 20 multiplies that.
    assert weights == pytest.approx(expected, rel=1e-12)
    assert sum(weights) == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize(
    ("sizes", "temperature", "cap", "field"),
    [
        ((), 1, None, "weights"),
        ((5, 0), 1, None, "weights"),
        ((5, -1), 1, None, "weights"),
        ((5, 1), 0, None, "temperature"),
        ((5, 1), -1, None, "temperature"),
        ((5, 1), math.nan, None, "temperature"),
        ((5, 1), 1, 0, "cap"),
        ((5, 1), 1, -2, "cap"),
        ((5, 1), 1, math.nan, "cap"),
    ],
)
def test_sizes_temperature_and_cap_out_of_range_are_refused(sizes, temperature, cap, field):
    with pytest.raises(InputError, match=f"^data.mixture.{field}: got "):
        proportional_weights(sizes, temperature=temperature, cap=cap)


def test_epochs_ahead_counts_the_times_each_corpus_is_read():
    assignment = Assignment([[0.75, 0.25], [0, 1]], (0, BLOCK_ROWS))
    epochs = epochs_ahead(assignment, 2 * BLOCK_ROWS, (BLOCK_ROWS, BLOCK_ROWS // 4))
    assert epochs == (0.75, 5.0)
    assert epochs_ahead(assignment, 0, (1, 1)) == (0, 0)
