"""Tensors in a folder: one safetensors file, or several with an index that says which holds what.

The format itself accepts duplicate names and says nothing about damage, so reading checks the
names, and an export keeps checksums beside (export/write.py).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import InputError
from export.manifest import write_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_SHARD_BYTES = 5_000_000_000
_DTYPES = ("float32", "float16", "bfloat16")
_MOST_HEADER_BYTES = 100_000_000  # the limit of the reference reader


def write_tensors(
    tensors: Mapping[str, np.ndarray], folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Writes tensors in the order given, a new file before one would pass `max_shard_bytes`.

    A tensor larger than the limit gets a file of its own.
    """
    from safetensors.numpy import save_file

    shards: list[dict[str, np.ndarray]] = [{}]
    used_bytes = 0
    for name, tensor in tensors.items():
        if shards[-1] and used_bytes + tensor.nbytes > max_shard_bytes:
            shards.append({})
            used_bytes = 0
        # The writer takes a strided view's memory as it lies: only contiguous arrays are safe.
        shards[-1][name] = np.ascontiguousarray(tensor)
        used_bytes += tensor.nbytes
    files = [SINGLE]
    if len(shards) > 1:
        count = len(shards)
        files = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    for file, shard in zip(files, shards, strict=True):
        save_file(shard, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # the writer lets only its owner read
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
            "weight_map": {
                name: file for file, shard in zip(files, shards, strict=True) for name in shard
            },
        }
        write_json(folder / INDEX, index)


def read_tensors(
    folder: Path, rename: Callable[[str], str | None] = lambda name: name
) -> dict[str, np.ndarray]:
    """Every tensor of a folder as fp32, by name. bf16 and fp16 widen without rounding.

    Args:
      folder: where the files are.
      rename: name in the file -> name in the result; None for a tensor that is not read.

    Raises:
      InputError: no safetensors (pickled weights are never read), a file the index names that is
        missing or outside the folder, an index that disagrees with the files, duplicate names, a
        damaged file, or another dtype.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, tensor in _read_folder(folder, lambda name: rename(name) is not None).items():
        renamed = rename(name)
        assert renamed is not None
        if renamed in tensors:
            raise InputError(f"{folder}: got two tensors that are {renamed}, one of them {name}")
        tensors[renamed] = tensor
    return tensors


def _read_folder(folder: Path, is_read: Callable[[str], bool]) -> dict[str, np.ndarray]:
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file():
            found = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth"))
            note = f" (pickled weights are not read: {', '.join(found)})" if found else ""
            raise InputError(f"{folder}: found no {SINGLE} or {INDEX}, expected one{note}")
        return _read_file(folder / SINGLE, is_read)
    weight_map = _weight_map(folder / INDEX)
    tensors: dict[str, np.ndarray] = {}
    for file in sorted(set(weight_map.values())):
        shard = _read_file(folder / file, is_read)
        expected = {n for n, holder in weight_map.items() if holder == file and is_read(n)}
        odd = sorted(expected ^ shard.keys())
        if odd:
            raise InputError(
                f"{folder / file}: the index and the file disagree about {', '.join(odd[:10])}"
            )
        tensors |= shard
    return tensors


def _weight_map(path: Path) -> dict[str, str]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)
        weight_map = index["weight_map"]
        items = dict(weight_map.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message = f"{path}: got an unreadable index ({error}), expected a weight_map"
        raise InputError(message) from error
    for file in items.values():
        plain = isinstance(file, str) and Path(file).name == file and "\\" not in file
        if not plain or not file.endswith(".safetensors"):
            raise InputError(
                f"{path}: got file {file!r}, expected the plain name of a .safetensors file here"
            )
        if not (path.parent / file).is_file():
            raise InputError(f"{path}: names {file}, expected it in the folder")
    return items


def _read_file(path: Path, is_read: Callable[[str], bool]) -> dict[str, np.ndarray]:
    import ml_dtypes  # noqa: F401  registers bfloat16 with NumPy, which the reader looks up
    from safetensors import SafetensorError, safe_open

    try:
        _require_unique_names(path)
        with safe_open(path, framework="np") as file:
            names = [name for name in file.keys() if is_read(name)]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, OSError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: got a damaged file ({error}), expected safetensors") from error
    for name, tensor in tensors.items():
        if str(tensor.dtype) not in _DTYPES:
            expected = ", ".join(_DTYPES)
            raise InputError(f"{path}: {name}: got dtype {tensor.dtype}, expected {expected}")
    return {name: tensor.astype(np.float32, copy=False) for name, tensor in tensors.items()}


def _require_unique_names(path: Path) -> None:
    """The reference reader keeps one of two tensors of a name, without a word."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if header_bytes > min(_MOST_HEADER_BYTES, path.stat().st_size):
            raise ValueError(f"a header of {header_bytes} bytes")
        json.loads(file.read(header_bytes), object_pairs_hook=_without_duplicates)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"duplicate names: {', '.join(repeated[:10])}")
    return seen
