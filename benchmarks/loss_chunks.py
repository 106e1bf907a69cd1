"""How large a chunk of logits should be on CPU: train steps with different chunks, side by side.

    .venv/bin/python -m benchmarks.loss_chunks --rounds 21

The loss makes the logits of so many tokens at a time as fit the chunk (train/losses.py). Smaller
chunks stay in the cache between the three products; larger ones are fewer, and their products
wider. Steps of all variants take turns, the order turns too; a ratio is the median over rounds of a
variant's seconds over those of the size in force in the same round. Huge pages as in training.
"""

import argparse
import statistics
import time
from dataclasses import replace
from unittest import mock

from rich.console import Console
from rich.table import Table

from benchmarks.cpu_training import WARM_UP_STEPS, our_step
from benchmarks.cpu_training_cases import CASES, TrainingCase
from train import losses
from train.platform import restart_with_huge_pages

MEGABYTES = (2, 8, 32, 1024)  # the last: whole


def measure(case: TrainingCase, megabytes: list[int], rounds: int) -> dict[int, list[float]]:
    """Chunk size -> seconds of its steps, round by round."""
    steps = {}
    for size in megabytes:
        with mock.patch.dict(losses._CHUNK_BYTES, {"cpu": size * 2**20}):
            steps[size], _ = our_step(case.config, case)
        for _ in range(WARM_UP_STEPS):
            steps[size]()
    seconds: dict[int, list[float]] = {size: [] for size in megabytes}
    for number in range(rounds):
        for turn in range(len(megabytes)):
            size = megabytes[(number + turn) % len(megabytes)]
            start = time.perf_counter()
            steps[size]()
            seconds[size].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = {case.name: case for case in CASES}
    parser.add_argument("--cases", nargs="+", choices=known, default=["decoder-8M"])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--megabytes", nargs="+", type=int, default=list(MEGABYTES))
    parser.add_argument("--vocab-size", type=int, help="in place of the case's")
    options = parser.parse_args()
    restart_with_huge_pages()
    in_force = losses._CHUNK_BYTES["cpu"] // 2**20
    sizes = sorted({in_force, *options.megabytes})
    table = Table("case", "chunk, MiB", "tokens in it", "median ms", "best ms", "ratio to now's")
    for name in options.cases:
        case = known[name]
        if options.vocab_size:
            model = replace(case.config.model, vocab_size=options.vocab_size)
            case = replace(case, config=replace(case.config, model=model))
        seconds = measure(case, sizes, options.rounds)
        places = case.config.batch_tokens
        for size in sizes:
            per_chunk = max(128, size * 2**20 // (4 * case.config.model.vocab_size) // 128 * 128)
            pairs = zip(seconds[size], seconds[in_force], strict=True)
            table.add_row(
                name,
                str(size),
                f"{min(per_chunk, places):,}",
                f"{statistics.median(seconds[size]) * 1e3:.0f}",
                f"{min(seconds[size]) * 1e3:.0f}",
                f"{statistics.median(one / now for one, now in pairs):.3f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
