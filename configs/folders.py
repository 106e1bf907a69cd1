"""Folders made for what a command writes, which go again where its input proves bad."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from configs.errors import InputError


def make_folder(path: Path) -> tuple[Path, ...]:
    """Makes a folder and those above it; returns those that were not there, the deepest first.

    Raises:
      OSError: it cannot be made.
    """
    made = tuple(folder for folder in (path, *path.parents) if not folder.exists())
    path.mkdir(parents=True, exist_ok=True)
    return made


def remove_folders(made: Sequence[Path]) -> None:
    """Takes away what `make_folder` made: the deepest with all that is in it by now, and those
    above that are empty then."""
    if not made:
        return
    shutil.rmtree(made[0], ignore_errors=True)
    with suppress(OSError):
        for folder in made[1:]:
            folder.rmdir()


def require_writable_folder(field: str, path: Path) -> None:
    """Raises InputError unless files can be written into a folder, which need not be there yet."""
    nearest = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    fits = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    if not fits:
        reason = "cannot be written" if nearest.is_dir() else "is no folder"
        raise InputError(
            f"{field}: got {path} ({nearest} {reason}), expected a folder that can be written"
        )


def require_writable_file(field: str, path: Path) -> None:
    """Raises InputError unless a file can be written in a folder that is there."""
    if path.is_dir() or not path.parent.is_dir():
        reason = "a folder" if path.is_dir() else f"{path.parent} is no folder"
        raise InputError(f"{field}: got {path} ({reason}), expected a file in a folder there is")
    require_writable_folder(field, path.parent)
