"""Records of a user's file, cut into those to train on and those to judge by."""

from collections.abc import Sequence

import numpy as np

from configs.errors import require
from data.labelled import Record

HELD_OUT_FRACTION = 0.1


def split_records(records: Sequence[Record], *, seed: int) -> tuple[list[Record], list[Record]]:
    """A tenth of the records, at least one, drawn by the seed, and the others; both in order.

    Returns:
      Records to train on, records held out.

    Raises:
      InputError: fewer than two records.
    """
    require(len(records) >= 2, "data", f"{len(records)} record", "two or more, or --held-out")
    number = max(1, round(HELD_OUT_FRACTION * len(records)))
    chosen = set(np.random.default_rng(seed).choice(len(records), number, replace=False).tolist())
    train = [record for place, record in enumerate(records) if place not in chosen]
    return train, [record for place, record in enumerate(records) if place in chosen]
