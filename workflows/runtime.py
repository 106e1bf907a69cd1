"""The options that settle how programs are compiled, on which processes, and a line about it."""

import os
from dataclasses import dataclass
from pathlib import Path

import jax
from rich.console import Console

from train.compilation_cache import keep_programs
from train.distributed import HEARTBEAT_TIMEOUT, START_TIMEOUT, start_processes
from train.platform import VARIABLES, Platform, expected_platform, huge_pages, set_flags
from train.progress import outlive_reader


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """XLA's flags and the compilation cache; `prepare_runtime` puts them in force."""

    xla_flags: str = ""
    """XLA flags to add or replace: "xla_a=1 xla_b=2"; none: leave out all that we set."""
    compilation_cache: str = ""
    """Folder that keeps compiled programs, ~/.cache/isoflop/xla if not given; none: no such."""


@dataclass(frozen=True, kw_only=True)
class ProcessOptions(RuntimeOptions):
    """Those of commands that several processes can run together: how they find each other.

    Under `isoflop launch` none of them is needed.
    """

    distributed: bool = False
    """Join the processes of a SLURM job, an Open MPI job, a Kubernetes job or a TPU pod."""
    coordinator: str = ""
    """HOST:PORT of process 0, to join processes by hand; with --num-processes, --process-id."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""
    start_timeout: int = START_TIMEOUT
    """Seconds to wait for the other processes; then exit 42."""
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT
    """Seconds of silence after which a process counts as dead, and the others leave."""


def prepare_runtime(options: RuntimeOptions, console: Console) -> None:
    """Puts the options in force and says so in a line; to be called before JAX makes a device.

    From then on the console drops what cannot be written: nobody need read it to the end.

    Raises:
      InputError: flags of another form, a folder that cannot be written, or processes that
        cannot be.
    """
    outlive_reader(console)
    platform = expected_platform()
    flags = set_flags(options.xla_flags, platform)
    folder = keep_programs(options.compilation_cache, platform)
    if isinstance(options, ProcessOptions):
        start_processes(
            coordinator=options.coordinator,
            num_processes=options.num_processes,
            process_id=options.process_id,
            detect=options.distributed,
            start_timeout=options.start_timeout,
            heartbeat_timeout=options.heartbeat_timeout,
        )
    line = describe_runtime(platform, flags, folder)
    if jax.distributed.is_initialized():
        line += f" · process {jax.process_index()} of {jax.process_count()}"
    console.print(line, highlight=False, soft_wrap=True)


def describe_runtime(platform: Platform, flags: list[str], folder: Path | None) -> str:
    """One line: "cpu · huge pages: on · XLA_FLAGS: none · compilation cache: ~/.cache/…"."""
    parts: list[str] = [platform]
    if platform == "cpu":
        parts.append(f"huge pages: {huge_pages()}")
    parts.append(f"{VARIABLES[platform]}: {' '.join(flags) or 'none'}")
    where = str(folder).replace(os.path.expanduser("~"), "~", 1) if folder else "none"
    return " · ".join([*parts, f"compilation cache: {where}"])
