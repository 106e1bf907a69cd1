"""Which batches come is decided by the cursor alone; meshes decide where their rows lie."""

import threading
import time
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.data_config import ConcatenateConfig, DataConfig
from configs.objective_config import CausalLMConfig, SpanCorruptionConfig
from configs.schema import MeshConfig, TrainingConfig
from data.batches import Cursor
from data.dataset import make_packing
from data.ledger import Ledger
from data.rows import RowSource
from tests.model.samples import tiny_model
from tests.train.samples import BATCH_SIZE, SEQ_LEN, mesh_of, random_batch, tiny_run
from train import feed as feed_module
from train.feed import feed, put_batch
from train.step import batch_sharding

MESHES = [
    MeshConfig(),
    MeshConfig(data=8),
    MeshConfig(fsdp=2, tensor=2, data=2),
    MeshConfig(tensor=4),
]


class NumberedTokens:
    """A stream whose tokens are their own offsets; a document every 11 tokens."""

    num_tokens = 1000
    num_documents = 91

    def read(self, start: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        index = ((start + np.arange(length)) % self.num_tokens).astype(np.int32)
        return index, index % 11 == 0

    def document_starts(self, start: int, stop: int) -> np.ndarray:
        index = np.arange(start, stop)
        return index[index % self.num_tokens % 11 == 0]

    def document_offset(self, offset: int) -> int:
        return offset % self.num_tokens % 11

    def document_start(self, number: int) -> int:
        return 11 * number


@pytest.fixture(scope="module")
def source():
    data = DataConfig(seq_len=SEQ_LEN, seed=4, packing=ConcatenateConfig())
    packing = make_packing(data, NumberedTokens(), CausalLMConfig())
    return RowSource({"numbers": packing}, seed=4, objective=CausalLMConfig())


def fed(source, cursor: Cursor, num_batches: int, mesh: MeshConfig = MESHES[0], **kwargs):
    config = tiny_run(mesh=mesh)
    sharding = batch_sharding(config, mesh_of(config))
    training = TrainingConfig(num_steps=max(1, num_batches), batch_size=BATCH_SIZE)
    return list(feed(source, cursor, training, sharding=sharding, **({"first_step": 0} | kwargs)))


def assert_same(batches, others):
    assert len(batches) == len(others)
    for one, other in zip(batches, others, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        assert one.cursor == other.cursor
        jax.tree.map(np.testing.assert_array_equal, one.batch, other.batch)
        jax.tree.map(np.testing.assert_array_equal, one.host, other.host)


def test_batches_are_the_rows_in_order(source):
    for number, one in enumerate(fed(source, Cursor(), 5)):
        rows = np.arange(BATCH_SIZE * number, BATCH_SIZE * (number + 1))
        np.testing.assert_array_equal(one.rows, rows)
        expected = source.batch(rows).batch
        jax.tree.map(np.testing.assert_array_equal, one.batch, expected)
        jax.tree.map(np.testing.assert_array_equal, one.host, expected)
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(expected)]
        assert [leaf.dtype for leaf in jax.tree.leaves(one.batch)] == dtypes
        assert one.cursor == Cursor(BATCH_SIZE * (number + 1))


@pytest.mark.parametrize("mesh", MESHES[1:], ids=["data", "all axes", "tensor"])
def test_batches_are_the_same_on_any_mesh(source, mesh):
    batches = fed(source, Cursor(3), 4, mesh)
    assert_same(batches, fed(source, Cursor(3), 4))
    rows_a_device = BATCH_SIZE // (mesh.data * mesh.fsdp)
    for one in batches:
        for field in jax.tree.leaves(one.batch):
            shapes = {shard.data.shape for shard in field.addressable_shards}
            assert shapes == {(rows_a_device, SEQ_LEN)}


def test_resuming_from_a_cursor_gives_the_batches_that_would_have_come(source):
    start = Cursor(5).skip(20, 30)
    whole = fed(source, start, 6)
    for stop in (1, 3, 5):
        assert_same(fed(source, whole[stop - 1].cursor, 6 - stop), whole[stop:])


def test_skipped_rows_are_passed_over(source):
    batches = fed(source, Cursor().skip(4, 10).skip(20, 21), 2)
    rows = np.concatenate([one.rows for one in batches])
    expected = [*range(4), *range(10, 20), 21, 22]
    np.testing.assert_array_equal(rows, expected)
    assert batches[-1].cursor.next_row == 23
    second = source.batch([*range(14, 20), 21, 22]).batch
    np.testing.assert_array_equal(batches[1].host.inputs, second.inputs)


def test_rows_go_on_into_the_next_epoch(source):
    last = source.facts[0].rows_per_epoch - 3
    (one,) = fed(source, Cursor(last), 1)
    np.testing.assert_array_equal(one.rows, np.arange(last, last + BATCH_SIZE))


def test_no_batches_left_is_an_empty_feed(source):
    assert fed(source, Cursor(16), 1, first_step=1) == []


def test_a_feed_may_be_left_early(source):
    config = tiny_run()
    sharding = batch_sharding(config, mesh_of(config))
    training = TrainingConfig(num_steps=50, batch_size=BATCH_SIZE)
    batches = feed(source, Cursor(), training, first_step=0, sharding=sharding)
    assert [int(one.rows[0]) for one in islice(batches, 2)] == [0, BATCH_SIZE]


def test_a_whole_batch_is_put_onto_the_devices_unchanged():
    config = tiny_run(mesh=MeshConfig(data=4, tensor=2))
    batch = random_batch(config)
    on_devices = put_batch(batch, batch_sharding(config, mesh_of(config)))
    jax.tree.map(np.testing.assert_array_equal, on_devices, batch)


def test_both_sides_and_a_prefix_are_put_onto_the_devices():
    objective = SpanCorruptionConfig()
    model = tiny_model(architecture="encoder_decoder")
    config = tiny_run(model=model, objective=objective, mesh=MeshConfig(data=4, tensor=2))
    batch = random_batch(config)
    batch = batch._replace(prefix=batch.positions)
    on_devices = put_batch(batch, batch_sharding(config, mesh_of(config)))
    assert len(jax.tree.leaves(on_devices)) == 9
    jax.tree.map(np.testing.assert_array_equal, on_devices, batch)
    shapes = {leaf.addressable_shards[0].data.shape for leaf in jax.tree.leaves(on_devices)}
    assert shapes == {(2, config.lengths.length), (2, config.lengths.encoder_length)}


@pytest.mark.parametrize("mesh", [MeshConfig(data=8), MeshConfig(data=2, tensor=4)])
@pytest.mark.parametrize("num_threads", [0, 1, 4])
def test_each_row_is_counted_once_however_often_it_is_held(source, mesh, num_threads):
    batches = fed(source, Cursor(), 5, mesh, num_threads=num_threads)
    ledger = Ledger(facts=source.facts)
    for one in batches:
        ledger = ledger.add(one.entries)
    assert ledger.rows == 5 * BATCH_SIZE
    assert ledger.tokens_read == 5 * BATCH_SIZE * SEQ_LEN


def test_batch_warm_up_serves_the_same_rows_in_batches_that_grow(source):
    config = tiny_run(mesh=MeshConfig(data=4))
    sharding = batch_sharding(config, mesh_of(config))
    training = TrainingConfig(
        num_steps=6, batch_size=16, batch_warmup=(4, 8), batch_warmup_steps=(2, 3)
    )
    batches = list(feed(source, Cursor(2), training, first_step=0, sharding=sharding))
    assert [len(one.rows) for one in batches] == [4, 4, 8, 8, 8, 16]
    np.testing.assert_array_equal(np.concatenate([one.rows for one in batches]), 2 + np.arange(48))
    assert training.rows_before(6) == 48
    for step in range(1, 6):
        cursor = batches[step - 1].cursor
        assert_same(
            list(feed(source, cursor, training, first_step=step, sharding=sharding)),
            batches[step:],
        )


def feed_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


@pytest.fixture
def long_feed(source):
    """The batches of fifty steps, closed at the end."""
    config = tiny_run()
    training = TrainingConfig(num_steps=50, batch_size=BATCH_SIZE)
    sharding = batch_sharding(config, mesh_of(config))
    batches = feed(source, Cursor(), training, first_step=0, sharding=sharding)
    yield batches
    batches.close()


def test_two_batches_travel_ahead_in_a_thread_and_no_more(long_feed, monkeypatch):
    put, threads, third = feed_module._to_devices, [], threading.Event()

    def noted(*args):
        threads.append(threading.current_thread())
        if len(threads) == 3:
            third.set()
        return put(*args)

    monkeypatch.setattr(feed_module, "_to_devices", noted)
    first = next(long_feed)
    assert third.wait(timeout=60)
    time.sleep(0.1)  # for one too many, were there one
    assert len(threads) == 3
    assert threading.current_thread() not in threads
    assert first.cursor == Cursor(BATCH_SIZE), "not the cursor of what was read ahead"


def test_the_next_batch_is_there_while_the_devices_are_busy(long_feed):
    @jax.jit
    def slow_step(x):
        return jax.lax.fori_loop(0, 300, lambda _, y: jnp.tanh(y @ x), x)

    x = jnp.full((512, 512), 0.01)
    slow_step(x).block_until_ready()
    next(long_feed)
    result = slow_step(x)
    for _ in range(3):
        next(long_feed)
    assert not result.is_ready(), "three batches came before the step was over"
    result.block_until_ready()


def test_an_error_comes_after_the_batches_before_it(source, monkeypatch):
    put, calls = feed_module._to_devices, []

    def fails_at_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError("the corpus is gone")
        return put(*args)

    monkeypatch.setattr(feed_module, "_to_devices", fails_at_third)
    config = tiny_run()
    training = TrainingConfig(num_steps=50, batch_size=BATCH_SIZE)
    sharding = batch_sharding(config, mesh_of(config))
    batches = feed(source, Cursor(), training, first_step=0, sharding=sharding)
    assert [int(one.rows[0]) for one in islice(batches, 2)] == [0, BATCH_SIZE]
    with pytest.raises(OSError, match="the corpus is gone"):
        next(batches)
    assert feed_threads() == []


def test_a_closed_feed_leaves_no_thread(long_feed):
    next(long_feed)
    assert feed_threads()
    long_feed.close()
    assert feed_threads() == []
