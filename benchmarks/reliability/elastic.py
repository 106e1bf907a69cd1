"""A run moved from one process to four, then to two, over three meshes: the same batches, the same
losses but for rounding.

    .venv/bin/python -m benchmarks.reliability.elastic --out elastic.json

Each leg is stopped with SIGTERM once it has done its share of the steps; the last one ends. Beside
it the same run of one process, left alone. Which rows a step read shows in what metrics.jsonl
counts: tokens read, padded and trained on, after every step; rows differ in them.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.reliability.processes import Life, clean_up_when_told_to_stop, wait_until
from benchmarks.reliability.promises import Promise, conclude
from benchmarks.reliability.run_files import Watch, records
from benchmarks.reliability.scene import (
    GRACE_SECONDS,
    LONGEST_SECONDS,
    exit_promise,
    intact_promise,
    run_to_its_end,
)
from benchmarks.reliability.small_run import make_corpus, make_job, small_config
from configs.schema import MeshConfig

LOSS_BOUND = 1e-3  # nats; sums in another order, carried on through the updates
COUNTED = ("tokens", "tokens_read", "tokens_padded", "epochs")


class Leg(NamedTuple):
    """A stretch of the run. processes: of one device each. mesh: over them. until: a share of the
    steps after which it is told to stop; 1: it ends."""

    processes: int
    mesh: MeshConfig
    until: float


LEGS = (
    Leg(1, MeshConfig(), 0.3),
    Leg(4, MeshConfig(data=2, fsdp=2), 0.65),
    Leg(2, MeshConfig(fsdp=2), 1.0),
)


def moved_run(folder: Path, legs: Sequence[Leg], num_steps: int) -> tuple[Path, list[Promise]]:
    """The run that moves, and how its legs ended."""
    run, promises = folder / "moved", []
    for number, leg in enumerate(legs):
        config = small_config(make_corpus(folder), num_steps=num_steps, mesh=leg.mesh)
        several = leg.processes > 1
        job = make_job(
            folder,
            f"leg_{number}",
            config,
            processes=leg.processes if several else 0,
            options=("--resume",) if several else (),
            run=run,
        )
        watch, what = Watch(run), f"leg of {leg.processes}"
        with Life(job) as life:
            if leg.until == 1:
                promises.append(exit_promise(what, life, (0,), seconds=LONGEST_SECONDS))
                continue
            stop_at = round(leg.until * num_steps)
            wait_until(lambda w=watch, s=stop_at: w.steps() >= s, life, LONGEST_SECONDS)
            life.signal(signal.SIGTERM)
            promises.append(exit_promise(what, life, (143,), seconds=GRACE_SECONDS))
        promises.append(intact_promise(what, run, at_least=stop_at))
        if not promises[-2].kept:
            break
    return run, promises


def compared(
    whole: Sequence[Mapping[str, Any]], moved: Sequence[Mapping[str, Any]]
) -> list[Promise]:
    """Records of metrics.jsonl of both runs, step by step."""
    steps = [record["step"] for record in moved]
    same_steps = steps == [record["step"] for record in whole]
    others = [
        left["step"]
        for left, right in zip(whole, moved, strict=False)
        if any(left[name] != right[name] for name in COUNTED)
    ]
    kinds = {b["tokens"] - a["tokens"] for a, b in zip(whole, whole[1:], strict=False)}
    gaps = [abs(a["loss"] - b["loss"]) for a, b in zip(whole, moved, strict=False)]
    furthest = max(gaps, default=float("inf"))
    return [
        Promise("every step once and in order", f"1 to {len(whole)}", f"{len(steps)} steps",
                same_steps),
        Promise(
            "the same global batches",
            f"equal counts after every step; batches of {len(kinds)} different sizes tell",
            f"{len(others)} steps differ",
            same_steps and not others and len(kinds) > 1,
        ),
        Promise("losses", f"within {LOSS_BOUND:g} of the undisturbed run's",
                f"{furthest:.2g} apart at most", same_steps and furthest <= LOSS_BOUND),
    ]  # fmt: skip


def main() -> int:
    """Moves a run and compares it with one that stayed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="for the runs, kept; a temporary one if absent")
    parser.add_argument("--out", type=Path, help="JSON record")
    options = parser.parse_args()
    clean_up_when_told_to_stop()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        config = small_config(make_corpus(folder), num_steps=options.steps)
        whole = run_to_its_end(make_job(folder, "whole", config))
        moved, promises = moved_run(folder, LEGS, options.steps)
        runs = [records(run / "metrics.jsonl") for run in (whole, moved)]
        promises += compared(*runs)
        if all(promise.kept for promise in promises):
            ledgers = [(run / "ledger.json").read_text(encoding="utf-8") for run in (whole, moved)]
            is_equal = ledgers[0] == ledgers[1]
            seen = "equal" if is_equal else "different"
            promises.append(Promise("ledger", "equal", seen, is_equal))
        losses = [[record["loss"] for record in run] for run in runs]
    record = {"steps": options.steps, "whole_losses": losses[0], "moved_losses": losses[1]}
    return conclude(promises, record, options.out)


if __name__ == "__main__":
    sys.exit(main())
