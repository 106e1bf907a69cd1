"""Reading checkpoints: nothing is taken from a step that is not as it was written."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import jax
import orbax.checkpoint as ocp

from configs.errors import InputError
from train.agreement import first_of_any_process
from train.checkpoint_arrays import changed_arrays, require_same_arrays
from train.checkpoint_folder import committed_steps
from train.manifest import (
    DamagedError,
    Manifest,
    check_contents,
    check_names,
    read_manifest,
)

_LARGE_BYTES = 2**20  # from here on checking a file takes long enough to do it behind


def restore_params(folder: Path, abstract_params: Any, step: int | None = None) -> Any:
    """Parameters alone, for inference and export; nothing is moved.

    Args:
      folder: a run's checkpoints.
      abstract_params: shapes, dtypes and shardings of the parameters.
      step: which; None for the newest.

    Raises:
      InputError: no such checkpoint, one that is not as it was written, or one that holds other
        parameters.
    """
    steps = committed_steps(folder)
    if not steps:
        raise InputError(f"run: got {folder.parent}, expected a run with at least one checkpoint")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise InputError(f"step: got {step}, expected one of {', '.join(map(str, steps))}")
    step_folder, target = folder.resolve() / str(step), {"params": abstract_params}

    def read(step_folder: Path, manifest: Manifest) -> tuple[Any, None]:
        require_same_arrays(step_folder, manifest, target, within="params/")
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            restored = checkpointer.restore(
                step_folder / "state",
                args=ocp.args.PyTreeRestore(
                    item=target,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(target),
                    partial_restore=True,
                ),
            )
        return restored, None

    loaded, problem = read_checked(step_folder, read)
    if loaded is None:
        raise InputError(f"run: got {step_folder} ({problem}), expected an intact checkpoint")
    return loaded[0]["params"]


def read_checked(
    step_folder: Path, read: Callable[[Path, Manifest], tuple[Any, Any]]
) -> tuple[tuple[Any, Any] | None, str | None]:
    """What `read` makes of a step, or what is wrong with the step; the same on all processes.

    One process alone checks the large files of values while `read` is at them.
    Several check all before: one that failed half way would leave the others waiting for it.

    Args:
      read: gives a tree of arrays, and anything else.
    """
    manifest, problems = None, []
    try:
        manifest = read_manifest(step_folder)
        problems = check_names(step_folder, manifest)
    except DamagedError as error:
        problems = [str(error)]
    index, count = jax.process_index(), jax.process_count()
    small, large = [], []
    if manifest and not problems:
        for name, entry in manifest.files.items():
            holds_values = PurePosixPath(name).parent.name == "d"  # Orbax's name for that folder
            is_large = holds_values and (entry.num_bytes or 0) >= _LARGE_BYTES
            (large if is_large and count == 1 else small).append(name)
        problems = check_contents(step_folder, manifest, small, share=(index, count))
    if problem := first_of_any_process(_summary(problems)):
        return None, problem
    assert manifest is not None
    loaded, failure = None, None
    with ThreadPoolExecutor(1) as behind:
        checking = behind.submit(check_contents, step_folder, manifest, large)
        try:
            loaded = read(step_folder, manifest)
        except Exception as error:
            failure = error
        problems = checking.result()
    if failure and not problems:
        raise failure
    if loaded and not problems:
        problems = changed_arrays(loaded[0], manifest)
    if problem := first_of_any_process(_summary(problems)):
        return None, problem
    return loaded, None


def _summary(problems: Sequence[str]) -> str | None:
    """One line on what is wrong; None if nothing is."""
    if len(problems) < 2:
        return problems[0] if problems else None
    return f"{problems[0]}, and {len(problems) - 1} more"
