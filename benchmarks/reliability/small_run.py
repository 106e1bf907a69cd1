"""A small run to break: its text, its corpus, its config, and the command that trains it.

A step takes tens of milliseconds on a CPU, a save and an evaluation a few tenths of a second, and
a start a few seconds, since every start of one job finds its programs in the same cache.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from configs.data_config import DataConfig
from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig
from configs.optimizer_config import AdamWConfig, CosineConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from configs.serialize import save
from data.prepare import Preparation, prepare_corpus
from data.sources import open_source

ROOT = Path(__file__).resolve().parents[2]
ISOFLOP = (sys.executable, str(ROOT / "isoflop.py"))
MARK = "ISOFLOP_RELIABILITY_JOB"  # in the environment of every process that a script starts

_VOCAB_SIZE = 512
_NUM_DOCUMENTS = 200


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command that trains one run, the same at the first start and at every other.

    Attributes:
      run: its run directory.
      command: what is started.
      environment: of the processes.
      log: standard error and output of every start, one file each, lie in this folder.
    """

    run: Path
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    log: Path


def write_text(folder: Path) -> Path:
    """Two hundred small documents, each like no other."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(_NUM_DOCUMENTS):
        lines = [
            f"def add_{number}_{line}(x, y={line}):\n    return x + y * {line * number % 97}"
            for line in range(20 + number % 17)
        ]
        (folder / f"document_{number}.py").write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return folder


def make_corpus(folder: Path) -> Path:
    """The corpus of those documents, made unless it is there; its folder."""
    corpus = folder / "corpus"
    text = write_text(folder / "text")
    prepare_corpus(open_source(str(text)), corpus, Preparation(vocab_size=_VOCAB_SIZE, seed=0))
    return corpus


def small_config(
    corpus: Path,
    *,
    num_steps: int,
    batch_size: int = 8,
    warmup_steps: int = 5,
    checkpoint_every: int = 0,
    eval_every: int = 0,
    mesh: MeshConfig | None = None,
) -> RunConfig:
    """0.7M parameters, logged every step."""
    return RunConfig(
        name="small",
        model=ModelConfig(
            vocab_size=_VOCAB_SIZE,
            emb_dim=128,
            num_layers=4,
            attention=AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=32),
            mlp=SwiGLUConfig(mlp_dim=256),
        ),
        data=DataConfig(corpus=str(corpus.resolve()), seq_len=64),
        optimizer=AdamWConfig(schedule=CosineConfig(warmup_steps=warmup_steps)),
        mesh=mesh or MeshConfig(),
        training=TrainingConfig(
            num_steps=num_steps,
            batch_size=batch_size,
            log_every=1,
            eval_every=eval_every,
            eval_tokens=0,
            checkpoint_every=checkpoint_every,
        ),
    )


def make_job(
    folder: Path,
    name: str,
    config: RunConfig,
    *,
    processes: int = 0,
    options: tuple[str, ...] = (),
    launch_options: tuple[str, ...] = (),
    run: Path | None = None,
    cache: Path | None = None,
) -> Job:
    """Writes the config and names the command.

    Args:
      processes: under `isoflop launch`; 0: without it, one process, started again by --resume.
      options: more options of `isoflop train`; launch_options: of `isoflop launch`.
      run: its run directory if not FOLDER/NAME.
      cache: compiled programs; a folder of its own if not given, so that the first start compiles.
    """
    config_file = folder / f"{name}.json"
    save(config, config_file)
    run = run or folder / name
    train = (*ISOFLOP, "train", str(config_file), "--run", str(run), *options)
    if processes:
        launch = (*ISOFLOP, "launch", "--processes", str(processes), *launch_options, "--")
        command = (*launch, *train)
    else:
        command = (*train, "--resume")
    return Job(
        run=run,
        command=command,
        environment=environment(cache or folder / f"{name}.cache", mark=str(run.resolve())),
        log=folder / f"{name}.log",
    )


def environment(cache: Path, *, mark: str) -> dict[str, str]:
    """This process' environment for a child on one CPU device, with a cache of programs.

    Args:
      mark: by which the child and its own children are found again.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "XLA_FLAGS" and not name.startswith("ISOFLOP_")
    }
    return kept | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        # Programs as small as these would not be kept: a restart would compile them anew.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        MARK: mark,
    }
