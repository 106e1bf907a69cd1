"""What a run's files say, read from outside while it runs and after it ended."""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash

from benchmarks.reliability.promises import Promise
from configs.schema import MeshConfig
from configs.serialize import load_config

Phase = Literal["start-up", "steps", "evaluation", "save"]
PHASES: tuple[Phase, ...] = ("start-up", "steps", "evaluation", "save")

# What seeds and data decide; the rest of a record is measured time, or follows from it.
DECIDED = {
    "metrics.jsonl": (
        "step", "loss", "z_loss", "auxiliary_loss", "grad_norm", "learning_rate", "tokens",
        "tokens_read", "tokens_padded", "epochs",
    ),
    "evaluations.jsonl": (
        "step", "nats_per_token", "bits_per_byte", "tokens", "bytes", "documents", "metrics",
    ),
}  # fmt: skip
_LAST_BYTES = 8192
_STEP = re.compile(r"step (\d+)")


def records(path: Path, offset: int = 0) -> list[dict[str, Any]]:
    """The whole lines of a .jsonl file from a byte on; none where there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return list(_whole_records(file.read()))
    except FileNotFoundError:
        return []


def last_record(path: Path) -> dict[str, Any] | None:
    """The last whole line of a .jsonl file."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    found = records(path, max(0, size - _LAST_BYTES))
    return found[-1] if found else None


def _whole_records(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.split(b"\n")[:-1]:
        try:
            yield json.loads(line)
        except ValueError:  # the offset lies within the first line
            continue


class Watch:
    """What a run does, by what its files say since the process that writes it was started.

    Make one when the process starts, and no earlier writer is left.
    """

    def __init__(self, run: Path):
        self._run, self._started = run, time.time_ns()
        self._eval_every = 0
        try:
            self._offset = (run / "events.jsonl").stat().st_size
        except FileNotFoundError:
            self._offset = 0

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Since the start; those of one name if it is given."""
        found = records(self._run / "events.jsonl", self._offset)
        return [event for event in found if name in ("", event["event"])]

    def steps(self) -> int:
        """Steps done and logged by this process or restored by it; 0 before either."""
        path = self._run / "metrics.jsonl"
        last = last_record(path)
        resumed = [step_of(event) for event in self.events("resumed")]
        if last is None or path.stat().st_mtime_ns < self._started:
            return 0
        return int(last["step"]) if last["step"] > (resumed or [0])[-1] else 0

    def saves(self) -> int:
        """Saves committed."""
        return len(self.events("saved"))

    def phase(self) -> Phase:
        """A save runs behind the steps: what is done within one counts as a save."""
        events = self.events()
        saved = {step_of(event) for event in events if event["event"] == "saved"}
        if any(step_of(event) not in saved for event in events if event["event"] == "saving"):
            return "save"
        step = self.steps()
        if step == 0:
            return "start-up"
        evaluation = last_record(self._run / "evaluations.jsonl")
        evaluated = evaluation["step"] if evaluation else 0
        return "evaluation" if self._is_evaluated(step) and evaluated < step else "steps"

    def _is_evaluated(self, step: int) -> bool:
        if not self._eval_every:
            training = load_config(self._run / "config.json").training
            self._eval_every = training.eval_every or training.num_steps
        return step % self._eval_every == 0


def step_of(event: Mapping[str, Any]) -> int:
    """The step that an event's detail names; 0 if it names none."""
    found = _STEP.search(event["detail"])
    return int(found[1]) if found else 0


def last_checkpoint(run: Path) -> int:
    """Step of the newest committed checkpoint; 0 where there is none."""
    folder = run / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def state_digest(run: Path) -> str:
    """A hash of all arrays of the newest checkpoint, as the product restores them on one device."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    from train.checkpoint import Checkpoints
    from train.mesh import make_mesh
    from train.state import abstract_state

    config = replace(load_config(run / "config.json"), mesh=MeshConfig())
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    checkpoints = Checkpoints(run / "checkpoints", keep=1_000_000)
    try:
        restored = checkpoints.restore_latest(abstract_state(config, mesh))
    finally:
        checkpoints.close()
    if restored is None:
        return "no checkpoint"
    digest = xxhash.xxh3_128()
    for path, leaf in jax.tree_util.tree_leaves_with_path(restored.state):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def other_files(reference: Path, run: Path) -> list[str]:
    """Files and folders of a run that an undisturbed one has none like.

    Checkpoints' own files are named at random and TensorBoard writes one at every start: of both,
    only the folder counts. What was put into quarantine, and the stacks of a process that hung, are
    there to be read.
    """

    def names(folder: Path) -> set[str]:
        found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        inside = re.compile(r"(checkpoints/(\d+|quarantine)|tensorboard)(/|$)|stacks-\d+")
        return {name for name in found if not inside.match(name)}

    return sorted(names(run) - names(reference))


def same_run(reference: Path, run: Path) -> list[Promise]:
    """What has to hold of a run that was broken off and went on, beside one that was not."""
    promises = []
    for name, fields in DECIDED.items():
        expected, seen = records(reference / name), records(run / name)
        steps = [record["step"] for record in seen]
        promises.append(
            Promise(
                f"{name}: every step once and in order",
                f"{len(expected)} lines",
                f"{len(seen)} lines, {len(set(steps))} steps",
                steps == [record["step"] for record in expected],
            )
        )
        differing = [
            f"{field} of step {left['step']}"
            for left, right in zip(expected, seen, strict=False)
            for field in fields
            if left[field] != right[field]
        ]
        promises.append(
            Promise(
                f"{name}: every number bit for bit",
                "no difference",
                f"{len(differing)} differ, first {differing[0]}" if differing else "none differs",
                not differing and bool(seen),
            )
        )
    ledgers = [(path / "ledger.json").read_text(encoding="utf-8") for path in (reference, run)]
    promises.append(
        Promise("ledger", "equal", *_equal(json.loads(ledgers[0]) == json.loads(ledgers[1])))
    )
    digests = [state_digest(path) for path in (reference, run)]
    promises.append(Promise("final parameters and optimizer state", digests[0], digests[1],
                            digests[0] == digests[1]))  # fmt: skip
    others = other_files(reference, run)
    promises.append(
        Promise("nothing left to clean up", "no other files", ", ".join(others[:3]) or "none",
                not others)
    )  # fmt: skip
    return [*promises, quarantine_promise(run)]


def quarantine_promise(run: Path) -> Promise:
    """Nothing was put aside that was not damaged: a kill damages nothing."""
    folder = run / "checkpoints" / "quarantine"
    aside = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return Promise("quarantine", "empty", ", ".join(aside) or "empty", not aside)


def _equal(is_equal: bool) -> tuple[str, bool]:
    return ("equal" if is_equal else "different"), is_equal
