"""Global batches are the same on any number of hosts, devices and threads, after any restart."""

import json
import os
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.schema import TrainingConfig
from data.batches import Cursor, advance, take_rows
from data.corpus import Corpus
from data.dataset import open_corpora, training_rows
from data.ledger import Ledger, merged
from data.prepare import Preparation, prepare_corpus
from data.sources.text_files import TextFilesSource
from tests.train.conftest import write_texts
from tests.train.feed_process import NUM_STEPS, STARTS, THREADS, cases, run_config

ROOT = Path(__file__).resolve().parents[2]
CASES = list(cases("a", "b"))


@pytest.fixture(scope="module")
def folders(corpus, tmp_path_factory) -> tuple[str, str]:
    """Two corpora with one tokenizer, the second much smaller."""
    texts = tmp_path_factory.mktemp("texts")
    write_texts(texts, num_files=6)
    for path in texts.iterdir():
        path.write_text(path.read_text() + f"\nsecond corpus {path.name}")
    recipe = Preparation(vocab_size=1, tokenizer=corpus.tokenizer)
    small = prepare_corpus(
        TextFilesSource(str(texts)), tmp_path_factory.mktemp("other") / "small", recipe
    )
    return str(corpus.path), str(small.path)


def fed_by(num_processes: int, folders, out: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Starts processes of one device each; all batches put together again, and the ledgers."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    script = Path(__file__).with_name("feed_process.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, out, *folders, str(i), str(num_processes), str(port)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(num_processes)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert all(process.returncode == 0 for process in processes), errors
    shards: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
    for i in range(num_processes):
        with np.load(out / f"{i}.npz") as arrays:
            for key, array in arrays.items():
                batch, _, start = key.rpartition("/")
                shards[batch][0 if start == "None" else int(start)] = array
    ledgers = [json.loads((out / f"{i}.json").read_text()) for i in range(num_processes)]
    assert all(ledger == ledgers[0] for ledger in ledgers), "every process knows the whole"
    return {
        batch: np.concatenate([parts[start] for start in sorted(parts)])
        for batch, parts in shards.items()
    }, ledgers[0]


@pytest.fixture(scope="module")
def alone(folders, tmp_path_factory):
    return fed_by(1, folders, tmp_path_factory.mktemp("alone"))


def test_threads_and_restarts_change_no_batch(alone):
    batches, _ = alone
    for name in CASES:
        for step in range(1, NUM_STEPS + 1):
            for field in ("inputs", "targets", "loss_weights", "positions", "segment_ids"):
                expected = batches[f"{name}/0/0/{step}/{field}"]
                for start in STARTS:
                    for threads in THREADS:
                        if step > start:
                            key = f"{name}/{start}/{threads}/{step}/{field}"
                            np.testing.assert_array_equal(batches[key], expected)


def test_ledgers_of_the_stretches_between_restarts_add_up(alone):
    _, ledgers = alone
    for name in CASES:
        whole = Ledger.from_json(ledgers[f"{name}/0/0"])
        assert whole.rows == sum((4, 4, 8, 8, 8, 16, 16))
        for threads in THREADS:
            assert Ledger.from_json(ledgers[f"{name}/0/{threads}"]) == whole
            assert Ledger.from_json(ledgers[f"{name}/6/{threads}"]).rows == 16


@pytest.mark.parametrize("num_processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_real_processes_hold_the_same_global_batches_and_ledger(
    alone, folders, tmp_path, num_processes
):
    batches, ledgers = fed_by(num_processes, folders, tmp_path)
    expected, expected_ledgers = alone
    assert set(batches) == set(expected)
    for key, array in batches.items():
        np.testing.assert_array_equal(array, expected[key])
    assert ledgers == expected_ledgers


@pytest.fixture(scope="module")
def sources(folders):
    """Case -> rows."""
    found = {}
    for name, data in cases(*folders).items():
        corpora = open_corpora(data)
        vocab_size = next(iter(corpora.values())).tokenizer.vocab_size
        found[name] = training_rows(run_config(data, 1, vocab_size), corpora)
    return found


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(CASES),
    start=st.integers(0, 5000),
    num_hosts=st.sampled_from([1, 2, 4, 8]),
    rows_a_host=st.integers(1, 5),
    skipped=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 50)), max_size=4),
)
def test_the_union_of_host_shards_is_the_global_batch(
    sources, name, start, num_hosts, rows_a_host, skipped
):
    source = sources[name]
    cursor = Cursor(start)
    for first, count in skipped:
        cursor = cursor.skip(first, first + count)
    rows, _ = take_rows(cursor, num_hosts * rows_a_host)
    whole = source.batch(rows)
    length = source.batch_length(rows)
    shares = [
        source.batch(rows[h * rows_a_host : (h + 1) * rows_a_host], length=length)
        for h in range(num_hosts)
    ]
    for field in range(5):
        joined = np.concatenate([share.batch[field] for share in shares])
        np.testing.assert_array_equal(joined, whole.batch[field])
    ledgers = [Ledger(facts=source.facts).add(share.entries) for share in shares]
    assert merged(ledgers) == Ledger(facts=source.facts).add(whole.entries)


