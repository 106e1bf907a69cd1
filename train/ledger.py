"""The ledger of a run that several processes read: each counts its own rows, sums are global."""

import jax
import numpy as np

from configs.schema import RunConfig
from data.ledger import Ledger, RowEntry


def total_ledger(base: Ledger, own: Ledger) -> Ledger:
    """`base` and what every process has counted since; a collective call.

    Args:
      base: of the whole run up to a checkpoint, the same on every process.
      own: what this process has counted since. Every process names the same corpora and epochs.
    """
    keys = sorted(own.entries)
    if not keys:
        return base
    counts = np.array([own.entries[key] for key in keys], np.int64)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        # In halves: without 64-bit mode JAX would cut the numbers to 32 bits.
        halves = multihost_utils.process_allgather(counts.view(np.uint32))
        counts[:, 2:] = np.asarray(halves).view(np.int64).sum(axis=0)[:, 2:]
    return base.add(RowEntry(*map(int, row)) for row in counts)


def places_trained_on(config: RunConfig, ledger: Ledger) -> int:
    """Places of all batches that training computed, those without a token included.

    The ledger counts places of rows as they were read; an example has more or fewer of them.
    """
    lengths = config.lengths
    own = ledger.places - ledger.rows * lengths.overlap
    return round(own * lengths.places / (lengths.tokens - lengths.overlap))
