"""Chips: dense bf16 peak, memory and its bandwidth. Vendors' figures."""

from dataclasses import dataclass

GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator chip.

    Attributes:
      bf16_flops: dense peak, FLOP/s (a multiply-add is two).
      memory_bytes: high-bandwidth memory.
      memory_bytes_per_second: its bandwidth.
    """

    name: str
    bf16_flops: float
    memory_bytes: float
    memory_bytes_per_second: float


def _chip(name: str, tflops: float, memory_bytes: float, terabytes_per_second: float) -> Chip:
    return Chip(
        name=name,
        bf16_flops=tflops * 1e12,
        memory_bytes=memory_bytes,
        memory_bytes_per_second=terabytes_per_second * 1e12,
    )


CHIPS = {
    chip.name: chip
    for chip in (
        _chip("v4", 275, 32 * GIB, 1.2),
        _chip("v5e", 197, 16 * GIB, 0.81),
        _chip("v5p", 459, 95 * GIB, 2.765),
        _chip("v6e", 918, 32 * GIB, 1.638),
        _chip("a100", 312, 80e9, 2.0),
        _chip("h100", 989, 80e9, 3.35),
        _chip("h200", 989, 141e9, 4.8),
        _chip("b200", 2250, 180e9, 8.0),
    )
}

# How `jax.Device.device_kind` spells the chips, lower case; the first match counts.
_DEVICE_KINDS = (
    ("tpu v4", "v4"),
    ("tpu v5 lite", "v5e"),
    ("tpu v5e", "v5e"),
    ("tpu v5p", "v5p"),
    ("tpu v5", "v5p"),
    ("tpu v6", "v6e"),
    ("a100", "a100"),
    ("h100", "h100"),
    ("h200", "h200"),
    ("b200", "b200"),
)


def chip_of_device(device_kind: str) -> Chip | None:
    """The chip behind a `jax.Device.device_kind`; None where we have no figures (a CPU, say)."""
    lowered = device_kind.lower()
    for needle, name in _DEVICE_KINDS:
        if needle in lowered:
            return CHIPS[name]
    return None


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The devices a run will use, and how fast they train.

    Attributes:
      device: what the devices call themselves.
      flops_per_second: model FLOP/s of training on all devices together.
      peak_flops_per_second: what MFU divides by.
      memory_bytes: per device.
      source: where `flops_per_second` is from (a trial here, or an assumed MFU).
    """

    device: str
    num_devices: int
    flops_per_second: float
    peak_flops_per_second: float
    memory_bytes: float
    source: str
    is_accelerator: bool
