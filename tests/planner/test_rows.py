"""Batches become whole rows; devices share rows before the batch grows."""

from dataclasses import replace

import pytest

from configs.example_lengths import ExampleLengths
from configs.presets import PRESETS
from planner.hardware import parse_chips
from planner.rows import axis_limits, batch_rows

LLAMA = PRESETS["decoder_only/llama3_8b"]().model
LENGTHS = ExampleLengths(8193, 1, 8192)
POD = parse_chips("v5p:6144")


@pytest.mark.parametrize(
    ("wanted", "number", "devices_a_row"),
    [
        (100_000.0, 98_304, 1),  # 16.3 rows a device
        (6000.0, 6144, 1),
        (4608.0, 6144, 1),  # three quarters of a row a device: rounding
        (4000.0, 3072, 2),
        (2304.0, 2304, 8),
        (2297.0, 2304, 8),  # within 5%
        (1149.0, 1152, 16),
        (96.0, 96, 64),
    ],
)
def test_rows_are_whole_and_close_to_what_was_asked_for(wanted, number, devices_a_row):
    rows = batch_rows(wanted, LLAMA, LENGTHS, POD)
    assert (rows.number, rows.devices_a_row) == (number, devices_a_row)
    assert rows.number % (POD.num_devices // rows.devices_a_row) == 0
    assert bool(rows.rule) == (rows.devices_a_row > 1)


def test_a_batch_grows_only_where_no_more_devices_can_share_a_row_and_says_so():
    most = axis_limits(LLAMA, LENGTHS)
    assert most == (8, 16)  # eight key/value heads; 8,192 tokens in blocks of 512
    rows = batch_rows(10.0, LLAMA, LENGTHS, POD)
    assert rows.number == POD.num_devices // 128 == 48
    assert rows.rule.startswith("4.8 times the rule's 10 rows")


def test_cpus_never_share_rows():
    machine = replace(POD, is_accelerator=False, num_devices=8)
    assert batch_rows(2.0, LLAMA, LENGTHS, machine) == (8, 1, "")
