"""Commands run as a user runs them: in a process of their own, on one device."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from data.prepare import Preparation, prepare_corpus
from data.sources import open_source

ROOT = Path(__file__).resolve().parents[2]

Isoflop = Callable[..., subprocess.CompletedProcess[str]]

# The smallest run that still has every part; steps are quick, starting Python is not.
TINY = [
    "--model.vocab-size=400",
    "--model.emb-dim=32",
    "--model.num-layers=2",
    "--model.attention.num-heads=2",
    "--model.attention.num-kv-heads=1",
    "--model.attention.head-dim=16",
    "--model.mlp.mlp-dim=64",
    "--data.seq-len=32",
    "--training.batch-size=8",
    "--optimizer.schedule.warmup-steps=2",
]


@pytest.fixture
def tiny() -> list[str]:
    """Overrides that make the preset as small as it gets."""
    return list(TINY)


@pytest.fixture(scope="session")
def run_isoflop() -> Isoflop:
    """Runs `isoflop ARGS` in the folder `cwd` and returns the finished process."""

    def run(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            _command(*args),
            cwd=cwd,
            env=_one_device_environment(),
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture
def isoflop(tmp_path: Path, run_isoflop: Isoflop) -> Isoflop:
    """`run_isoflop` in `tmp_path`."""
    return partial(run_isoflop, cwd=tmp_path)


@pytest.fixture
def start_isoflop(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `isoflop ARGS` in `tmp_path`; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            _command(*args),
            cwd=tmp_path,
            env=_one_device_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def _command(*args: object) -> list[str]:
    return [sys.executable, str(ROOT / "isoflop.py"), *map(str, args)]


def _one_device_environment() -> dict[str, str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    return environment


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of a few hundred lines, with a tokenizer of 400 pieces."""
    folder = tmp_path_factory.mktemp("text")
    for number in range(12):
        lines = [f"def add_{number}_{i}(x, y={i}):\n    return x + y * {i % 7}" for i in range(30)]
        (folder / f"document_{number}.py").write_text("\n\n".join(lines) + "\n")
    out = tmp_path_factory.mktemp("corpora") / "tiny"
    prepare_corpus(open_source(str(folder)), out, Preparation(vocab_size=400, seed=0))
    return out
