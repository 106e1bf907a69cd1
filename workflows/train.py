"""isoflop train: a preset, a config file or a run directory to a trained run."""

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

from configs.errors import InputError, require
from configs.overrides import apply_overrides, load_preset_or_file, parse_command, reject_overrides
from configs.schema import RunConfig
from configs.serialize import fingerprint, save
from data.corpus import Corpus, open_corpus
from model.build import count_matmul_params, count_params
from planner.accounting import training_flops_per_token
from report.read import read_run
from report.terminal import print_comparison
from train.loop import TrainingResult, check_corpus, train
from train.mesh import make_mesh
from train.metrics import peak_flops_per_second
from train.preemption import EXIT_PREEMPTED, Preempted
from train.run_directory import RunDirectory

PROG = "isoflop train"
_VERSIONED = ("jax", "flax", "optax", "orbax-checkpoint", "sentencepiece", "tensorflow-datasets")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Trains, or goes on training where a run directory left off.

    Any field of the config can be overridden for a new run: --training.num-steps 500.
    """

    target: Annotated[str, tyro.conf.Positional]
    """A run directory to resume, a preset (decoder_only/tiny), or a config's .json file."""
    run: Path | None = None
    """Where a new run is written; runs/NAME if not given."""
    corpus: Path | None = None
    """Folder `isoflop prepare` wrote; overrides the config's data.corpus."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop train`."""
    options, overrides = parse_command(
        TrainOptions, args, prog=PROG, description=TrainOptions.__doc__ or ""
    )
    console = Console(stderr=True)
    if (Path(options.target) / "run.json").is_file():
        reject_overrides(overrides, prog=f"{PROG} RUN (a run's config is fixed)")
        run = RunDirectory(Path(options.target))
        config = run.config()
        if options.corpus is not None:  # the corpus may have moved; its hash is checked
            config = replace(config, data=replace(config.data, corpus=str(options.corpus)))
    elif Path(options.target).is_dir():
        raise InputError(
            f"target: got {options.target}, expected a run directory (with a run.json)"
        )
    else:
        config = load_preset_or_file(options.target)
        if options.corpus is not None:
            config = replace(config, data=replace(config.data, corpus=str(options.corpus)))
        config = apply_overrides(config, overrides)
        run = RunDirectory(options.run or Path("runs") / config.name)
        require(
            not run.exists(), "run", str(run.path), "a new folder; to resume: isoflop train RUN"
        )
    corpus = open_corpus_of(config)
    with run:
        if not run.exists():
            create_run(run, config, corpus)
        status = finish_training(run, config, corpus, console)
    if status == 0:
        print_comparison(read_run(run.path), Console())
    return status


def open_corpus_of(config: RunConfig) -> Corpus:
    """The corpus a config names. Raises InputError if it names none or a damaged one."""
    require(bool(config.data.corpus), "data.corpus", config.data.corpus, "a prepared corpus")
    return open_corpus(Path(config.data.corpus))


def create_run(run: RunDirectory, config: RunConfig, corpus: Corpus) -> None:
    """Writes what a run is before it starts, once everything that can be checked was."""
    check_corpus(config, corpus)
    make_mesh(config.mesh)
    save(config, run.config_file)
    run.tokenizer.write_bytes(corpus.tokenizer.model_bytes)
    run.write("fingerprint.json", fingerprint_of(config, corpus))
    run.create(config.name)


def finish_training(run: RunDirectory, config: RunConfig, corpus: Corpus, console: Console) -> int:
    """Trains to the end and writes summary.json; 143 if a signal stopped it after a save."""
    require_same_corpus(run, corpus)
    peak, _ = peak_flops_per_second(jax.devices())
    try:
        result = train(config, run, corpus, peak_flops=peak, console=console)
    except Preempted as stopped:
        console.print(f"  stopped: {stopped}; the same command goes on from there")
        return EXIT_PREEMPTED
    except InputError:
        raise
    except Exception:
        run.set_status("failed")
        raise
    run.write("summary.json", summary(run, config, result, peak))
    run.set_status("complete")
    return 0


def summary(
    run: RunDirectory, config: RunConfig, result: TrainingResult, peak_flops: float
) -> dict[str, object]:
    """The measured side of the plan (docs/run_directory.md); keeps what others added to it."""
    earlier = run.read("summary.json") if run.has("summary.json") else {}
    tokens = result.ledger.rows * config.data.seq_len
    per_token = training_flops_per_token(config.model, config.data.seq_len).total
    palm = training_flops_per_token(config.model, config.data.seq_len, causal=False).total
    step_seconds = result.step_seconds or earlier.get("step_seconds")
    speed = config.batch_tokens / step_seconds if step_seconds else None
    return {
        "prepare_seconds": None,
        "baselines": None,
        "export": None,
        **earlier,
        "params": count_params(result.params),
        "matmul_params": count_matmul_params(result.params),
        "tokens": tokens,
        "flops": tokens * per_token,
        "num_steps": config.training.num_steps,
        "train_seconds": result.train_seconds,
        "compile_seconds": result.compile_seconds,
        "step_seconds": step_seconds,
        "peak_bytes": result.peak_bytes,
        "peak_rss_bytes": result.peak_rss_bytes,
        "mfu": speed and speed * per_token / peak_flops,
        "mfu_palm": speed and speed * palm / peak_flops,
        "nats_per_token": result.evaluation.nats_per_token,
        "bits_per_byte": result.evaluation.bits_per_byte,
    }


def fingerprint_of(config: RunConfig, corpus: Corpus) -> dict[str, object]:
    """What the run's numbers depend on: config, corpus, tokenizer, versions, devices."""
    versions = {name: importlib.metadata.version(name) for name in _VERSIONED}
    return {
        "config": fingerprint(config),
        "corpus": {"path": config.data.corpus, "sha": corpus.sha},
        "tokenizer": corpus.tokenizer.sha,
        "versions": {"python": platform.python_version()} | versions,
        "devices": [device.device_kind for device in jax.devices()],
    }


def require_same_corpus(run: RunDirectory, corpus: Corpus) -> None:
    """Raises InputError if the corpus is not the one the run began with."""
    expected = run.read("fingerprint.json")["corpus"]["sha"]
    require(corpus.sha == expected, "data.corpus", corpus.sha, f"the run's corpus {expected}")
