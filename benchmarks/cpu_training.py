"""Training on CPU beside PyTorch and `transformers`: the same shapes, batches and process.

    .venv/bin/python -m benchmarks.cpu_training --hugepages          # as our commands run
    .venv/bin/python -m benchmarks.cpu_training                      # pages of 4 KiB for both
    .venv/bin/python -m benchmarks.cpu_training --cases decoder-8M --rounds 5

A step is forward, backward, clipping to a global norm of 1 and AdamW (fused on their side), over
one batch of random tokens that stays. Four sides take turns in every round: ours and theirs, in
fp32 and in bf16 (ours computes in bfloat16, theirs under autocast; parameters and moments are fp32
on both); `--compile` adds their model under torch.compile. Every side has all cores. A ratio is
the median over rounds of the seconds theirs took over the seconds ours took in the same round.
Compiling and the first two steps of every side are left out, and reported.

`--hugepages` starts the process again with glibc's huge pages on, for both sides: `isoflop train`
does so by itself, PyTorch does not.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console
from rich.table import Table

from benchmarks.cpu_training_cases import CASES, TrainingCase
from configs.schema import RunConfig
from model.build import count_params
from train.ahead_of_time import compile_train_step
from train.feed import put_batch
from train.mesh import make_mesh
from train.platform import huge_pages
from train.state import init_state
from train.step import batch_sharding

TUNABLE = "glibc.malloc.hugetlb=1"
WARM_UP_STEPS = 2
DTYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")


@dataclass
class Side:
    """One contender.

    Attributes:
      step: does one step and returns its loss, everything finished.
      losses: of the steps so far.
      seconds: of the steps that count.
    """

    name: str
    step: Callable[[], float]
    num_params: int
    warm_up_seconds: float
    losses: list[float]
    seconds: list[float]

    @classmethod
    def started(cls, name: str, make: Callable[[], tuple[Callable[[], float], int]]) -> "Side":
        """Made and warmed up."""
        start = time.perf_counter()
        step, num_params = make()
        losses = [step() for _ in range(WARM_UP_STEPS)]
        return cls(name, step, num_params, time.perf_counter() - start, losses, [])

    def take_turn(self) -> None:
        start = time.perf_counter()
        self.losses.append(self.step())
        self.seconds.append(time.perf_counter() - start)


def our_step(config: RunConfig, case: TrainingCase) -> tuple[Callable[[], float], int]:
    """Our compiled train step on the case's batch, and the number of parameters."""
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    train_step, state = compile_train_step(config, mesh).compiled, init_state(config, mesh)
    batch = put_batch(case.batch(), batch_sharding(config, mesh))
    num_params = count_params(state.params)

    def step() -> float:
        nonlocal state
        state, metrics = train_step(state, batch)
        jax.block_until_ready(state)
        return float(metrics.loss)

    return step, num_params


