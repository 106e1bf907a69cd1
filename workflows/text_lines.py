"""A file of texts, one a line."""

from pathlib import Path

from configs.errors import InputError, require


def read_lines(path: Path, *, field: str) -> list[str]:
    """The lines of a UTF-8 file, blank ones left out.

    Raises:
      InputError: no such file, another encoding, or no text in it.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{field}: got {path} ({error}), expected a UTF-8 file") from error
    lines = [line for line in lines if line.strip()]
    require(bool(lines), field, str(path), "a file with a text in it")
    return lines
