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


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(name="v4", bf16_flops=275e12, memory_bytes=32 * GIB, memory_bytes_per_second=1.2e12),
        Chip(name="v5e", bf16_flops=197e12, memory_bytes=16 * GIB, memory_bytes_per_second=0.81e12),
        Chip(
            name="v5p", bf16_flops=459e12, memory_bytes=95 * GIB, memory_bytes_per_second=2.765e12
        ),
        Chip(
            name="v6e", bf16_flops=918e12, memory_bytes=32 * GIB, memory_bytes_per_second=1.638e12
        ),
        Chip(name="a100", bf16_flops=312e12, memory_bytes=80e9, memory_bytes_per_second=2.0e12),
        Chip(name="h100", bf16_flops=989e12, memory_bytes=80e9, memory_bytes_per_second=3.35e12),
        Chip(name="h200", bf16_flops=989e12, memory_bytes=141e9, memory_bytes_per_second=4.8e12),
        Chip(name="b200", bf16_flops=2250e12, memory_bytes=180e9, memory_bytes_per_second=8.0e12),
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
