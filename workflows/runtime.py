"""The options that settle how programs are compiled, and what is printed about it at the start."""

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from train.compilation_cache import keep_programs
from train.platform import VARIABLES, Platform, expected_platform, huge_pages, set_flags


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """XLA's flags and the compilation cache; `prepare_runtime` puts them in force."""

    xla_flags: str = ""
    """XLA flags to add or replace: "xla_a=1 xla_b=2"; none: leave out all that we set."""
    compilation_cache: str = ""
    """Folder that keeps compiled programs, ~/.cache/isoflop/xla if not given; none: no such."""


def prepare_runtime(options: RuntimeOptions, console: Console) -> None:
    """Puts the options in force and says so in a line; to be called before JAX makes a device.

    Raises:
      InputError: flags of another form, or a folder that cannot be written.
    """
    platform = expected_platform()
    flags = set_flags(options.xla_flags, platform)
    folder = keep_programs(options.compilation_cache, platform)
    console.print(describe_runtime(platform, flags, folder), highlight=False, soft_wrap=True)


def describe_runtime(platform: Platform, flags: list[str], folder: Path | None) -> str:
    """One line: "cpu · huge pages: on · XLA_FLAGS: none · compilation cache: ~/.cache/…"."""
    parts: list[str] = [platform]
    if platform == "cpu":
        parts.append(f"huge pages: {huge_pages()}")
    parts.append(f"{VARIABLES[platform]}: {' '.join(flags) or 'none'}")
    where = str(folder).replace(os.path.expanduser("~"), "~", 1) if folder else "none"
    return " · ".join([*parts, f"compilation cache: {where}"])
