"""What a run decides once the train step has refused an update."""

import math

import numpy as np
import pytest

from configs.errors import InputError
from configs.schema import GuardConfig
from tests.train.samples import random_batch, tiny_run
from train.refusals import (
    Refusals,
    Refused,
    Rewind,
    TooManyRefusals,
    read_culprit,
    save_culprit,
)

ROWS = np.arange(40, 48)
FINE = {"loss": 2.0, "z_loss": 1.0, "auxiliary_loss": 0.0, "grad_norm": 0.5}
APPLIED = FINE | {"applied": 1.0, "is_spike": 0.0}
NOT_FINITE = FINE | {"loss": math.nan, "applied": 0.0, "is_spike": 0.0}
SPIKE = FINE | {"loss": 9.0, "applied": 0.0, "is_spike": 1.0}


def test_an_update_that_was_applied_changes_nothing():
    assert Refusals().after(GuardConfig(), 3, ROWS, APPLIED) == Refusals()


def test_a_refused_batch_is_noted_with_its_rows_and_its_reason():
    after = Refusals().after(GuardConfig(), 3, ROWS, NOT_FINITE)
    assert after.refused == (Refused(3, 40, 48, "loss is nan", "skipped"),)
    assert after.in_a_row == 1
    assert after.after(GuardConfig(), 4, ROWS, APPLIED).in_a_row == 0
    assert Refusals.from_json(after.to_json()) == after


def test_the_limit_is_of_refusals_in_a_row():
    guard, refusals = GuardConfig(nonfinite_limit=3), Refusals()
    for step, values in enumerate([NOT_FINITE, NOT_FINITE, APPLIED, NOT_FINITE, SPIKE], start=1):
        refusals = refusals.after(guard, step, ROWS, values)
    assert [one.step for one in refusals.refused] == [1, 2, 4, 5]
    with pytest.raises(TooManyRefusals, match="step 6: .*3 updates in a row"):
        refusals.after(guard, 6, ROWS, NOT_FINITE)


def test_a_spike_rewinds_where_asked_and_so_often_only():
    guard = GuardConfig(spike_sigma=4.0, spike_action="rewind", max_rewinds=1)
    with pytest.raises(Rewind) as caught:
        Refusals().after(guard, 9, ROWS, SPIKE)
    assert (caught.value.step, caught.value.stop_row) == (9, 48)
    after = Refusals().rewound(caught.value, 16, rewinds=1)
    assert after.refused == (Refused(9, 16, 48, "a spike: loss 9", "rewound"),)
    with pytest.raises(TooManyRefusals, match="max_rewinds"):
        after.after(guard, 12, ROWS, SPIKE)
    assert after.after(guard, 12, ROWS, NOT_FINITE).in_a_row == 1  # nothing to rewind for


def test_a_gradient_alone_may_be_the_reason():
    values = NOT_FINITE | {"loss": 2.0, "grad_norm": math.inf}
    [refused] = Refusals().after(GuardConfig(), 3, ROWS, values).refused
    assert refused.reason == "grad_norm is inf"


def test_a_culprit_comes_back_as_it_was(tmp_path):
    batch = random_batch(tiny_run(), seed=1)
    rows = np.arange(len(batch.inputs))
    save_culprit(tmp_path / "culprits", 7, rows, batch, "loss is nan")
    read_rows, read, reason = read_culprit(tmp_path / "culprits", 7)
    np.testing.assert_array_equal(read_rows, rows)
    for field, expected in zip(read, batch, strict=True):
        np.testing.assert_array_equal(field, expected)
    assert reason == "loss is nan"
    with pytest.raises(InputError, match="culprit: got step 8, expected one of those kept: 7"):
        read_culprit(tmp_path / "culprits", 8)
    (tmp_path / "culprits" / "9.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match="culprit: got .*9.npz"):
        read_culprit(tmp_path / "culprits", 9)
