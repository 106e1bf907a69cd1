"""isoflop doctor: what this machine offers, and whether the installation works."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
import psutil
from rich.console import Console

from configs.overrides import parse_command, reject_overrides
from configs.presets import PRESETS
from train.compilation_cache import keep_programs
from train.mesh import make_mesh
from train.metrics import peak_flops_per_second
from train.platform import expected_platform, set_flags
from train.state import init_state
from train.step import make_train_step
from workflows.calibrate import random_batch
from workflows.runtime import describe_runtime

PROG = "isoflop doctor"
_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "sentencepiece",
    "tensorflow-datasets",
    "array-record",
    "safetensors",
    "tokenizers",
)
_OPTIONAL = ("transformers", "torch", "libtpu", "tensorflow", "apache_beam")


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Prints versions, devices and memory, times a matrix product, and trains one tiny step."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop doctor`; 0 if the training step works."""
    _, overrides = parse_command(
        DoctorOptions, args, prog=PROG, description=DoctorOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    console = Console(highlight=False)
    console.print(f"python {platform.python_version()} on {platform.platform()}")
    for name in _PACKAGES:
        console.print(f"  {name} {importlib.metadata.version(name)}")
    for name in _OPTIONAL:
        found = importlib.util.find_spec(name) is not None
        console.print(f"  {name} (optional): {'installed' if found else 'not installed'}")
    expected = expected_platform()
    flags, folder = set_flags("", expected), keep_programs("", expected)
    console.print(describe_runtime(expected, flags, folder), soft_wrap=True)
    devices = jax.devices()
    console.print(f"devices: {len(devices)} × {devices[0].device_kind}")
    memory = psutil.virtual_memory()
    console.print(
        f"host: {os.cpu_count()} cores, {memory.total / 1e9:.1f} GB memory "
        f"({memory.available / 1e9:.1f} free), {shutil.disk_usage('.').free / 1e9:.1f} GB disk free"
    )
    peak, source = peak_flops_per_second(devices)
    console.print(f"peak: {peak / 1e12:.3g} TFLOP/s ({source})")
    config = PRESETS["decoder_only/tiny"]()
    mesh = make_mesh(config.mesh, devices[:1])
    state, metrics = make_train_step(config, mesh)(init_state(config, mesh), random_batch(config))
    if devices[0].platform != expected:
        console.print(f"what is installed speaks for {expected}, JAX uses {devices[0].platform}")
    works = bool(np.isfinite(float(metrics.loss))) and int(state.step) == 1
    console.print("training step: works" if works else "training step: the loss is not finite")
    return 0 if works else 1
