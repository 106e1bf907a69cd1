"""isoflop train: a preset, a config file or a run directory to a trained run."""

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro
from rich.console import Console
from rich.progress import Progress

from configs.errors import InputError, require
from configs.overrides import apply_overrides, load_preset_or_file, parse_command, reject_overrides
from configs.schema import RunConfig
from configs.serialize import fingerprint, save
from data.corpus import verify_corpus
from data.dataset import (
    Corpora,
    corpora_record,
    open_corpora,
    require_same_corpora,
    with_corpora,
)
from model.build import count_matmul_params, count_params
from planner.flops import training_flops_per_token
from report.read import read_run
from report.terminal import print_comparison
from train.loop import TrainingResult, check_corpora, places_trained_on, train
from train.mesh import make_mesh
from train.metrics import peak_flops_per_second
from train.platform import flags_in_force
from train.preemption import EXIT_PREEMPTED, Preempted
from train.profile import ProfiledSteps
from train.run_directory import RunDirectory
from workflows.runtime import RuntimeOptions, prepare_runtime

PROG = "isoflop train"
_VERSIONED = ("jax", "flax", "optax", "orbax-checkpoint", "sentencepiece", "tensorflow-datasets")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RuntimeOptions):
    """Trains, or goes on training where a run directory left off.

    Any field of the config can be overridden for a new run: --training.num-steps 500.
    """

    target: Annotated[str, tyro.conf.Positional]
    """A run directory to resume, a preset (decoder_only/tiny), or a config's .json file."""
    run: Path | None = None
    """Where a new run is written; runs/NAME if not given."""
    corpus: tuple[Path, ...] = ()
    """Folder `isoflop prepare` wrote, in place of the config's data.corpus; for a mixture as many
    as it has, in its order."""
    verify: Literal["quick", "full"] = "quick"
    """full: read every byte of the corpora before the first step; quick: sizes, file ends, the
    tokenizer, and every chunk when it is read."""
    profile: str = ""
    """Steps to trace into RUN/profile: 10:13, or 3 for three steps from the fifth on."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop train`."""
    options, overrides = parse_command(
        TrainOptions, args, prog=PROG, description=TrainOptions.__doc__ or ""
    )
    console = Console(stderr=True)
    prepare_runtime(options, console)
    if (Path(options.target) / "run.json").is_file():
        reject_overrides(overrides, prog=f"{PROG} RUN (a run's config is fixed)")
        run = RunDirectory(Path(options.target))
        config = with_corpora(run.config(), options.corpus)  # they may have moved; hashes tell
    elif Path(options.target).is_dir():
        raise InputError(
            f"target: got {options.target}, expected a run directory (with a run.json)"
        )
    else:
        config = load_preset_or_file(options.target)
        config = with_corpora(apply_overrides(config, overrides), options.corpus)
        run = RunDirectory(options.run or Path("runs") / config.name)
        require(
            not run.exists(), "run", str(run.path), "a new folder; to resume: isoflop train RUN"
        )
    ProfiledSteps.of(options.profile, first_step=0, num_steps=config.training.num_steps)
    corpora = open_corpora(config.data)
    if options.verify == "full":
        verify(corpora, console)
    with run:
        if not run.exists():
            create_run(run, config, corpora)
        status = finish_training(run, config, corpora, console, profile=options.profile)
    if status == 0:
        print_comparison(read_run(run.path), Console())
    return status


def verify(corpora: Corpora, console: Console) -> None:
    """Reads every byte of the corpora. Raises InputError where one is damaged."""
    with Progress(console=console, transient=True) as bar:
        for name, corpus in corpora.items():
            task = bar.add_task(f"verifying {name}", total=1.0)
            verify_corpus(corpus.path, lambda done, task=task: bar.update(task, completed=done))


def create_run(run: RunDirectory, config: RunConfig, corpora: Corpora) -> None:
    """Writes what a run is before it starts, once everything that can be checked was."""
    check_corpora(config, corpora)
    make_mesh(config.mesh)
    save(config, run.config_file)
    run.tokenizer.write_bytes(next(iter(corpora.values())).tokenizer.model_bytes)
    run.write("fingerprint.json", fingerprint_of(config, corpora))
    run.create(config.name)


def finish_training(
    run: RunDirectory,
    config: RunConfig,
    corpora: Corpora,
    console: Console,
    *,
    profile: str = "",
) -> int:
    """Trains to the end and writes summary.json; 143 if a signal stopped it after a save."""
    require_same_corpora(corpora, run.read("fingerprint.json").get("corpora"))
    peak, _ = peak_flops_per_second(jax.devices())
    try:
        result = train(config, run, corpora, peak_flops=peak, console=console, profile=profile)
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
    tokens = places_trained_on(config, result.ledger)
    per_token = training_flops_per_token(config.model, config.lengths).total
    palm = training_flops_per_token(config.model, config.lengths, causal=False).total
    step_seconds = result.step_seconds or earlier.get("step_seconds")
    speed = config.batch_tokens / step_seconds if step_seconds else None
    return {
        "prepare_seconds": None,
        "baselines": None,
        "export": None,
        **earlier,
        "params": count_params(result.params),
        "matmul_params": count_matmul_params(result.params, config.model),
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
        "metrics": result.evaluation.metrics,
    }


def fingerprint_of(config: RunConfig, corpora: Corpora) -> dict[str, object]:
    """What the run's numbers depend on: config, corpora, tokenizer, versions, devices, flags."""
    versions = {name: importlib.metadata.version(name) for name in _VERSIONED}
    first = next(iter(corpora.values()))
    return {
        "config": fingerprint(config),
        "corpora": corpora_record(corpora),
        "tokenizer": first.tokenizer.sha,
        "versions": {"python": platform.python_version()} | versions,
        "devices": [device.device_kind for device in jax.devices()],
        "xla_flags": flags_in_force(),
    }
