"""Rows to sharded device arrays: read ahead by Grain's threads, put ahead by one of ours."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from configs.schema import TrainingConfig
from data.batches import Batch, Cursor, advance, take_rows
from data.ledger import RowEntry
from data.rows import RowSource

_BATCHES_AHEAD = 4
_DEVICE_BATCHES_AHEAD = 2

T = TypeVar("T")


class Fed(NamedTuple):
    """One global batch on the devices, and the cursor just after it.

    rows: row numbers of the whole batch. host: the rows of it that this process read, host_rows
    their numbers. entries: ledger entries; added up over all processes, each row counts once.
    """

    batch: Batch
    host: Batch
    rows: np.ndarray
    host_rows: np.ndarray
    entries: list[RowEntry]
    cursor: Cursor


def feed(
    source: RowSource,
    cursor: Cursor,
    training: TrainingConfig,
    *,
    first_step: int,
    sharding: NamedSharding,
    num_threads: int = 2,
) -> Generator[Fed, None, None]:
    """The batches of the steps from `first_step` on to the last, beginning at the cursor.

    While a batch is trained on, the next two travel to the devices: asking for the next one waits
    neither for a transfer nor for a step. A batch carries the cursor just after it, whatever was
    read ahead. Leaving early, close the generator: its thread ends.

    Which rows make up a batch depends on the cursor and the batch sizes alone: threads, devices
    and processes only decide who reads them. Each process reads the rows of its own devices.

    Args:
      source: row number -> example.
      training: how many steps, and the batch size of each.
      first_step: steps done before.
      sharding: how a [B, L] array is cut over the mesh.
      num_threads: that read ahead; with 0 each batch is read, and put onto the devices, when it
        is asked for.
    """
    shares = {size: _Share.of(sharding, size) for size in training.batch_sizes}

    def read(rows: np.ndarray) -> tuple[np.ndarray, Batch, list[RowEntry]]:
        share = shares[len(rows)]
        length = source.batch_length(rows)
        served = source.batch(rows[share.local], length=length)
        entries = [
            entry for entry, own in zip(served.entries, share.is_counted, strict=True) if own
        ]
        # Every process names the epochs of all rows, so that their ledgers have the same keys.
        places = {source.place(int(row)) for row in rows}
        return rows, served.batch, [*entries, *(RowEntry(*place, *[0] * 8) for place in places)]

    batches = (
        grain.MapDataset.source(_RowNumbers(cursor, training, first_step))
        .map(read)
        .to_iter_dataset(
            grain.ReadOptions(
                num_threads=num_threads, prefetch_buffer_size=_BATCHES_AHEAD if num_threads else 0
            )
        )
    )

    def on_devices(cursor: Cursor) -> Generator[Fed, None, None]:
        for rows, host, entries in batches:
            cursor = advance(cursor, len(rows))
            share = shares[len(rows)]
            on_device = _to_devices(host, share, sharding)
            yield Fed(on_device, host, rows, rows[share.local], entries, cursor)

    if num_threads:
        yield from _taken_ahead(on_devices(cursor), _DEVICE_BATCHES_AHEAD)
    else:
        yield from on_devices(cursor)


def _taken_ahead(items: Generator[T, None, None], count: int) -> Generator[T, None, None]:
    """The same items; up to `count` of them beyond the last one given are taken in a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as thread:
        ahead = deque(thread.submit(next, items, None) for _ in range(count))
        try:
            while (item := ahead.popleft().result()) is not None:
                ahead.append(thread.submit(next, items, None))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)
            items.close()


class _RowNumbers:
    """Random access to the row numbers of step after step, as Grain wants its sources."""

    def __init__(self, cursor: Cursor, training: TrainingConfig, first_step: int):
        self._cursor, self._training, self._first_step = cursor, training, first_step

    def __len__(self) -> int:
        return self._training.num_steps - self._first_step

    def __getitem__(self, index: int) -> np.ndarray:
        t, step = self._training, self._first_step + index
        passed = t.rows_before(step) - t.rows_before(self._first_step)
        return take_rows(advance(self._cursor, passed), t.batch_size_at(step))[0]


class _Share(NamedTuple):
    """This process' part of a global batch.

    local: indices of the rows that its devices hold, growing. is_counted: which of them it
    accounts for: a row on devices of several processes belongs to the first. batch_size: of all.
    """

    local: np.ndarray
    is_counted: np.ndarray
    batch_size: int

    @classmethod
    def of(cls, sharding: NamedSharding, batch_size: int) -> "_Share":
        owner = np.full(batch_size, jax.process_count())
        held = np.zeros(batch_size, bool)
        # Rows are cut alike for every length, so any will do.
        for device, index in sharding.devices_indices_map((batch_size, 1)).items():
            assert index is not None
            owner[index[0]] = np.minimum(owner[index[0]], device.process_index)
            if device.process_index == jax.process_index():
                held[index[0]] = True
        local = np.flatnonzero(held)
        return cls(local, owner[local] == jax.process_index(), batch_size)


def put_batch(host: Batch, sharding: NamedSharding) -> Batch:
    """A whole batch, the same on every process, onto the devices."""
    size = len(host.inputs)
    everything = _Share(np.arange(size), np.ones(size, bool), size)
    return _to_devices(host, everything, sharding)


def _to_devices(host: Batch, share: _Share, sharding: NamedSharding) -> Batch:
    place = np.full(share.batch_size, -1)
    place[share.local] = np.arange(len(share.local))

    def put(local: np.ndarray) -> jax.Array:
        def piece(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            return local[(place[index[0]], *index[1:])]

        shape = (share.batch_size, *local.shape[1:])
        return jax.make_array_from_callback(shape, sharding, piece)

    return jax.tree.map(put, host)
