"""What checking a checkpoint adds to restoring it, and what a save holds up, at 1 GB.

    python -m benchmarks.checkpoint_verify [--gigabytes 1] [--rounds 7] [--folder DIR]

Saves a state of random float32 arrays, then restores it by turns: `defaults`, Orbax alone from a
checkpoint with Orbax's own settings (compressed); `bare`, Orbax alone from ours; `checked`, as
training does it (every file against the manifest, every array after). Rounds with the files dropped
from the page cache, as when a job starts again elsewhere, and with the files in it, where nothing
but memory is read. Medians over the rounds; CPU seconds are those of all threads. Exits 1 where
checking takes more than 10% of a restore from the disk.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from train.checkpoint import Checkpoints
from train.manifest import array_checksums, check_step
from train.state import TrainState

GOAL = 0.10
_LAYERS = 32
_WIDTH = 1024


class Seconds(NamedTuple):
    """Of one restore: on the clock, and of all CPUs together."""

    wall: float
    cpu: float


def main() -> int:
    """Runs the benchmark; 1 where checking takes more than its share."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return measure(Path(folder) / "checkpoints", options.gigabytes, options.rounds)


def measure(folder: Path, gigabytes: float, rounds: int) -> int:
    """Saves once, restores 4 × `rounds` times, prints a table."""
    state = random_state(gigabytes)
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    print(f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}, orbax {ocp.__version__}")
    checkpoints = Checkpoints(folder, on_event=lambda event, detail: print(f"{event} {detail}"))
    for _ in range(2):  # the second without what starts up with the first
        checkpoints.save(state, {})
        checkpoints.wait()
    step = folder / "0"
    whole = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    files = timed(lambda: check_step(step), folder)
    arrays = timed(lambda: array_checksums(whole), folder)
    print(f"checking alone, in the cache: files {files.wall:.3f} s, arrays {arrays.wall:.3f} s")
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as defaults:
        begun = time.perf_counter()
        defaults.save(folder.with_name("defaults"), saved_fields(state))
        print(f"saved with Orbax's defaults: {time.perf_counter() - begun:.1f} s")
    del state, whole

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as bare_checkpointer:
        fields: Any = saved_fields(target)
        args = ocp.args.PyTreeRestore(
            fields, restore_args=ocp.checkpoint_utils.construct_restore_args(fields)
        )
        ways = {
            "defaults": lambda: bare_checkpointer.restore(folder.with_name("defaults"), args=args),
            "bare": lambda: bare_checkpointer.restore(step / "state", args=args),
            "checked": lambda: checkpoints.restore_latest(target),
        }
        shares = {}
        for cache, prepare in (("cold", drop_files), ("warm", read_files)):
            taken: dict[str, list[Seconds]] = {name: [] for name in ways}
            for number in range(rounds):
                for name in sorted(ways, reverse=bool(number % 2)):
                    taken[name].append(timed(ways[name], folder.parent, prepare))
            shares[cache] = print_rounds(cache, taken)
    checkpoints.close()
    return int(shares["cold"] > GOAL)


def random_state(gigabytes: float) -> TrainState:
    """Arrays of a transformer's kind and size; incompressible, as weights are."""
    rng = np.random.default_rng(0)
    rows = int(gigabytes * 1e9 / 4 / _WIDTH / _LAYERS)
    params = {
        f"layer_{i}": jnp.asarray(rng.standard_normal((rows, _WIDTH), np.float32))
        for i in range(_LAYERS)
    }
    return TrainState(jnp.int32(0), params, (jnp.zeros(3),))


def saved_fields(state: TrainState) -> dict[str, Any]:
    """The fields that hold arrays, as checkpoints have them."""
    return {name: part for name, part in state._asdict().items() if jax.tree.leaves(part)}


def timed(
    work: Callable[[], Any], folder: Path, prepare: Callable[[Path], None] = lambda folder: None
) -> Seconds:
    """Seconds of one call, after `prepare`."""
    prepare(folder)
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(work())
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def read_files(folder: Path) -> None:
    """Puts the files into the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                shutil.copyfileobj(file, _Sink(), 1 << 20)


def drop_files(folder: Path) -> None:
    """Drops the files from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class _Sink:
    def write(self, block: bytes) -> int:
        return len(block)


def print_rounds(cache: str, taken: dict[str, list[Seconds]]) -> float:
    """Prints medians; returns the share of checking in a checked restore, on the clock."""
    shares = []
    for kind in Seconds._fields:
        median = {
            n: statistics.median(getattr(s, kind) for s in rounds) for n, rounds in taken.items()
        }
        pairs = zip(taken["bare"], taken["checked"], strict=True)
        share = statistics.median(1 - getattr(b, kind) / getattr(c, kind) for b, c in pairs)
        medians = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in median.items())
        print(f"{cache}, {kind}: {medians}; checking is {share:.1%} of checked (median of pairs)")
        shares.append(share)
    return shares[0]


if __name__ == "__main__":
    sys.exit(main())
