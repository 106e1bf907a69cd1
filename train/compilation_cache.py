"""Compiled programs, kept on disk from one start to the next."""

import hashlib
import os
import platform as host
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from configs.errors import InputError
from train.platform import Platform

MAX_BYTES = 4 * 1024**3
_MIN_COMPILE_SECONDS = 1.0  # quicker ones are not worth their files
_HIT = "/jax/compilation_cache/cache_hits"


def keep_programs(choice: str, platform: Platform, *, max_bytes: int = MAX_BYTES) -> Path | None:
    """Has JAX keep what takes over a second to compile, and look there before it compiles.

    JAX tells programs apart by their text, the compiler's version and its flags, but a CPU
    program is machine code for the very CPU it was compiled on and for its number of cores,
    which JAX leaves out: the folder's name carries them. A folder holds code that will be run, so
    a new one is the user's alone.

    Args:
      choice: a folder; "none" for no cache; "" for what the environment says: the folder
        JAX_COMPILATION_CACHE_DIR, else ISOFLOP_CACHE/xla (or none), else ~/.cache/isoflop/xla.
      platform: that programs are compiled for.
      max_bytes: what a folder may come to; at a start the oldest programs beyond it are deleted.

    Returns:
      The folder in use; None where there is none.

    Raises:
      InputError: the folder of `choice` cannot be made. The default one is then left unused.
    """
    if not choice and jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return Path(jax.config.jax_compilation_cache_dir)  # type: ignore[attr-defined]
    root = os.environ.get("ISOFLOP_CACHE", "")
    if (choice or root) == "none":
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    folder = Path(choice or _default_folder(root)) / _host_name(platform)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        if choice:
            raise InputError(
                f"compilation_cache: got {choice} ({error.strerror}), expected a folder that can "
                "be written, or none"
            ) from error
        return None
    _delete_oldest(folder, max_bytes)
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)
    return folder


@contextmanager
def counted_hits() -> Iterator[list[str]]:
    """Within it, the list grows by one for every program that came from the cache."""
    hits: list[str] = []

    def note(event: str, **_: str | int) -> None:
        if event == _HIT:
            hits.append(event)

    jax.monitoring.register_event_listener(note)
    try:
        yield hits
    finally:
        jax.monitoring.unregister_event_listener(note)


def _default_folder(root: str) -> Path:
    return Path(root or os.path.expanduser("~/.cache/isoflop")) / "xla"


def _host_name(platform: Platform) -> str:
    """`cpu-` and a hash of what a CPU's machine code depends on; for others of the host alone."""
    parts = [host.machine(), host.processor(), *_cpu_features()]
    if platform == "cpu":
        parts.append(f"{_num_cores()} cores")
    return f"{platform}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}"


def _cpu_features() -> list[str]:
    """Model and instruction sets of the first core, where Linux tells them."""
    try:
        first_core = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return []
    fields = [line.partition(":") for line in first_core.splitlines()]
    kept = ("model name", "flags", "Features", "CPU part", "CPU implementer")
    return [value.strip() for name, _, value in fields if name.strip() in kept]


def _num_cores() -> int:
    """That this process may run on: XLA divides the work of a CPU program by it."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _delete_oldest(folder: Path, max_bytes: int) -> None:
    entries = []
    for path in folder.iterdir():
        if path.is_file():
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    excess = sum(size for _, size, _ in entries) - max_bytes
    for _, size, path in sorted(entries):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)  # another start may be at it too
        excess -= size
