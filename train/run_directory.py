"""The run directory: the contract between the rooms, with one writer at a time.

docs/run_directory.md describes every file. Whole files are replaced atomically; the .jsonl files
are appended to, and cut back to the restored step when a run resumes.
"""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from configs.errors import InputError
from configs.schema import RunConfig
from configs.serialize import load_config, read_json, write_json

SCHEMA_VERSION = 1
VERSION = "0.1.0"


class RunDirectory:
    """Paths and records of one run; a context manager that holds its lock."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.model"

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

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
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("w")
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
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def create(self, name: str) -> None:
        """Marks the folder as a run; a run that is there keeps its record."""
        if not self.exists():
            self.write("run.json", {"name": name, "status": "created", "created": _now()})

    def set_status(self, status: str) -> None:
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
        write_json(self.path / name, {"schema_version": SCHEMA_VERSION} | record)

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Adds one line to a .jsonl file."""
        with (self.path / name).open("a") as file:
            file.write(json.dumps(record) + "\n")

    def event(self, event: str, detail: str) -> None:
        self.append("events.jsonl", {"time": _now(), "event": event, "detail": detail})

    def cut_back(self, step: int) -> None:
        """Drops records of steps beyond `step`: they will be written again."""
        for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl"):
            path = self.path / name
            if not path.exists():
                continue
            kept = []
            for line in path.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    break  # a line the kill cut short
                if record["step"] <= step:
                    kept.append(line + "\n")
            temporary = path.with_name(name + ".tmp")
            with temporary.open("w") as file:
                file.writelines(kept)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
