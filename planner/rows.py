"""How many rows a step has, and how many devices share one.

The batch in tokens is an optimizer's matter (planner.hyperparameters); here it becomes whole rows
that the devices divide. Where there are fewer rows than devices, devices share rows, along their
length or along heads and MLP; the batch does not grow to give each its own.
"""

import math
from typing import NamedTuple

from configs.example_lengths import ExampleLengths
from configs.model_config import ModelConfig
from planner.hardware import Hardware

# Rows of a device: numbers that halve well into microbatches.
_STEPS = sorted([1, *(base << shift for shift in range(20) for base in (2, 3))])
_SLACK = 1.05  # rows may be so much more than asked for where that makes them whole numbers
_LEAST_SHARE = 0.75  # of the rows asked for; below, one more halving of rows comes closer
_LARGEST_TENSOR = 8  # beyond, its sums outgrow the products; GPUs of a host are as many
_NARROWEST = 512  # width left to a device of a tensor axis: narrower products leave units idle
_SHORTEST = 512  # tokens of a row left to a device: blocks of attention kernels


class Rows(NamedTuple):
    """Rows of a step.

    number: a multiple of (devices / devices_a_row). rule: how it came about.
    """

    number: int
    devices_a_row: int
    rule: str


class AxisLimits(NamedTuple):
    """Largest powers of two that the mesh axes tensor and sequence may have."""

    tensor: int
    sequence: int


def axis_limits(model: ModelConfig, lengths: ExampleLengths) -> AxisLimits:
    """What a model's heads and widths, and its rows' lengths, let one row be shared by."""
    a = model.attention
    dims = (a.num_heads, a.num_kv_heads, model.mlp.mlp_dim, model.vocab_size)
    tensor = sequence = 1
    while 2 * tensor <= min(_LARGEST_TENSOR, model.emb_dim // _NARROWEST) and not any(
        dim % (2 * tensor) for dim in dims
    ):
        tensor *= 2
    sides = [length for length in (lengths.length, lengths.encoder_length) if length]
    while 2 * sequence <= min(sides) // _SHORTEST and not any(
        size % (2 * sequence) for size in (*sides, model.emb_dim)
    ):
        sequence *= 2
    return AxisLimits(tensor, sequence)


def batch_rows(
    wanted: float, model: ModelConfig, lengths: ExampleLengths, hardware: Hardware
) -> Rows:
    """Rows of a step, as close to `wanted` as the devices divide.

    At three quarters of a row a device or more, each device gets whole rows: the nearest of 1, 2,
    3, 4, 6, 8, … Below, the fewest devices share a row under which rows come to whole numbers
    without losing a quarter. Where no more devices can share a row, the batch grows, and the rule
    says by how much.

    Args:
      wanted: rows that the batch rule asks for, above 0.
    """
    devices = hardware.num_devices
    if not hardware.is_accelerator or wanted / devices >= _LEAST_SHARE:
        return Rows(devices * _nearest(wanted / devices), 1, "")
    most = axis_limits(model, lengths)
    shared, chosen = 1, None
    while devices % (2 * shared) == 0 and 2 * shared <= most.tensor * most.sequence:
        shared *= 2
        per_group = _SLACK * wanted / devices * shared
        if per_group < 1:
            continue
        number = max(step for step in _STEPS if step <= per_group) * devices // shared
        if chosen is None or number > chosen.number:
            chosen = Rows(number, shared, "")
        if number >= _LEAST_SHARE * wanted:
            break
    if chosen is None:
        number = devices // shared
        grown = (
            f"{number / wanted:.3g} times the rule's {wanted:,.0f} rows: at most {shared} devices "
            f"can share a row of this model, and none may be idle"
        )
        return Rows(number, shared, grown)
    rule = f"{wanted:,.0f} rows by the rule are fewer than {devices:,} devices"
    return chosen._replace(rule=f"{rule}: {chosen.devices_a_row} share a row")


def _nearest(rows: float) -> int:
    return min(_STEPS, key=lambda step: abs(math.log(step / rows)))
