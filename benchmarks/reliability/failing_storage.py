"""Disks that fill up, folders that cannot be written, two jobs on one run."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.reliability.processes import Life, wait_until
from benchmarks.reliability.promises import Promise
from benchmarks.reliability.run_files import Watch, last_checkpoint
from benchmarks.reliability.scene import (
    LONGEST_SECONDS,
    Scene,
    end_promise,
    exit_promise,
    intact_promise,
    like_undisturbed,
)

_BAD_INPUT_SECONDS = 60.0  # the start of Python and JAX counts; a quiet machine needs a tenth
_BLOCK = 1 << 16


def full_disk(scene: Scene) -> list[Promise]:
    """The disk fills up between two saves: the run ends with 1 and says so; once there is room
    again it goes on."""
    what = "disk full between saves"
    with small_disk(scene.folder / "full", "150m") as disk:
        job = scene.job("full_disk", run=disk / "run")
        watch = Watch(job.run)
        with Life(job) as life:
            wait_until(lambda: watch.saves() > 0, life, LONGEST_SECONDS)
            filler = fill(disk)
            ended = exit_promise(what, life, (1,), seconds=120, words="No space left on device")
        intact = intact_promise(what, job.run, at_least=1)
        filler.unlink()
        return [ended, intact, end_promise(what, scene.whole, job)]


def no_room_for_checkpoints(scene: Scene) -> list[Promise]:
    """A disk too small for the checkpoints that the config asks for: refused before the start."""
    with small_disk(scene.folder / "small", "10m") as disk:
        job = scene.job("no_room", run=disk / "run")
        with Life(job) as life:
            ended = exit_promise(
                "disk too small", life, (2,), seconds=_BAD_INPUT_SECONDS, words="error: disk"
            )
        return [ended, nothing_written("disk too small", disk)]


def read_only_new(scene: Scene) -> list[Promise]:
    """A new run where nothing can be written."""
    with small_disk(scene.folder / "read_only_new", "150m") as disk:
        remount(disk, "ro")
        job = scene.job("read_only_new", run=disk / "run")
        with Life(job) as life:
            ended = exit_promise(
                "read-only, new run", life, (2,), seconds=_BAD_INPUT_SECONDS, words="error: run"
            )
        return [ended, nothing_written("read-only, new run", disk)]


def read_only_later(scene: Scene) -> list[Promise]:
    """A run that was stopped, and whose folder can be written no more; later it can."""
    what = "read-only, existing run"
    with small_disk(scene.folder / "read_only_later", "150m") as disk:
        job = scene.job("read_only_later", run=disk / "run")
        watch = Watch(job.run)
        with Life(job) as life:
            wait_until(lambda: watch.saves() > 1, life, LONGEST_SECONDS)
            life.kill_group()
        newest = last_checkpoint(job.run)
        remount(disk, "ro")
        with Life(job) as life:
            ended = exit_promise(what, life, (2,), seconds=_BAD_INPUT_SECONDS, words="error: run")
        intact = intact_promise(what, job.run, at_least=newest)
        remount(disk, "rw")
        return [ended, intact, end_promise(what, scene.whole, job)]


def two_jobs(scene: Scene) -> list[Promise]:
    """A second job on a run that is being written leaves; the first one does not notice."""
    what = "two jobs on one run"
    job = scene.job("two_jobs")
    watch = Watch(job.run)
    with Life(job) as first:
        wait_until(lambda: watch.steps() > 0, first, LONGEST_SECONDS)
        # The first one must be there for as long as the second one takes to start.
        second = Life(job)
        ended = exit_promise(
            f"{what}: the second", second, (2,), seconds=_BAD_INPUT_SECONDS, words="another process"
        )
        first_ended = exit_promise(f"{what}: the first", first, (0,), seconds=LONGEST_SECONDS)
    return [ended, first_ended, like_undisturbed(what, scene.whole, job.run)]


@contextmanager
def small_disk(folder: Path, size: str) -> Generator[Path, None, None]:
    """A file system of its own in memory, mounted at the folder; needs root.

    Raises:
      RuntimeError: it cannot be mounted here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, mode: str) -> None:
    """Makes a mounted file system read-only ("ro") or writable ("rw")."""
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Takes all room there is on a disk; the file that does."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, _BLOCK, 1 << 10):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return filler


def nothing_written(what: str, folder: Path) -> Promise:
    found = sorted(str(Path(root, name).relative_to(folder))
                   for root, folders, files in os.walk(folder)
                   for name in [*folders, *files])  # fmt: skip
    return Promise(
        f"{what}: the disk", "as it was: empty", ", ".join(found[:3]) or "empty", not found
    )
