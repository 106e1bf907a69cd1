"""The device mesh."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from configs.errors import InputError
from configs.schema import MeshConfig


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Arranges devices (all of them by default) into the mesh of the config.

    Raises:
      InputError: the axes' product is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = config.axis_sizes
    if config.num_devices != len(devices):
        axes = " × ".join(f"{name}={size}" for name, size in sizes.items() if size > 1) or "data=1"
        raise InputError(
            f"mesh: got {axes} = {config.num_devices} devices, expected {len(devices)} "
            f"(what this machine shows); for example --mesh.data {len(devices)}"
        )
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices,
    )
