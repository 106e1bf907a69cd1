"""What a run needs, checked in one pass before anything is compiled or written: every problem at
once, a line each."""

import math
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import psutil

from configs.errors import InputError, Problems, require
from configs.folders import require_writable_folder
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from configs.serialize import load_config, read_json
from configs.sharding import resolve
from data.dataset import Corpora, check_corpora, require_same_corpora
from data.tokenizer import Tokenizer
from planner.attention_kernel import Platform
from planner.hardware import chip_of_device
from planner.memory import training_bytes
from planner.optimizer_memory import state_elements
from planner.parameters import parameters
from train.mesh import make_mesh
from train.run_directory import RunDirectory

# The planner's count is within about a tenth of the compiler's: what is beyond this much of the
# memory there is does not fit.
MEMORY_MARGIN = 1.25

_NEEDED_FILES = ("run.json", "config.json", "fingerprint.json")
_OTHER_FILES = ("plan.json", "summary.json")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check_run(
    config: RunConfig,
    run_path: Path,
    open_corpora: Callable[[], Corpora],
    devices: Sequence[Any] | None = None,
    *,
    resume: bool,
    compilation_cache: str = "",
) -> Corpora:
    """Checks a config against corpora, devices, memory, disk and permissions; changes nothing.

    Takes well under a second beside opening the corpora, and compiles nothing.

    Args:
      run_path: the run directory, made already or not.
      open_corpora: opens the corpora that the config names, in its order.
      devices: of all processes; those that JAX shows if None.
      resume: whether the run is there, and goes on; its files are read too.
      compilation_cache: the folder that --compilation-cache names; "" or "none" if it names none.

    Returns:
      The opened corpora.

    Raises:
      InputError: everything that is wrong, as its `problems`.
    """
    devices = jax.devices() if devices is None else devices
    problems = Problems()
    corpora: Corpora = {}
    with problems.gathered():
        corpora = open_corpora()
    if corpora:
        with problems.gathered():
            check_corpora(config, corpora)
    with problems.gathered():
        make_mesh(config.mesh, devices)
    with problems.gathered():
        check_sharding(config)
        check_memory(config, devices)  # of what each device holds: as the rules cut it
    with problems.gathered():
        check_disk(config, run_path)
    with problems.gathered():
        require_writable_folder("run", run_path)
    if compilation_cache not in ("", "none"):
        with problems.gathered():
            require_writable_folder("compilation_cache", Path(compilation_cache))
    if resume:
        with problems.gathered():
            check_run_files(run_path, corpora)
    problems.raise_any()
    return corpora


def check_sharding(config: RunConfig) -> None:
    """Raises InputError with every way in which the rules do not cut a parameter over the mesh."""
    problems = Problems()
    for spec in parameters(config.model):
        with problems.gathered():
            resolve(config.mesh.rules, spec.logical_axes, spec.shape, config.mesh.axis_sizes)
    problems.raise_any()


def check_memory(config: RunConfig, devices: Sequence[Any]) -> None:
    """Raises InputError where a step certainly does not fit into a device's memory.

    That is: parameters and optimizer state alone are more than there is, or all that the planner
    counts is more than MEMORY_MARGIN times as much. Devices of a CPU share what is free of the
    machine's memory and swap, at most what its control group may use.
    """
    room = device_bytes(devices)
    if room is None:
        return
    needed = training_bytes(config, platform=_platform(devices))
    state = needed.params + needed.optimizer
    if state <= room and needed.total <= MEMORY_MARGIN * room:
        return
    raise InputError(
        f"memory: got about {_size(needed.total)} that a step holds on each device "
        f"({_size(state)} of it parameters and optimizer state), expected at most {_size(room)}; "
        "take a smaller model or batch, more training.num_microbatches, or more devices along "
        "mesh.fsdp"
    )


