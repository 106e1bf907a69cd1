"""The run directory: the contract between the rooms, with one writer at a time.

docs/run_directory.md describes every file. Whole files are replaced atomically; the .jsonl files
are appended to, and cut back to the restored step when a run resumes. Of several processes that
train together one writes; for the others everything that writes does nothing.
"""

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import InputError
from configs.folders import make_folder, remove_folders
from configs.schema import RunConfig
from configs.serialize import load_config, read_json, write_json

SCHEMA_VERSION = 1
VERSION = "0.1.0"
CUT_BACK = ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl")
DAMAGED = ".damaged"
_LINES = (*CUT_BACK, "events.jsonl")


class RunDirectory:
    """Paths and records of one run; a context manager that holds its lock.

    Args:
      is_writer: False in all but one of several processes that train the run together.
    """

    def __init__(self, path: Path, *, is_writer: bool = True):
        self.path = path
        self.is_writer = is_writer
        self._lock = None
        self._made: tuple[Path, ...] = ()

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.model"

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    def stacks_file(self) -> Path:
        """Where a process that hangs writes what its threads were doing."""
        return self.path / f"stacks-{os.getpid()}.txt"

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """An existing run, for reading.

        Raises:
          InputError: the folder does not exist or is no run.
        """
        run = cls(path)
        if not (path / "run.json").is_file():
            raise InputError(f"run: got {path}, expected a run directory (with a run.json)")
        return run

    def exists(self) -> bool:
        return (self.path / "run.json").is_file()

    def __enter__(self) -> "RunDirectory":
        """Makes the folder and takes the lock.

        Raises:
          InputError: the folder cannot be made or written, or another process writes the run.
        """
        if not self.is_writer:
            return self
        try:
            self._made = make_folder(self.path)
            self._lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise InputError(
                f"run: got {self.path} ({error.strerror}), expected a folder that can be written"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.__exit__()
            raise InputError(
                f"run: got {self.path}, which another process is writing; expected a run of its own"
            ) from error
        for leftover in self.path.glob("*.tmp"):  # of a process that was killed within a write
            leftover.unlink()
        for name in _LINES:
            _end_last_line(self.path / name)
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        """Gives the lock back; where bad input kept the folder from becoming a run, it goes."""
        if kind is not None and issubclass(kind, InputError) and not self.exists():
            remove_folders(self._made)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def create(self, name: str) -> None:
        """Marks the folder as a run; a run that is there keeps its record."""
        if self.is_writer and not self.exists():
            self.write("run.json", {"name": name, "status": "created", "created": _now()})

    def set_status(self, status: str) -> None:
        if not self.is_writer:
            return
        record = self.read("run.json")
        self.write("run.json", record | {"status": status, "isoflop_version": VERSION})

    @property
    def status(self) -> str:
        return self.read("run.json")["status"]

    def config(self) -> RunConfig:
        return load_config(self.config_file)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run. Raises InputError if it is missing or damaged."""
        return read_json(self.path / name)

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Replaces a JSON file of the run atomically."""
        if self.is_writer:
            write_json(self.path / name, {"schema_version": SCHEMA_VERSION} | record)

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Adds one line to a .jsonl file, from any thread."""
        if self.is_writer:
            _append(self.path / name, record)

    def event(self, event: str, detail: str, *, from_any_process: bool = False) -> None:
        """Adds to events.jsonl what is out of the ordinary.

        Args:
          from_any_process: for what only this process knows of; the others' lines go beside it.
        """
        if self.is_writer or from_any_process:
            _append(self.path / "events.jsonl", {"time": _now(), "event": event, "detail": detail})

    def cut_back(self, step: int, *, names: Sequence[str] = CUT_BACK) -> None:
        """Drops records of steps beyond `step`: they will be written again."""
        if not self.is_writer:
            return
        for name in names:
            path = self.path / name
            if not path.exists():
                continue
            lines = path.read_bytes().splitlines()
            steps = [_step_of(line) for line in lines]
            if None in steps[:-1]:  # the last may be cut short by a kill
                shutil.copyfile(path, path.with_name(name + DAMAGED))
                self.event(
                    "record_damaged",
                    f"{name}: {steps[:-1].count(None)} unreadable lines left out; the file as it "
                    f"was is {name}{DAMAGED}",
                )
            temporary = path.with_name(name + ".tmp")
            with temporary.open("wb") as file:
                for line, of_step in zip(lines, steps, strict=True):
                    if of_step is not None and of_step <= step:
                        file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)

    def last_saved(self) -> str:
        """The last step that events.jsonl says was saved; "" for none."""
        saved = ""
        if self.has("events.jsonl"):
            for line in (self.path / "events.jsonl").read_bytes().splitlines():
                record = _object_of(line)
                if record.get("event") == "saved":
                    saved = str(record.get("detail")).partition(":")[0].removeprefix("step ")
        return saved


def _append(path: Path, record: dict[str, Any]) -> None:
    """One write of a whole line: lines of several threads and processes do not mix."""
    line = (json.dumps(record) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(descriptor, line)
        if written < len(line):  # the disk is full: what is there of the line goes again
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(descriptor)


def _object_of(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; {} for one that is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _step_of(line: bytes) -> int | None:
    step = _object_of(line).get("step")
    return step if type(step) is int else None


def _end_last_line(path: Path) -> None:
    """Gives a line that a kill cut short its end, so that the next one stands on its own."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
