"""isoflop checkpoint: the checkpoints of a run listed, read against their checksums, or pruned."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from configs.errors import InputError, require
from configs.overrides import parse_command, reject_overrides
from train.checkpoint_folder import (
    QUARANTINE,
    committed_steps,
    kept_steps,
    read_scores,
    remove_step,
)
from train.manifest import DamagedError, Manifest, check_names, check_step, read_manifest
from train.run_directory import RunDirectory

PROG = "isoflop checkpoint"
_PRUNE_OPTIONS = ("keep", "keep_every", "keep_best", "quarantine", "dry_run")


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Lists a run's checkpoints, checks every byte of them, or removes old ones.

    list: steps with their size, time and score; whether their files are all there, of their size.
    verify: reads everything; exit status 1 if anything is not as it was written.
    prune: reads everything and removes the steps that the keep rules do not keep, damaged ones left
    alone; not while the run is training.
    """

    action: Annotated[Literal["list", "verify", "prune"], tyro.conf.Positional]
    """What to do."""
    run: Annotated[Path, tyro.conf.Positional]
    """A run directory."""
    step: int | None = None
    """Of verify: this step alone."""
    keep: int = 0
    """Of prune: the newest so many steps stay; 0: prune no steps."""
    keep_every: int | None = None
    """Of prune: steps that are a multiple of it stay too; 0: none for that reason. The run's own
    training.keep_every if not given."""
    keep_best: int | None = None
    """Of prune: so many of the steps with the lowest held-out loss stay too. The run's own
    training.keep_best if not given."""
    quarantine: bool = False
    """Of prune: also remove the damaged steps that were put aside."""
    dry_run: bool = False
    """Of prune: say what would be removed, and remove nothing."""
    json: bool = False
    """Print one JSON object."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop checkpoint`; 1 where `verify` finds damage."""
    options, overrides = parse_command(
        CheckpointOptions, args, prog=PROG, description=CheckpointOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    if options.action != "prune":
        _reject(options, "prune", *_PRUNE_OPTIONS)
    if options.action != "verify":
        _reject(options, "verify", "step")
    run = RunDirectory.open(options.run)
    action: Callable[[RunDirectory, CheckpointOptions], int] = {
        "list": list_checkpoints,
        "verify": verify_checkpoints,
        "prune": prune_checkpoints,
    }[options.action]
    return action(run, options)


def list_checkpoints(run: RunDirectory, options: CheckpointOptions) -> int:
    """Prints a line a step, oldest first; no array is read."""
    records = [_listed(run.checkpoints / str(n), n) for n in committed_steps(run.checkpoints)]
    if options.json:
        _print_json(run, steps=records)
        return 0
    for record in records:
        size = "" if record["bytes"] is None else f"{record['bytes'] / 1e6:,.1f} MB"
        score = "" if record["score"] is None else f"{record['score']:.4f} nats"
        state = "; ".join(record["problems"]) or "whole"
        print(f"{record['step']:>9,} {size:>13} {record['saved']:>21} {score:>12}  {state}")
    if aside := len(_quarantined(run)):
        print(f"{aside:,} damaged and put aside in {run.checkpoints / QUARANTINE}")
    if not records:
        print("no checkpoints")
    return 0


def verify_checkpoints(run: RunDirectory, options: CheckpointOptions) -> int:
    """Reads every file; prints a line a damaged one, or that the step is intact."""
    steps = committed_steps(run.checkpoints)
    if options.step is not None:
        require(options.step in steps, "step", options.step, f"one of {steps}")
        steps = [options.step]
    if not steps:
        raise InputError(f"run: got {run.path}, expected a run with at least one checkpoint")
    problems = {step: check_step(run.checkpoints / str(step)) for step in steps}
    if options.json:
        _print_json(run, steps=[{"step": n, "problems": found} for n, found in problems.items()])
    else:
        for step, found in problems.items():
            for line in found or ["intact"]:
                print(f"step {step:,}: {line}")
    return 1 if any(problems.values()) else 0


def prune_checkpoints(run: RunDirectory, options: CheckpointOptions) -> int:
    """Removes steps by the keep rules, and on request the quarantine."""
    for name in ("keep", "keep_every", "keep_best"):
        number = getattr(options, name)
        require(number is None or number >= 0, name, number, "0 or more")
    has_rules = options.keep > 0
    if not has_rules:
        _reject(options, "prune with --keep above 0", "keep_every", "keep_best")
    if not has_rules and not options.quarantine:
        raise InputError("keep: got 0 and no --quarantine, expected something to remove")
    with run:  # its lock: nobody trains on meanwhile
        steps = committed_steps(run.checkpoints)
        damaged = _damaged(run, steps) if has_rules else set()
        intact = [step for step in steps if step not in damaged]
        kept = _kept(run, intact, options) if has_rules else set(steps)
        removed = [step for step in intact if step not in kept]
        aside = _quarantined(run) if options.quarantine else []
        if not options.dry_run:
            for step in removed:
                remove_step(run.checkpoints, step)
            if aside:
                shutil.rmtree(run.checkpoints / QUARANTINE)
    names = [path.name for path in aside]
    if options.json:
        kept_list = sorted(kept)
        _print_json(
            run,
            removed=removed,
            kept=kept_list,
            damaged=sorted(damaged),
            quarantine=names,
            dry_run=options.dry_run,
        )
        return 0
    verb = "would remove" if options.dry_run else "removed"
    for what in [*(f"step {step:,}" for step in removed), *(f"{QUARANTINE}/{n}" for n in names)]:
        print(f"{verb} {what}")
    for step in sorted(damaged):
        print(f"step {step:,} is damaged, and stays: the next start puts it aside")
    if not removed and not names:
        print("nothing to remove")
    return 0


def _kept(run: RunDirectory, steps: Sequence[int], options: CheckpointOptions) -> set[int]:
    own = run.config().training
    return kept_steps(
        steps,
        read_scores(run.checkpoints, steps),
        keep=options.keep,
        keep_every=own.keep_every if options.keep_every is None else options.keep_every,
        keep_best=own.keep_best if options.keep_best is None else options.keep_best,
    )


def _damaged(run: RunDirectory, steps: Sequence[int]) -> set[int]:
    """No rule counts these: the last intact step is not to go because a damaged one is newer."""
    return {step for step in steps if check_step(run.checkpoints / str(step))}


def _listed(step_folder: Path, step: int) -> dict[str, Any]:
    manifest, problems = Manifest({}), []
    try:
        manifest = read_manifest(step_folder)
        problems = check_names(step_folder, manifest)
    except DamagedError as error:
        problems = [str(error)]
    return {
        "step": step,
        "bytes": manifest.num_bytes or None,
        "saved": manifest.saved,
        "score": manifest.score,
        "problems": problems,
    }


def _quarantined(run: RunDirectory) -> list[Path]:
    folder = run.checkpoints / QUARANTINE
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _print_json(run: RunDirectory, **record: Any) -> None:
    print(json.dumps({"schema_version": 1, "run": str(run.path)} | record, indent=2))


def _reject(options: CheckpointOptions, action: str, *names: str) -> None:
    """Raises InputError where an option was given that is for another action."""
    for name in names:
        value = getattr(options, name)
        default = CheckpointOptions.__dataclass_fields__[name].default
        require(value == default, name, value, f"{action} as the action")
