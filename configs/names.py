"""Names from files and options that become paths: none of them leads out of its folder."""

from pathlib import Path

from configs.errors import require


def require_file_name(field: str, name: str) -> str:
    """The name, if it can be a file or folder in any folder: no separators, no `..`, no NUL.

    Raises:
      InputError: it is empty, or more than a plain name.
    """
    is_plain = name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
    require(is_plain, field, name, "a plain name, without / and other than . and ..")
    return name


def path_inside(folder: Path, name: str, field: str) -> Path:
    """`folder / name`, if that is inside the folder once every link and `..` is followed.

    Raises:
      InputError: it is elsewhere, or holds a NUL.
    """
    is_inside = "\0" not in name and (folder / name).resolve().is_relative_to(folder.resolve())
    require(is_inside, field, name, f"the name of a file in the folder {folder}")
    return folder / name
