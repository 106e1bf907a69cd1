"""The export's own record: isoflop.json, with what it was verified against and a checksum a file.

The safetensors format does not notice a flipped bit; these checksums do, at import.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from configs.errors import InputError

MANIFEST = "isoflop.json"


def checksum(path: Path) -> str:
    """xxh3 of a file, 128 bits as hex."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """File name -> checksum, for every file of a folder but the manifest itself."""
    return {p.name: checksum(p) for p in sorted(folder.iterdir()) if p.name != MANIFEST}


def require_checksums(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raises InputError unless every file the manifest lists is there and unchanged."""
    expected = manifest.get("xxh3_128")
    if not isinstance(expected, dict):
        raise InputError(f"{folder / MANIFEST}: got no xxh3_128, expected a checksum per file")
    for name, digest in expected.items():
        path = folder / name
        if Path(name).name != name:
            raise InputError(f"{folder / MANIFEST}: got {name!r}, expected a plain file name")
        if not path.is_file():
            raise InputError(f"{path}: got no file, expected what {MANIFEST} lists")
        if checksum(path) != digest:
            raise InputError(f"{path}: got another checksum than {MANIFEST} lists (damaged?)")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises InputError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: got no such file, expected one") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: got {error}, expected a JSON object") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: got a {type(content).__name__}, expected a JSON object")
    return content
