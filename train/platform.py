"""What has to be settled before JAX starts: the XLA flags of a platform, and glibc's huge pages.

This module leaves JAX alone (it imports nothing but the standard library and configs): XLA reads
its flags when a backend is made, and glibc its tunables when the process starts.
"""

import importlib.util
import os
import re
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Literal

from configs.errors import InputError

Platform = Literal["cpu", "gpu", "tpu"]

# Which variable carries flags to the compiler of a platform. libtpu has a compiler of its own.
VARIABLES: dict[Platform, str] = {
    "cpu": "XLA_FLAGS",
    "gpu": "XLA_FLAGS",
    "tpu": "LIBTPU_INIT_ARGS",
}

# Flag -> why. XLA ends the process over a flag it does not know, so each was compiled with
# (docs/performance.md). Most of the TPU's are what libtpu does anyway: named, so that a run does
# not depend on what a later version does.
FLAGS: dict[Platform, dict[str, str]] = {
    "cpu": {},
    "gpu": {
        "--xla_gpu_enable_latency_hiding_scheduler=true": "order work so that communication runs "
        "under it",
        "--xla_gpu_enable_pipelined_all_gather=true": "gather the next layer's weights under this "
        "layer's work",
        "--xla_gpu_enable_pipelined_reduce_scatter=true": "scatter the last layer's gradients "
        "under this layer's work",
        "--xla_gpu_enable_pipelined_all_reduce=true": "the same where gradients are replicated",
        "--xla_gpu_enable_while_loop_double_buffering=true": "two layers of the loop in flight, "
        "without copies between them",
    },
    "tpu": {
        "--xla_tpu_enable_latency_hiding_scheduler=true": "order work so that communication runs "
        "under it",
        "--xla_tpu_enable_async_collective_fusion=true": "run collectives inside matrix products",
        "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true": "all-gathers too",
        "--xla_tpu_enable_async_collective_fusion_multiple_steps=true": "over several products",
        "--xla_tpu_overlap_compute_collective_tc=true": "compute and communicate at once on a core",
        "--xla_enable_async_all_gather=true": "start gathering weights ahead of their use",
        "--xla_jf_spmd_threshold_for_windowed_einsum_mib=0": "collective matmul at any size: "
        "multiply by one shard while the next one travels",
    },
}

_FLAG = re.compile(r"(--)?([a-z][a-z0-9_]*=\S*)")
_HUGE_PAGES = "glibc.malloc.hugetlb"
_TRANSPARENT_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_NO_RESTART = "ISOFLOP_NO_REEXEC"


def expected_platform(
    environment: MutableMapping[str, str] | None = None, devices: Path = Path("/dev")
) -> Platform:
    """The platform JAX is going to use, found without starting it.

    What JAX_PLATFORMS names first; else an accelerator that is both in this machine and served by
    an installed plugin; else the CPU.

    Args:
      environment: of this process if None.
      devices: where device files lie.
    """
    environment = os.environ if environment is None else environment
    named = environment.get("JAX_PLATFORMS", "").split(",")[0].strip().lower()
    if named:
        return {"tpu": "tpu", "cpu": "cpu"}.get(named, "gpu")  # type: ignore[return-value]
    if _is_installed("libtpu") and _has_device(devices, r"accel\d+", r"vfio/\d+"):
        return "tpu"
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "jax_rocm7_plugin")
    if any(map(_is_installed, plugins)) and _has_device(devices, r"nvidia\d+", r"kfd", r"dxg"):
        return "gpu"
    return "cpu"


def set_flags(
    choice: str, platform: Platform, environment: MutableMapping[str, str] | None = None
) -> list[str]:
    """Puts the platform's XLA flags into the environment; to be called before JAX starts.

    Of two settings of a flag the more deliberate one counts: the option's, then what the user's
    environment has, then ours.

    Args:
      choice: flags to add or replace, apart by spaces, dashes or not; "none" in front leaves out
        ours; "" for just ours.
      environment: of this process if None.

    Returns:
      All flags that the platform's compiler is given, the user's included.

    Raises:
      InputError: something in `choice` that is not of the form name=value.
    """
    environment = os.environ if environment is None else environment
    words = choice.split()
    is_without_ours = words[:1] == ["none"]
    ours = {} if is_without_ours else FLAGS[platform]
    wanted = [_spelled(word) for word in words[is_without_ours:]]
    variable = VARIABLES[platform]
    flags = {}
    for flag in [*ours, *environment.get(variable, "").split(), *wanted]:
        flags[flag.partition("=")[0]] = flag
    if flags:
        environment[variable] = " ".join(flags.values())
    return list(flags.values())


def flags_in_force(environment: MutableMapping[str, str] | None = None) -> list[str]:
    """Every flag that XLA is given by this process' environment, for the record of a run."""
    environment = os.environ if environment is None else environment
    variables = sorted(set(VARIABLES.values()))
    return [flag for name in variables for flag in environment.get(name, "").split()]


def huge_pages() -> Literal["on", "off", "always"]:
    """Whether large arrays of this process lie on huge pages: by glibc, not, or by the kernel."""
    if _kernel_huge_pages() == "always":
        return "always"
    is_asked_for = f"{_HUGE_PAGES}=1" in os.environ.get("GLIBC_TUNABLES", "").split(":")
    return "on" if is_asked_for and _kernel_huge_pages() == "madvise" else "off"


def restart_with_huge_pages() -> None:
    """Starts this process again with glibc's huge pages on, where that helps; else returns.

    XLA's large temporary buffers are returned to the kernel after every step and page-fault anew
    in the next, two orders of magnitude less often with huge pages (docs/performance.md); no
    call does what the variable does. It is the same process afterwards: id, folder, open files,
    signals' senders and waiters see nothing.

    Left alone: an accelerator's process, a user's own setting, ISOFLOP_NO_REEXEC=1, a kernel that
    gives huge pages always or never, and a libc that is not glibc 2.35 or newer.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if (
        not sys.executable
        or _HUGE_PAGES in tunables
        or os.environ.get(_NO_RESTART)
        or not _can_ask_for_huge_pages()
        or expected_platform() != "cpu"
    ):
        return
    asked = ":".join(part for part in (tunables, f"{_HUGE_PAGES}=1") if part)
    environment = os.environ | {"GLIBC_TUNABLES": asked}
    try:
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606  this very program
    except OSError:  # a sandbox that forbids it: slower, and nothing else
        return


def _spelled(word: str) -> str:
    """`xla_a=1` and `--xla_a=1` -> `--xla_a=1`."""
    flag = _FLAG.fullmatch(word)
    if flag is None:
        raise InputError(f"xla_flags: got {word!r}, expected NAME=VALUE, apart by spaces, or none")
    return f"--{flag[2]}"


def _can_ask_for_huge_pages() -> bool:
    return _glibc_version() >= (2, 35) and _kernel_huge_pages() == "madvise"


def _kernel_huge_pages() -> str:
    """always, madvise or never: the word in brackets in the kernel's file; "" without one."""
    try:
        chosen = re.search(r"\[(\w+)\]", _TRANSPARENT_HUGE_PAGES.read_text())
    except OSError:
        return ""
    return chosen[1] if chosen else ""


def _glibc_version() -> tuple[int, ...]:
    """(2, 36); () with another libc."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, ValueError, OSError):
        return ()
    return tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else ()


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _has_device(devices: Path, *names: str) -> bool:
    """Whether a device file matches one of the patterns, given relative to `devices`."""
    found = (path.relative_to(devices) for path in [*devices.glob("*"), *devices.glob("*/*")])
    return any(re.fullmatch(name, str(path)) for path in found for name in names)
