"""The checkpoints folder of a run: which steps are in it, which stay, and how one leaves it.

    STEP/            committed: a step and its manifest
    saving-STEP…     a save under way, or one that was cut short
    removing-STEP    on its way out
    quarantine/      damaged steps

What leaves or arrives does so by one rename: a step is there whole or not at all. No JAX here.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.errors import InputError
from train.manifest import DamagedError, read_manifest, sync_folder

QUARANTINE = "quarantine"

_STEP = re.compile(r"0|[1-9][0-9]*")
_LEFTOVER = re.compile(r"(saving|removing)-([0-9]+)(\..*)?")


def committed_steps(folder: Path) -> list[int]:
    """Steps of a folder, oldest first; [] where there is no folder. Damaged ones count."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if _STEP.fullmatch(path.name))


def saving_folder(folder: Path, step: int) -> Path:
    """Where a step is written before its commit."""
    return folder / f"saving-{step}"


def commit(folder: Path, step: int) -> None:
    """Makes a step that is written out and has its manifest one of the committed ones.

    One of the same number gives way.
    """
    if (folder / str(step)).exists():
        remove_step(folder, step)
    saving_folder(folder, step).rename(folder / str(step))
    sync_folder(folder)


def clear_leftovers(folder: Path) -> list[int]:
    """Removes what saves and removals that were cut short left; returns the steps cut short.

    A save that lacked nothing but its last rename is committed.
    """
    cut_short = set()
    for path in sorted(folder.iterdir()):
        match = _LEFTOVER.fullmatch(path.name)
        if not match:
            continue
        if path == saving_folder(folder, int(match[2])) and _has_manifest(path):
            commit(folder, int(match[2]))
            continue
        shutil.rmtree(path, ignore_errors=True)
        if match[1] == "saving":
            cut_short.add(int(match[2]))
    return sorted(cut_short)


def clear_saving(folder: Path, step: int) -> None:
    """Removes what a failed save of a step wrote."""
    for path in (saving_folder(folder, step), *folder.glob(f"saving-{step}.*")):
        shutil.rmtree(path, ignore_errors=True)


def remove_step(folder: Path, step: int) -> None:
    """Removes a committed step."""
    target = folder / f"removing-{step}"
    shutil.rmtree(target, ignore_errors=True)
    (folder / str(step)).rename(target)
    shutil.rmtree(target, ignore_errors=True)


def put_aside(folder: Path, step: int) -> Path:
    """Moves a damaged step to `quarantine/`, under a name that is free there."""
    target = folder / QUARANTINE / str(step)
    target.parent.mkdir(exist_ok=True)
    number = 0
    while target.exists():
        number += 1
        target = folder / QUARANTINE / f"{step}.{number}"
    (folder / str(step)).rename(target)
    sync_folder(folder)
    return target


def read_scores(folder: Path, steps: Sequence[int]) -> dict[int, float]:
    """Held-out losses of the steps that were saved with one."""
    scores = {}
    for step in steps:
        try:
            score = read_manifest(folder / str(step)).score
        except (DamagedError, InputError):
            continue
        if score is not None:
            scores[step] = score
    return scores


def kept_steps(
    steps: Sequence[int],
    scores: Mapping[int, float],
    *,
    keep: int,
    keep_every: int = 0,
    keep_best: int = 0,
) -> set[int]:
    """The steps that the keep rules leave.

    Args:
      scores: step -> held-out loss, lower is better; of equal ones the newer is better.
      keep: the newest so many stay.
      keep_every: multiples of it stay; 0: none for that reason.
      keep_best: the best so many of those with a score stay.
    """
    newest = sorted(steps)[-keep:] if keep else []
    regular = [step for step in steps if keep_every and step % keep_every == 0]
    ranked = sorted((step for step in steps if step in scores), key=lambda s: (scores[s], -s))
    return {*newest, *regular, *ranked[:keep_best]}


def _has_manifest(step_folder: Path) -> bool:
    try:
        read_manifest(step_folder)
    except (DamagedError, InputError):
        return False
    return True
