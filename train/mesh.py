"""The device mesh."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from configs.errors import InputError, require
from configs.schema import MeshConfig


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Arranges devices into the mesh of the config: outer axes over slices, inner ones near.

    Args:
      devices: all of this machine's if None; those of a topology are elsewhere.

    Raises:
      InputError: the axes' product is not the number of devices, or the outermost axes cannot be
        cut into the slices.
    """
    source = "what this machine shows" if devices is None else "what the mesh is for"
    devices = jax.devices() if devices is None else devices
    sizes = config.axis_sizes
    if config.num_devices != len(devices):
        axes = " × ".join(f"{name}={size}" for name, size in sizes.items() if size > 1) or "data=1"
        raise InputError(
            f"mesh: got {axes} = {config.num_devices} devices, expected {len(devices)} "
            f"({source}); for example --mesh.data {len(devices)}"
        )
    return Mesh(
        arrange(tuple(sizes.values()), devices),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
    )


def arrange(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """Devices as an array of these sizes: outer axes over slices, inner ones along the torus.

    Raises:
      InputError: the number of slices does not divide into the outermost axes.
    """
    slices = sorted({slice_of(device) for device in devices})
    if len(slices) == 1:
        return _arrange_slice(sizes, devices)
    outer, left = [], len(slices)
    for size in sizes:
        outer.append(math.gcd(size, left))
        left //= outer[-1]
        if left > 1 and outer[-1] != size:  # an axis half over slices is as slow as one over all
            break
    require(
        left == 1,
        "mesh",
        "×".join(map(str, sizes)),
        f"outermost axes (replica, data) that {len(slices)} slices divide",
    )
    outer += [1] * (len(sizes) - len(outer))
    inner = [size // over for size, over in zip(sizes, outer, strict=True)]
    parts = [
        _arrange_slice(inner, [device for device in devices if slice_of(device) == number])
        for number in slices
    ]
    # [slice axes..., inner axes...] -> one axis after another, each slices first.
    stacked = np.array(parts, dtype=object).reshape(*outer, *inner)
    order = [axis for i in range(len(sizes)) for axis in (i, len(sizes) + i)]
    return stacked.transpose(order).reshape(tuple(sizes))


def _arrange_slice(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    try:
        return mesh_utils.create_device_mesh(sizes, devices)
    except NotImplementedError:  # an axis has to share a dimension of the torus with another
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


def slice_of(device: Any) -> int:
    """Which of several slices, joined by the data-centre network, a TPU is of; else 0."""
    return getattr(device, "slice_index", None) or 0 if device.platform == "tpu" else 0
