"""What `isoflop train` is to train: a new run, or one that is there and goes on."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from configs.errors import InputError, require
from configs.names import require_file_name
from configs.overrides import apply_overrides, load_preset_or_file
from configs.schema import RunConfig
from configs.serialize import deciding
from data.dataset import with_corpora
from train.run_directory import RunDirectory
from train.supervision import RESTARTED

_MADE = ("fingerprint.json", "run.json")  # the last of what makes a folder a run
_LOOK_SECONDS = 0.5


class Found(NamedTuple):
    """A run to train.

    is_new: whether it is yet to be made. moved: how its mesh or microbatches change with this
    start, "" if they do not.
    """

    run: RunDirectory
    config: RunConfig
    is_new: bool
    moved: str = ""


def find_run(
    target: str,
    overrides: Sequence[str],
    *,
    run_path: Path | None,
    corpora: tuple[Path, ...],
    may_resume: bool,
) -> Found:
    """Finds or names the run; nothing is written.

    A run that goes on keeps its config, but for what does not decide its numbers: the mesh, the
    number of microbatches, where its corpora lie.

    Args:
      target: a run directory, a preset, or a config's .json file.
      run_path: of a preset's or file's run; None for runs/NAME.
      may_resume: whether a preset's or file's run may be there already.

    Raises:
      InputError: the target is nothing to train, or the run that is there is another.
    """
    is_writer = jax.process_index() == 0
    if (Path(target) / "run.json").is_file():
        run = RunDirectory(Path(target), is_writer=is_writer)
        config = apply_overrides(run.config(), overrides)
        return _going_on(run, with_corpora(config, corpora))
    if Path(target).is_dir():
        raise InputError(f"target: got {target}, expected a run directory (with a run.json)")
    config = apply_overrides(load_preset_or_file(target), overrides)
    config = with_corpora(config, corpora)
    path = run_path or Path("runs") / require_file_name("name", config.name)
    run = RunDirectory(path, is_writer=is_writer)
    if not run.exists():
        return Found(run, config, is_new=True)
    may_resume = may_resume or RESTARTED in os.environ
    require(may_resume, "run", str(path), "a new folder; to go on with it: --resume")
    return _going_on(run, config)


def await_run(run: RunDirectory, *, seconds: float = 75.0) -> None:
    """Returns once a process sees the run that process 0, on another host perhaps, has made.

    A host remembers for up to a minute what was not on NFS when it looked there first; it looks
    anew where a folder is listed.

    Args:
      seconds: how long that may take.

    Raises:
      InputError: it is not there by then.
    """
    if run.is_writer:
        return
    end = time.monotonic() + seconds
    while missing := [name for name in _MADE if not run.has(name)]:
        require(
            time.monotonic() < end,
            "run",
            f"{run.path} without {missing[0]} in process {jax.process_index()}",
            "a folder that all hosts share",
        )
        time.sleep(_LOOK_SECONDS)
        for folder in (run.path.parent, run.path):
            with suppress(OSError):
                os.listdir(folder)


def _going_on(run: RunDirectory, config: RunConfig) -> Found:
    kept = run.config()
    is_moved = kept.mesh != config.mesh or _microbatches(kept) != _microbatches(config)
    training = replace(kept.training, num_microbatches=_microbatches(config))
    same = replace(kept, mesh=config.mesh, training=training)
    if names := sorted(_differing(deciding(same), deciding(config))):
        raise InputError(
            f"run: got another {', '.join(names)} than {run.path} has, expected its own config "
            "(only mesh and training.num_microbatches may change)"
        )
    if not is_moved:
        return Found(run, config, is_new=False)
    was, now = (f"{_axes(c)} in {_microbatches(c)} microbatches" for c in (kept, config))
    return Found(run, config, is_new=False, moved=f"from {was} to {now}")


def _differing(was: Any, now: Any, path: str = "") -> Iterator[str]:
    """Dotted names of what differs between two objects of JSON types."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in {**was, **now}:
            yield from _differing(was.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif was != now:
        yield path


def _microbatches(config: RunConfig) -> int:
    return config.training.num_microbatches


def _axes(config: RunConfig) -> str:
    """ "data=2 × tensor=4", or "one device"."""
    sizes = {name: size for name, size in config.mesh.axis_sizes.items() if size > 1}
    return " × ".join(f"{name}={size}" for name, size in sizes.items()) or "one device"
