"""Chips: dense bf16 peak, memory, interconnect and their bandwidths. Vendors' figures."""

import re
from dataclasses import dataclass

from configs.errors import InputError, require
from configs.serialize import did_you_mean

GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator chip.

    Attributes:
      bf16_flops: dense peak, FLOP/s (a multiply-add is two).
      memory_bytes: high-bandwidth memory.
      memory_bytes_per_second: its bandwidth.
      devices: how many devices JAX shows for it.
      cores: how many cores the vendor counts when it names a slice (v5p-512 is 256 chips); 0 if
        slices are named by chips.
      torus_dims: of the grid that its links make with others'; 0 where chips of a host share a
        switch (NVLink).
      link_bytes_per_second: of one link in one direction; with a switch, of the chip.
      host_chips: chips of one host.
      network_bytes_per_second: a chip's share of its host's way to other slices or hosts, in one
        direction. For TPUs the 200 Gbit/s a host of four that is usual for the data-centre network
        (an assumption), for GPUs the 400 Gbit/s InfiniBand adapter each has.
    """

    name: str
    bf16_flops: float
    memory_bytes: float
    memory_bytes_per_second: float
    devices: int = 1
    cores: int = 0
    torus_dims: int = 0
    link_bytes_per_second: float = 0.0
    host_chips: int = 8
    network_bytes_per_second: float = 50e9

    @property
    def is_tpu(self) -> bool:
        """Whether its links make a torus."""
        return self.torus_dims > 0

    def slice_name(self, chips: int) -> str:
        """What a slice of so many chips is sold as, where there is such a name."""
        return f"{self.name}-{chips * self.cores}"


def _chip(
    name: str,
    tflops: float,
    memory_bytes: float,
    terabytes_per_second: float,
    devices: int = 1,
    cores: int = 0,
    *,
    link: float,
    torus_dims: int = 0,
) -> Chip:
    host_chips = 4 if torus_dims else 8
    return Chip(
        name=name,
        bf16_flops=tflops * 1e12,
        memory_bytes=memory_bytes,
        memory_bytes_per_second=terabytes_per_second * 1e12,
        devices=devices,
        cores=cores,
        torus_dims=torus_dims,
        link_bytes_per_second=link * 1e9,
        host_chips=host_chips,
        network_bytes_per_second=25e9 / host_chips if torus_dims else 50e9,
    )


CHIPS = {
    chip.name: chip
    for chip in (
        _chip("v4", 275, 32 * GIB, 1.2, cores=2, torus_dims=3, link=45),
        _chip("v5e", 197, 16 * GIB, 0.81, cores=1, torus_dims=2, link=45),
        _chip("v5p", 459, 95 * GIB, 2.765, cores=2, torus_dims=3, link=90),
        _chip("v6e", 918, 32 * GIB, 1.638, cores=1, torus_dims=2, link=90),
        _chip("v7x", 2307, 192 * GIB, 7.38, devices=2, torus_dims=3, link=100),
        _chip("a100-40gb", 312, 40e9, 1.6, link=300),
        _chip("a100", 312, 80e9, 2.0, link=300),
        _chip("h100", 989, 80e9, 3.35, link=450),
        _chip("h200", 989, 141e9, 4.8, link=450),
        _chip("b200", 2250, 180e9, 8.0, link=900),
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
    ("tpu7x", "v7x"),
    ("tpu v7", "v7x"),
    ("a100-sxm4-40gb", "a100-40gb"),
    ("a100-pcie-40gb", "a100-40gb"),
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
      num_chips: what is paid for; a chip may be several devices.
      price_per_chip_hour: in any currency; None if not told.
    """

    device: str
    num_devices: int
    flops_per_second: float
    peak_flops_per_second: float
    memory_bytes: float
    source: str
    is_accelerator: bool
    num_chips: int = 1
    price_per_chip_hour: float | None = None


DEFAULT_MFU = 0.4  # well-tuned dense pretraining reaches .35 to .55 of peak on these chips


def parse_chips(text: str, mfu: float = DEFAULT_MFU) -> Hardware:
    """'v5p:256' or 'h100:8' -> that many chips, by vendors' figures, at a stated MFU.

    Raises:
      InputError: unknown chip, a count that is no positive whole number, an MFU outside (0, 1].
    """
    require(0 < mfu <= 1, "mfu", mfu, "a share of peak above 0, at most 1")
    match = re.fullmatch(r"([\w-]+):([1-9]\d{0,6})", text)
    if match is None:
        raise InputError(f"chips: got {text!r}, expected CHIP:COUNT such as v5p:256 or h100:8")
    name, count = match[1].lower(), int(match[2])
    if name not in CHIPS:
        near = did_you_mean(name, CHIPS)
        raise InputError(f"chips: got {name!r}, expected one of {', '.join(CHIPS)}{near}")
    chip = CHIPS[name]
    return Hardware(
        device=f"{name} ({chip.slice_name(count)})" if chip.cores else name,
        num_devices=count * chip.devices,
        flops_per_second=mfu * count * chip.bf16_flops,
        peak_flops_per_second=count * chip.bf16_flops,
        memory_bytes=chip.memory_bytes / chip.devices,
        source=f"stated: {mfu:.0%} of {chip.bf16_flops / 1e12:,.0f} TFLOP/s a chip",
        is_accelerator=True,
        num_chips=count,
    )
