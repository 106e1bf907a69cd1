"""Apache Beam's runners by name, and their options."""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

from configs.errors import InputError, require
from configs.serialize import did_you_mean

# Beam's own "DirectRunner" would first download and start Prism, a server written in Go.
RUNNERS = {
    "direct": "FnApiRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
}
# Their job servers know options that Beam's Python does not.
_HAVE_OTHER_OPTIONS = ("flink", "spark")

# File systems of one machine are not among them; those in user space are called fuse.NAME.
_SHARED_FILE_SYSTEMS = {
    *("nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "gpfs", "glusterfs", "beegfs", "9p", "afs"),
}


class BeamRunner(NamedTuple):
    """A runner by Beam's name for it, and its options by name."""

    name: str
    values: Mapping[str, Any]

    def options(self) -> Any:
        """Fresh PipelineOptions: a pipeline changes those that it is given."""
        from apache_beam.options.pipeline_options import PipelineOptions

        return PipelineOptions.from_dictionary(self.values)


def open_runner(runner: str, settings: Sequence[str] = ()) -> BeamRunner:
    """The runner a user names, with its options checked.

    Args:
        runner: a key of `RUNNERS`.
        settings: NAME=VALUE; true and false switch flags, a name that comes several times is a
            list.

    Raises:
        InputError: Beam is not installed, no such runner, or an option that it does not have.
    """
    names = ", ".join(RUNNERS)
    require(runner in RUNNERS, "runner", runner, f"one of {names}{did_you_mean(runner, RUNNERS)}")
    values = _parse(settings)
    try:
        from apache_beam.options.pipeline_options import PipelineOptions

        if runner == "dataflow":
            from apache_beam.runners.dataflow.internal import apiclient  # noqa: F401
    except ImportError as error:
        package = f"apache_beam{'[gcp]' if runner == 'dataflow' else ''}"
        raise InputError(
            f"runner: got {runner!r} ({error}), expected {package}, which needs an environment of "
            "its own: `make setup-beam`, then `.venv-beam/bin/python isoflop.py prepare ...`"
            + ("; there, `pip install 'apache-beam[gcp]'`" if runner == "dataflow" else "")
        ) from error
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            found = BeamRunner("", values).options().get_all_options(retain_unknown_options=True)
    except SystemExit as error:  # argparse leaves a usage message
        message = said.getvalue().rpartition("error: ")[2].partition("\n")[0]
        raise InputError(
            f"beam_options: got {' '.join(settings)!r} ({message}), expected Beam's types"
        ) from error
    known = PipelineOptions([]).get_all_options()
    unknown = [name for name in found if name not in known]
    if unknown and runner not in _HAVE_OTHER_OPTIONS:
        near = did_you_mean(unknown[0], known)
        raise InputError(f"beam_options: got {unknown[0]!r}, expected an option of Beam's{near}")
    return BeamRunner(RUNNERS[runner], values)


def require_shared_folder(out: Path, runner: str) -> None:
    """Refuses a folder that the runner's workers cannot see, as far as can be told from here.

    Raises:
        InputError: a URL; or, for Dataflow, whose workers are never this machine, a folder on a
            disk of this machine.
    """
    name = str(out)
    require(
        re.match(r"[a-z][a-z0-9+.-]+:/", name) is None,
        "out",
        name,
        "a folder: of a bucket, the path under which every worker has mounted it",
    )
    if runner != "dataflow":
        return
    kind = file_system_of(out)
    require(
        kind is None or kind in _SHARED_FILE_SYSTEMS or kind.startswith("fuse."),
        "out",
        f"{name} ({kind})",
        "a folder that Dataflow's workers have mounted under the same path, such as a Filestore "
        "share (NFS): they do not see the disks of this machine",
    )


def file_system_of(path: Path) -> str | None:
    """The type of the file system that holds a path, such as "ext4"; None where Linux is not."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return None
    path = path.resolve()
    # Of mounts on the same point the last one is seen; spaces are written as \040.
    kinds = {Path(mount[1].replace("\\040", " ")): mount[2] for mount in mounts}
    holding = [point for point in kinds if path.is_relative_to(point)]
    return kinds[max(holding, key=lambda point: len(point.parts))] if holding else None


def _parse(settings: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        fits = bool(equals) and name.isidentifier()
        require(fits, "beam_options", setting, "NAME=VALUE, such as region=europe-west4")
        require(name != "runner", "beam_options", setting, "--runner for the runner")
        typed = {"true": True, "false": False}.get(value.lower(), value)
        if name not in values:
            values[name] = typed
        else:
            earlier = values[name]
            values[name] = [*(earlier if isinstance(earlier, list) else [earlier]), typed]
    return values