@settings(deadline=None, max_examples=100)
@given(
    sizes=st.lists(st.sampled_from([4, 8, 12, 16]), max_size=3),
    steps=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    restart=st.integers(0, 40),
    skipped=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 30)), max_size=3),
)
def test_a_restart_at_any_step_goes_on_with_the_rows_that_would_have_come(
    sizes, steps, restart, skipped
):
    training = TrainingConfig(
        num_steps=41,
        batch_size=16,
        batch_warmup=tuple(sizes),
        batch_warmup_steps=tuple(steps[: len(sizes)]),
    )
    cursor = Cursor()
    for first, count in skipped:
        cursor = cursor.skip(first, first + count)
    begin, served = cursor, []
    for step in range(training.num_steps):
        rows, cursor = take_rows(cursor, training.batch_size_at(step))
        served.append(rows)
        if step + 1 == restart:
            assert advance(begin, training.rows_before(restart)) == cursor
    everything = np.concatenate(served)
    assert len(set(everything.tolist())) == len(everything) == training.rows_before(41)
    left_out = {r for first, count in skipped for r in range(first, first + count)}
    expected = [r for r in range(int(everything[-1]) + 1) if r not in left_out]
    assert everything.tolist() == expected


@pytest.mark.parametrize("name", CASES)
def test_every_row_of_every_epoch_is_served_exactly_once(sources, name):
    source = sources[name]
    seen: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number in range(12 * source.facts[-1].rows_per_epoch):
        part, own = source.locate(number)
        seen[part, own // source.facts[part].rows_per_epoch].append(own)
    finished = 0
    for (part, epoch), rows in seen.items():
        count = source.facts[part].rows_per_epoch
        assert rows == list(range(epoch * count, epoch * count + len(rows)))
        finished += len(rows) == count
    assert finished >= 2


@pytest.mark.parametrize("name", CASES)
def test_the_ledger_reconciles_with_the_source_tokens(sources, folders, name):
    source = sources[name]
    tokens = [_tokens_in_text(corpus) for corpus in open_corpora(_data(folders, name)).values()]
    ledger = Ledger(facts=source.facts)
    number = 0
    while any(ledger.epochs(part) < 2 for part in range(len(tokens))):
        ledger = ledger.add([source.row(number).entry])
        number += 1
    for (part, epoch), entry in ledger.entries.items():
        assert entry.places == entry.read + entry.repeated + entry.padded
        if epoch < 2:
            assert entry.rows == source.facts[part].rows_per_epoch
            assert entry.read + entry.truncated + ledger.dropped(entry) == tokens[part]


def _data(folders, name):
    return cases(*folders)[name]


def _tokens_in_text(corpus: Corpus) -> int:
    """Counted by encoding the text again: <s> and </s> of every document included."""
    texts = [corpus.tokenizer.decode(d.tokens) for d in corpus.documents("train")]
    return sum(len(corpus.tokenizer.encode(text)) + 2 for text in texts)
