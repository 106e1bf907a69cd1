"""The arrays of a checkpoint: copies of a state, their checksums, what a run expects of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from configs.errors import InputError
from train.manifest import ArrayEntry, Manifest, array_checksums


class HostArray(NamedTuple):
    """An array of the state as this process holds it in host memory.

    pieces: (place, values), one for every part that differs; None where other processes hold more.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    pieces: tuple[tuple[Any, np.ndarray], ...] | None

    @classmethod
    def of(cls, leaf: jax.Array | np.ndarray) -> "HostArray":
        if isinstance(leaf, np.ndarray):  # restored without a sharding
            return cls(leaf.dtype, leaf.shape, ((..., leaf),))
        shards = leaf.addressable_shards
        if leaf.is_fully_replicated:
            shards = shards[:1]
        elif not leaf.is_fully_addressable:
            return cls(np.dtype(leaf.dtype), leaf.shape, None)
        else:
            shards = [shard for shard in shards if shard.replica_id == 0]
        pieces = tuple((shard.index, np.asarray(shard.data)) for shard in shards)
        return cls(np.dtype(leaf.dtype), leaf.shape, pieces)

    def whole(self) -> np.ndarray:
        assert self.pieces is not None
        if len(self.pieces) == 1:
            return self.pieces[0][1]
        array = np.empty(self.shape, self.dtype)
        for place, values in self.pieces:
            array[place] = values
        return array


def unaliased(state: Any) -> Any:
    """The state in memory that the next step does not overwrite.

    Elsewhere Orbax copies to the host before it returns. On a CPU the devices' memory is the
    host's: a view of it would be written to disk while a step to which it is donated may reuse it.
    """

    def copied(leaf: jax.Array) -> jax.Array:
        shards = leaf.addressable_shards
        if shards[0].device.platform != "cpu":
            return leaf
        copies = [jax.device_put(np.array(shard.data), shard.device) for shard in shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, copies)

    return jax.tree.map(copied, state)


def manifest_entries(on_host: Mapping[str, HostArray]) -> dict[str, ArrayEntry]:
    """Entries of the manifest, with checksums of what is all in this process."""
    held = {name: array for name, array in on_host.items() if array.pieces is not None}
    checksums = array_checksums(array.whole() for array in held.values())
    checksum_of = dict(zip(held, checksums, strict=True))
    return {
        name: ArrayEntry(array.dtype.name, array.shape, checksum_of.get(name))
        for name, array in on_host.items()
    }


def changed_arrays(tree: Any, manifest: Manifest) -> list[str]:
    """Restored arrays that are not what was in memory when they were saved.

    Files are read twice, once for their checksums and once by Orbax; this holds whatever a disk
    answers the second time, and whatever became of the values before the files had checksums.
    """
    known = manifest.arrays or {}
    held = {name: HostArray.of(leaf) for name, leaf in named(tree).items()}
    held = {
        name: array
        for name, array in held.items()
        if array.pieces is not None and name in known and known[name].checksum
    }
    checksums = array_checksums(array.whole() for array in held.values())
    return [
        f"{name} does not match its checksum"
        for name, checksum in zip(held, checksums, strict=True)
        if checksum != known[name].checksum
    ]


def require_same_arrays(
    step_folder: Path, manifest: Manifest, target: Any, *, within: str = ""
) -> None:
    """Raises InputError, naming all, where a step holds other arrays than `target`.

    Args:
      within: compare the arrays of this field only.
    """
    saved = manifest.arrays
    if saved is None:  # a manifest of version 1
        folder: Any = step_folder / "state"
        metadata: Any = ocp.PyTreeCheckpointHandler().metadata(folder)
        saved = _array_entries(metadata.tree)
    saved = {name: entry for name, entry in saved.items() if name.startswith(within)}
    wanted = _array_entries(target)
    problems = [f"no {name} (expected {wanted[name]})" for name in wanted if name not in saved]
    problems += [f"{name} {saved[name]} (not expected)" for name in saved if name not in wanted]
    problems += [
        f"{name} {saved[name]} (expected {entry})"
        for name, entry in wanted.items()
        if name in saved and str(saved[name]) != str(entry)
    ]
    if problems:
        raise InputError(
            f"checkpoint: got {step_folder} with {', '.join(problems)}; expected the arrays of "
            "the run's config"
        )


def named(tree: Any) -> dict[str, Any]:
    """Leaves by name, such as "params/decoder/final_norm/scale"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _array_entries(tree: Any) -> dict[str, ArrayEntry]:
    return {
        name: ArrayEntry(np.dtype(leaf.dtype).name, tuple(leaf.shape))
        for name, leaf in named(tree).items()
    }
