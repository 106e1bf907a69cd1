"""A train step compiled for devices that need not be here, and what its compiler said meanwhile."""

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from jax.sharding import Mesh

from configs.schema import RunConfig
from data.batches import Batch
from train.programs import abstract_batch
from train.state import TrainState, abstract_state
from train.step import make_train_step

_REMATERIALIZATION = re.compile(r"involuntary full rematerialization", re.IGNORECASE)
_HLO_OPERATION = re.compile(r"for HLO operation:?\s*(%\S+)")
_SPACE = re.compile(r"memory space (\w+)")
_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
_EXCEEDS = re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class CompilerOutOfMemory(Exception):
    """The compiler found no way to place the step in a device's memory.

    Attributes:
      space: which memory: hbm, or one on the chip (vmem), too small for some single operation.
      needed_bytes, limit_bytes: of hbm, as it reports them; 0 where it does not.
    """

    def __init__(self, message: str):
        space = _SPACE.search(message)
        found = _USED.search(message) or _EXCEEDS.search(message)
        self.space = space[1] if space else "hbm"
        self.needed_bytes = self.limit_bytes = 0
        what = " ".join(message.split())[:160]
        if found:
            used, used_unit, limit, limit_unit = found.groups()
            self.needed_bytes = round(float(used) * _UNITS[used_unit])
            self.limit_bytes = round(float(limit) * _UNITS[limit_unit])
            what = f"needs {self.needed_bytes / 1e9:.2f} of {self.limit_bytes / 1e9:.2f} GB"
        elif space:
            what = "one operation's arrays are too large for it"
        super().__init__(f"the compiler ran out of {self.space}: {what}")


@dataclass(frozen=True, kw_only=True)
class CompilerMessages:
    """What the compiler wrote to stderr, `text` in full.

    rematerializations: operations whose whole array the partitioner gathers on every device
    because it cannot get from one sharding to the other; each is slow and rarely meant.
    """

    text: str = ""

    @property
    def rematerializations(self) -> tuple[str, ...]:
        names = [
            (_HLO_OPERATION.search(line) or _REMATERIALIZATION.search(line))
            for line in self.text.splitlines()
            if _REMATERIALIZATION.search(line)
        ]
        return tuple(match[match.lastindex or 0] for match in names if match)


class CompiledStep(NamedTuple):
    """A compiled train step, the shapes it was compiled for, and how long that took."""

    compiled: Any
    state: TrainState
    batch: Batch
    trace_seconds: float
    compile_seconds: float
    messages: CompilerMessages


def compile_train_step(config: RunConfig, mesh: Mesh) -> CompiledStep:
    """Compiles the train step of a full batch at full row length for the mesh's devices.

    Raises:
      CompilerOutOfMemory: it cannot be placed in the devices' memory (TPUs; for GPUs the compiler
        does not check).
    """
    start = time.perf_counter()
    state, batch = abstract_state(config, mesh), abstract_batch(config, mesh)
    lowered = make_train_step(config, mesh).lower(state, batch)
    traced = time.perf_counter()
    messages = None
    try:
        with captured_stderr() as captured:
            compiled = lowered.compile()
        messages = CompilerMessages(text="".join(captured))
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise CompilerOutOfMemory(str(error)) from None
        sys.stderr.write("".join(captured))
        raise
    done = time.perf_counter()
    return CompiledStep(compiled, state, batch, traced - start, done - traced, messages)


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Collects what is written to file descriptor 2 meanwhile, by C++ too, in the list it gives.

    The list is filled when the block ends.
    """
    captured: list[str] = []
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield captured
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            captured.append(file.read().decode(errors="replace"))
