"""Rows to sharded device arrays, read ahead by Grain's threads."""

from collections.abc import Iterator
from typing import NamedTuple

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from data.batches import Batch, Cursor, RowSource, advance, take_rows

_READ_THREADS = 2
_BATCHES_AHEAD = 4


class Fed(NamedTuple):
    """One global batch on the devices, its host copy, and the cursor just after it.

    `host` holds the rows this process read; `rows` the row numbers of the whole batch.
    """

    batch: Batch
    host: Batch
    rows: np.ndarray
    cursor: Cursor


def feed(
    source: RowSource,
    cursor: Cursor,
    *,
    batch_size: int,
    num_batches: int,
    sharding: NamedSharding,
    num_threads: int = _READ_THREADS,
) -> Iterator[Fed]:
    """The next `num_batches` batches from the cursor on.

    Which rows make up a batch depends on the cursor and the batch size alone: threads, devices
    and processes only decide who reads them. Each process reads the rows of its own devices.

    Args:
      source: row number -> example.
      batch_size: rows of the global batch.
      sharding: how a [B, L] array is cut over the mesh.
      num_threads: that read ahead; with 0 each batch is read when it is asked for.
    """
    local_rows = _local_rows(sharding, (batch_size, source.seq_len))

    def read(rows: np.ndarray) -> tuple[np.ndarray, Batch]:
        return rows, source.batch(rows[local_rows])

    batches = (
        grain.MapDataset.source(_RowNumbers(cursor, batch_size, num_batches))
        .map(read)
        .to_iter_dataset(
            grain.ReadOptions(
                num_threads=num_threads, prefetch_buffer_size=_BATCHES_AHEAD if num_threads else 0
            )
        )
    )
    for rows, host in batches:
        cursor = advance(cursor, batch_size)
        yield Fed(_to_devices(host, local_rows, batch_size, sharding), host, rows, cursor)


class _RowNumbers:
    """Random access to the row numbers of batch k after a cursor, as Grain wants its sources."""

    def __init__(self, cursor: Cursor, batch_size: int, num_batches: int):
        self._cursor, self._batch_size, self._num_batches = cursor, batch_size, num_batches

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, index: int) -> np.ndarray:
        cursor = advance(self._cursor, index * self._batch_size)
        return take_rows(cursor, self._batch_size)[0]


def put_batch(host: Batch, sharding: NamedSharding) -> Batch:
    """A whole batch, the same on every process, onto the devices."""
    return _to_devices(host, np.arange(len(host.inputs)), len(host.inputs), sharding)


def _local_rows(sharding: NamedSharding, shape: tuple[int, int]) -> np.ndarray:
    """Row indices of the global batch that this process' devices hold, in order."""
    index_map = sharding.addressable_devices_indices_map(shape)
    held = np.zeros(shape[0], bool)
    for index in index_map.values():
        assert index is not None
        held[index[0]] = True
    return np.flatnonzero(held)


def _to_devices(
    host: Batch, local_rows: np.ndarray, batch_size: int, sharding: NamedSharding
) -> Batch:
    place = np.full(batch_size, -1)
    place[local_rows] = np.arange(len(local_rows))

    def put(local: np.ndarray) -> jax.Array:
        def piece(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            return local[(place[index[0]], *index[1:])]

        return jax.make_array_from_callback((batch_size, *local.shape[1:]), sharding, piece)

    return jax.tree.map(put, host)
