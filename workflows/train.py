"""isoflop train: a preset, a config file or a run directory to a trained run."""

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro
from rich.console import Console
from rich.progress import Progress

from configs.errors import InputError, require
from configs.overrides import parse_command
from configs.schema import RunConfig
from configs.serialize import fingerprint, save
from data.corpus import verify_corpus
from data.dataset import (
    Corpora,
    check_corpora,
    corpora_record,
    open_corpora,
    require_same_corpora,
)
from model.build import count_matmul_params, count_params
from planner.flops import training_flops_per_token
from report.read import read_run
from report.terminal import print_comparison
from train.agreement import wait_for_all
from train.checkpoint import SaveError
from train.corruption import SilentCorruption
from train.distributed import is_lost_peer
from train.goodput import process_began
from train.ledger import places_trained_on
from train.loop import DEFAULT_WATCH, TrainingResult, Watch, train
from train.mesh import make_mesh
from train.metrics import peak_flops_per_second
from train.platform import flags_in_force
from train.preemption import EXIT_PREEMPTED, Preempted
from train.profile import ProfiledSteps
from train.progress import outlive_reader
from train.refusals import TooManyRefusals
from train.run_directory import RunDirectory
from train.supervision import EXIT_RETRY, RESTARTED
from workflows.find_run import await_run, find_run
from workflows.preflight import check_run
from workflows.runtime import ProcessOptions, prepare_runtime
from workflows.training_options import TrainingOptions

PROG = "isoflop train"
_VERSIONED = ("jax", "flax", "optax", "orbax-checkpoint", "sentencepiece", "tensorflow-datasets")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions, ProcessOptions):
    """Trains, or goes on training where a run directory left off.

    Any field of the config can be overridden for a new run: --training.num-steps 500. SIGTERM or
    Ctrl-C saves and exits with 143; the run goes on with the same command and --resume.
    """

    target: Annotated[str, tyro.conf.Positional]
    """A run directory to resume, a preset (decoder_only/tiny), or a config's .json file."""
    run: Path | None = None
    """Where a new run is written; runs/NAME if not given."""
    resume: bool = False
    """Go on with that run where it is there already. Its config has to be the same, but for the
    mesh and the number of microbatches: a run may move to other devices."""
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
    console.quiet = jax.process_index() != 0  # the others have the same to say
    run, config, is_new, moved = find_run(
        options.target,
        overrides,
        run_path=options.run,
        corpora=options.corpus,
        may_resume=options.resume,
    )
    ProfiledSteps.of(options.profile, first_step=0, num_steps=config.training.num_steps)
    corpora = check_run(
        config,
        run.path,
        partial(open_corpora, config.data),
        resume=not is_new,
        compilation_cache=options.compilation_cache,
    )
    if options.verify == "full":
        verify(corpora, console)
    wait_for_all("run_found")  # nobody looks for it any more: process 0 may make it
    with run:
        if run.is_writer:
            got, expected = f"{run.path}, which another process made meanwhile", "a run of its own"
            require(run.exists() != is_new, "run", got, f"{expected}; to go on with it: --resume")
        if is_new:
            create_run(run, config, corpora)
        elif moved:
            move_run(run, config, corpora, moved)
        wait_for_all("run_made")
        await_run(run)
        status = finish_training(
            run,
            config,
            corpora,
            console,
            profile=options.profile,
            watch=options.watch,
            began=process_began(),
        )
    if status == 0 and run.is_writer:
        print_comparison(read_run(run.path), outlive_reader(Console()))
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
    if not run.is_writer:
        return
    save(config, run.config_file)
    run.tokenizer.write_bytes(next(iter(corpora.values())).tokenizer.model_bytes)
    run.write("fingerprint.json", fingerprint_of(config, corpora))
    run.create(config.name)


def move_run(run: RunDirectory, config: RunConfig, corpora: Corpora, moved: str) -> None:
    """Notes that a run goes on with another mesh or other microbatches."""
    if run.is_writer:
        save(config, run.config_file)
        run.write("fingerprint.json", fingerprint_of(config, corpora))
        run.event("moved", moved)


def finish_training(
    run: RunDirectory,
    config: RunConfig,
    corpora: Corpora,
    console: Console,
    *,
    profile: str = "",
    watch: Watch = DEFAULT_WATCH,
    began: float | None = None,
) -> int:
    """Trains to the end and writes summary.json.

    Args:
      began: when this start began, seconds since 1970; now if None.

    Returns:
      An exit status: 0; 143 if a signal stopped it after a save; 1 if it gave up on its numbers;
      42 if it should be started again.
    """
    require_same_corpora(corpora, run.read("fingerprint.json").get("corpora"))
    if reason := os.environ.get(RESTARTED):
        run.event("restarted", reason)
    peak, _ = peak_flops_per_second(jax.devices())
    try:
        result = train(
            config,
            run,
            corpora,
            peak_flops=peak,
            console=console,
            profile=profile,
            began=time.time() if began is None else began,
            watch=watch,
        )
    except Preempted as stopped:
        console.print(f"  stopped: {stopped}; to go on, the same command (train: and --resume)")
        return EXIT_PREEMPTED
    except InputError:
        raise
    except SilentCorruption as error:
        _say(f"silent corruption: {error}; start again from the checkpoint before")
        return EXIT_RETRY
    except SaveError as error:
        if is_lost_peer(error):
            return _lost_peer(error)
        _set_failed(run)
        _say(f"a checkpoint could not be saved: {error}")
        return 1
    except TooManyRefusals as error:
        _set_failed(run)
        _say(f"gave up: {error}; isoflop inspect {run.path} --culprit STEP shows the batch")
        return 1
    except Exception as error:
        if is_lost_peer(error):
            return _lost_peer(error)
        _set_failed(run)
        raise
    run.write("summary.json", summary(run, config, result, peak))
    run.set_status("complete")
    return 0


def _lost_peer(error: Exception) -> int:
    _say(f"another process is gone: {error}")
    return EXIT_RETRY


def _say(line: str) -> None:
    with suppress(OSError):  # whoever read our stderr has gone: the status still counts
        print(f"isoflop: error: {' '.join(line.split())}", file=sys.stderr, flush=True)


def _set_failed(run: RunDirectory) -> None:
    with suppress(OSError):  # on a full disk the first failure is the one to tell
        run.set_status("failed")


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
