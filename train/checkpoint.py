"""Checkpoints: Orbax writes them, a manifest of checksums guards them.

Orbax commits a step's folder with one rename, so a killed save leaves no half step. It keeps no
checksums of array data, though, and a flipped bit would load as a wrong weight: after the commit
we write the checksum of every file, and check them all before restoring. A step that fails is
moved aside and the one before it is used.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
import xxhash

from configs.errors import InputError
from configs.serialize import read_json, write_json
from train.state import TrainState

MANIFEST = "isoflop_manifest.json"
QUARANTINE = "quarantine"


class Restored(NamedTuple):
    """A checkpoint read back: the state, and the progress saved beside it."""

    state: TrainState
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints folder of one run.

    Args:
      folder: holds one sub-folder a step.
      keep: how many of the newest steps stay.
      keep_every: steps that are a multiple of it stay too; 0 keeps none for that reason.
      on_event: told (event, detail) when a damaged step is put aside.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 2,
        keep_every: int = 0,
        on_event: Callable[[str, str], None] = lambda event, detail: None,
    ):
        self._folder = folder.resolve()
        self._on_event = on_event
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, keep_period=keep_every or None, create=True
        )
        self._manager = ocp.CheckpointManager(self._folder, options=self._options)

    def save(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Saves a step and waits for its commit.

        Args:
          progress: JSON-serialisable; what resuming needs besides the arrays.
        """
        step = int(state.step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state._asdict()), progress=ocp.args.JsonSave(progress)
            ),
        )
        self._manager.wait_until_finished()
        if jax.process_index() == 0:
            write_manifest(self._folder / str(step))

    def steps(self) -> list[int]:
        """Steps on disk, oldest first."""
        return sorted(self._manager.all_steps())

    def restore_latest(self, abstract: TrainState) -> Restored | None:
        """The newest intact checkpoint onto the shardings of `abstract`; None if there is none.

        A step whose files do not match its manifest is moved to `quarantine/` and the one before
        it tried.
        """
        for step in reversed(self.steps()):
            problem = check_manifest(self._folder / str(step))
            if problem is None:
                return self._restore(step, abstract)
            if jax.process_index() == 0:
                self._put_aside(step)
            self._on_event("checkpoint_quarantined", f"step {step}: {problem}")
        return None

    def close(self) -> None:
        self._manager.close()

    def _restore(self, step: int, abstract: TrainState) -> Restored:
        restored: Any = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract._asdict()),
                progress=ocp.args.JsonRestore(),
            ),
        )
        return Restored(TrainState(**restored.state), restored.progress)

    def _put_aside(self, step: int) -> None:
        target = self._folder / QUARANTINE / str(step)
        target.parent.mkdir(exist_ok=True)
        number = 0
        while target.exists():
            number += 1
            target = self._folder / QUARANTINE / f"{step}.{number}"
        os.rename(self._folder / str(step), target)
        self._manager.reload()


def restore_params(folder: Path, abstract_params: Any) -> Any:
    """Parameters alone from the newest step, for inference and export; nothing is moved.

    Args:
      abstract_params: shapes, dtypes and shardings of the parameters.

    Raises:
      InputError: no checkpoint, or the newest one fails its checksums.
    """
    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
    if not steps:
        raise InputError(f"run: got {folder.parent}, expected a run with at least one checkpoint")
    step_folder = folder.resolve() / str(steps[-1])
    problem = check_manifest(step_folder)
    if problem:
        raise InputError(f"run: got {step_folder} ({problem}), expected an intact checkpoint")
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        restored = checkpointer.restore(
            step_folder / "state",
            args=ocp.args.PyTreeRestore(
                item={"params": abstract_params},
                restore_args=ocp.checkpoint_utils.construct_restore_args(
                    {"params": abstract_params}
                ),
                partial_restore=True,
            ),
        )
    return restored["params"]


def write_manifest(step_folder: Path) -> None:
    """Writes the checksum of every file under a committed step."""
    files = {str(p.relative_to(step_folder)): _checksum(p) for p in _files(step_folder)}
    write_json(step_folder / MANIFEST, {"schema_version": 1, "files": files})


def check_manifest(step_folder: Path) -> str | None:
    """What is wrong with a step's files; None if they are as they were written."""
    try:
        expected = dict(read_json(step_folder / MANIFEST)["files"])
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is missing or unreadable"
    present = {str(p.relative_to(step_folder)) for p in _files(step_folder)}
    if missing := sorted(set(expected) - present):
        return f"{missing[0]} is missing"
    if extra := sorted(present - set(expected)):
        return f"{extra[0]} was not there when it was written"
    for name, checksum in expected.items():
        if _checksum(step_folder / name) != checksum:
            return f"{name} does not match its checksum"
    return None


def _files(step_folder: Path) -> list[Path]:
    return sorted(p for p in step_folder.rglob("*") if p.is_file() and p.name != MANIFEST)


def _checksum(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