class Peer:
    """Their model with its optimizer; fp32 and autocast share the parameters."""

    def __init__(self, case: TrainingCase, *, compiled: bool = False):
        import torch

        self.torch: Any = torch
        torch.manual_seed(0)
        self.module: Any = case.peer().train()
        self.forward: Any = torch.compile(self.module) if compiled else self.module
        o: Any = case.config.optimizer
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(),
            lr=o.learning_rate,
            betas=(o.b1, o.b2),
            eps=o.epsilon,
            weight_decay=o.weight_decay,
            fused=True,
        )
        self.inputs = {k: torch.from_numpy(v) for k, v in case.peer_inputs(case.batch()).items()}

    def step(self, dtype: str) -> float:
        torch = self.torch
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = self.forward(**self.inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def maker(self, dtype: str) -> Callable[[], tuple[Callable[[], float], int]]:
        num_params = sum(p.numel() for p in self.module.parameters())
        return lambda: (lambda: self.step(dtype), num_params)


def make_sides(case: TrainingCase, *, with_compiled: bool) -> list[Side]:
    """Ours and theirs of a case, warmed up; each dtype's two beside each other."""
    peers = {"theirs": Peer(case)}
    if with_compiled:
        peers["theirs compiled"] = Peer(case, compiled=True)
    sides = []
    for dtype in DTYPES:
        config = replace(case.config, model=replace(case.config.model, compute_dtype=dtype))
        sides.append(Side.started(f"ours {dtype}", lambda c=config: our_step(c, case)))
        for name, peer in peers.items():
            sides.append(Side.started(f"{name} {dtype}", peer.maker(dtype)))
    return sides


def check_same_model(case: TrainingCase, sides: Sequence[Side]) -> None:
    """Raises ValueError where the sides have different numbers of parameters or do not learn."""
    sizes = {f"{side.name}: {side.num_params:,}" for side in sides}
    if len({side.num_params for side in sides}) != 1:
        raise ValueError(
            f"{case.name}: got {sorted(sizes)} parameters, expected the same on all sides"
        )
    for side in sides:
        if not side.losses[-1] < side.losses[0]:
            raise ValueError(
                f"{case.name}: got losses {side.losses[0]} to {side.losses[-1]} of {side.name}, "
                "expected a batch that is seen again and again to get cheaper"
            )


def run_rounds(sides: Sequence[Side], rounds: int) -> None:
    """Every side one step a round; the order turns, so that nobody always follows the same."""
    for number in range(rounds):
        for index in range(len(sides)):
            sides[(index + number) % len(sides)].take_turn()


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest of theirs over ours, round by round: above 1 we are faster."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def record_of(case: TrainingCase, sides: Sequence[Side]) -> dict[str, Any]:
    """Everything measured of a case, JSON-able."""
    by_name = {side.name: side for side in sides}
    record: dict[str, Any] = {
        "case": case.name,
        "places": case.places,
        "num_params": sides[0].num_params,
        "sides": {
            side.name: {
                "median_seconds": statistics.median(side.seconds),
                "tokens_per_second": case.places / statistics.median(side.seconds),
                "warm_up_seconds": side.warm_up_seconds,
                "first_loss": side.losses[0],
                "last_loss": side.losses[-1],
                "seconds": side.seconds,
            }
            for side in sides
        },
        "ratios": {},
    }
    for name, side in by_name.items():
        who, dtype = name.rsplit(" ", 1)
        if who != "ours":
            ratio = paired_ratios(by_name[f"ours {dtype}"].seconds, side.seconds)
            record["ratios"][name] = dict(zip(("median", "least", "most"), ratio, strict=True))
    return record


def table_of(records: Sequence[dict[str, Any]], *, with_compiled: bool) -> Table:
    """Tokens a second and ratios, a row a case and dtype."""
    peers = ["theirs"] + ["theirs compiled"] * with_compiled
    columns = [text for peer in peers for text in (peer, "ratio (range)")]
    table = Table("case", "parameters", "dtype", "ours, tokens/s", *columns, "warm-up s, all")
    for record in records:
        for dtype in DTYPES:
            sides = {who: record["sides"][f"{who} {dtype}"] for who in ("ours", *peers)}
            cells = []
            for peer in peers:
                ratio = record["ratios"][f"{peer} {dtype}"]
                cells.append(f"{sides[peer]['tokens_per_second']:,.0f}")
                cells.append(f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f})")
            table.add_row(
                record["case"],
                f"{record['num_params']:,}",
                dtype,
                f"{sides['ours']['tokens_per_second']:,.0f}",
                *cells,
                ", ".join(f"{side['warm_up_seconds']:.0f}" for side in sides.values()),
            )
    return table


def environment() -> dict[str, Any]:
    """Versions, cores, pages and load, for the record."""
    packages = ("jax", "jaxlib", "flax", "optax", "torch", "transformers")
    return {
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in packages},
        "cores": len(os.sched_getaffinity(0)),
        "huge_pages": huge_pages(),
        "load_average": os.getloadavg()[0],
    }


def restart_with_huge_pages() -> None:
    """Starts this process again with glibc's huge pages; returns once they are on."""
    if huge_pages() == "off":
        if "GLIBC_TUNABLES" in os.environ:
            sys.exit("--hugepages: glibc or the kernel gives none here")
        environ = os.environ | {"GLIBC_TUNABLES": TUNABLE}
        os.execve(sys.executable, sys.orig_argv, environ)  # noqa: S606  this very program


def main() -> None:
    """Measures, prints the table, keeps the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = {case.name: case for case in CASES}
    parser.add_argument("--cases", nargs="+", choices=known, default=list(known))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torch.compile as another side")
    parser.add_argument("--hugepages", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON with every step's seconds")
    options = parser.parse_args()
    if options.hugepages:
        restart_with_huge_pages()
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    facts, records = environment(), []
    for name in options.cases:
        sides = make_sides(known[name], with_compiled=options.compile)
        run_rounds(sides, options.rounds)
        check_same_model(known[name], sides)
        records.append(record_of(known[name], sides))
        print(f"{name}: {sides[0].num_params:,} parameters on every side", flush=True)
        del sides
        gc.collect()
    facts["load_average_after"] = os.getloadavg()[0]
    Console(width=150).print(table_of(records, with_compiled=options.compile))
    print(json.dumps(facts))
    if options.out:
        text = json.dumps(facts | {"rounds": options.rounds, "cases": records}, indent=1)
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