def device_bytes(devices: Sequence[Any]) -> float | None:
    """Memory that one of this process' devices may use; None where nobody tells."""
    own = [device for device in devices if device.process_index == jax.process_index()]
    first = own[0]
    if first.platform == "cpu":
        free = psutil.virtual_memory().available + psutil.swap_memory().free
        return min(free, _cgroup_bytes()) / len(own)
    if limit := (first.memory_stats() or {}).get("bytes_limit"):
        return limit
    chip = chip_of_device(first.device_kind)
    return chip and chip.memory_bytes / chip.devices


def check_disk(config: RunConfig, run_path: Path) -> None:
    """Raises InputError where the run's file system has no room for the checkpoints it will keep.

    What the run's checkpoints take up now counts as free: they are among those that will be there.
    """
    count, each = kept_checkpoints(config.training), checkpoint_bytes(config)
    folder = run_path / "checkpoints"
    taken = sum(_folder_bytes(path) for path in folder.glob("*") if path.name != "quarantine")
    room = shutil.disk_usage(_nearest(folder)).free + taken
    if count * each > room:
        raise InputError(
            f"disk: got room for {_size(room)} at {run_path}, expected room for {count} "
            f"checkpoints of up to {_size(each)} each; keep fewer (training.keep_checkpoints, "
            "keep_every, keep_best) or free some"
        )


def kept_checkpoints(training: TrainingConfig) -> int:
    """The most checkpoints of a run at any moment, that which is being written included."""
    t = training
    every = t.checkpoint_every or t.num_steps
    steps = [*range(every, t.num_steps, every), t.num_steps]
    newest = steps[-t.keep_checkpoints - 1 :]  # those kept, and one on its way
    staying = [step for step in steps if t.keep_every and step % t.keep_every == 0]
    return min(len(steps), len({*newest, *staying}) + t.keep_best)


def checkpoint_bytes(config: RunConfig) -> int:
    """Parameters and optimizer state of a run in fp32, however the mesh cuts them."""
    whole = replace(config, mesh=MeshConfig())
    return 4 * (sum(spec.size for spec in parameters(config.model)) + state_elements(whole))


def check_run_files(run_path: Path, corpora: Corpora) -> None:
    """Raises InputError with every file of a run that it cannot go on with.

    Args:
      corpora: those the run is to read, which must be those that it began with; {}: not checked.
    """
    problems, run = Problems(), RunDirectory(run_path)
    records: dict[str, Any] = {}
    others = [name for name in _OTHER_FILES if run.has(name)]
    for name in (*_NEEDED_FILES, *others):
        with problems.gathered():
            records[name] = read_json(run_path / name)
            is_object = isinstance(records[name], dict)
            require(is_object, str(run_path / name), records[name], "a JSON object")
    if isinstance(records.get("config.json"), dict):
        with problems.gathered():
            load_config(run.config_file)
    with problems.gathered():
        tokenizer = Tokenizer.load(run.tokenizer)
        for name, corpus in corpora.items():
            is_same = tokenizer.sha == corpus.tokenizer.sha
            require(is_same, str(run.tokenizer), tokenizer.sha, f"the tokenizer of {name}")
    if corpora and isinstance(fingerprint := records.get("fingerprint.json"), dict):
        with problems.gathered():
            require_same_corpora(corpora, fingerprint.get("corpora"))
    problems.raise_any()


def _platform(devices: Sequence[Any]) -> Platform:
    platform = devices[0].platform
    return platform if platform in ("cpu", "tpu") else "gpu"


def _cgroup_bytes() -> float:
    """What this machine's control group may use, a container's limit; infinite where there is no
    such limit."""
    try:
        text = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return math.inf
    return math.inf if text == "max" else int(text)


def _nearest(path: Path) -> Path:
    """The path itself or the nearest folder above it that exists."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if os.path.lexists(parent))


def _folder_bytes(folder: Path) -> int:
    """Of all files under it; those that another process takes away meanwhile are left out."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(root, name)).st_size
    return total


def _size(num_bytes: float) -> str:
    """Bytes as people say them: "3.2 GB", "41 MB"."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.1f} MB"
