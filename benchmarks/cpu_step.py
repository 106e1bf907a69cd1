"""Train-step time of variants that change speed and not results, measured side by side.

    .venv/bin/python benchmarks/cpu_step.py

Variants take turns, step by step, so that a noisy machine disturbs all of them alike; the table
gives the median and the best step of each, and the ratio of medians to the first variant. Peers
are not run here: the shape is small, and only ratios between our own variants are claimed.
"""

import statistics
import time
from dataclasses import replace

import jax
from rich.console import Console
from rich.table import Table

from configs.data_config import DataConfig
from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig
from configs.optimizer_config import AdamWConfig, MuonConfig
from configs.schema import RunConfig, TrainingConfig
from planner.accounting import training_flops_per_token
from train.feed import put_batch
from train.mesh import make_mesh
from train.programs import compile_steps
from train.state import init_state
from train.step import batch_sharding
from workflows.calibrate import random_batch

ROUNDS = 20

BASE = RunConfig(
    model=ModelConfig(
        vocab_size=2048,
        emb_dim=128,
        num_layers=3,
        attention=AttentionConfig(num_heads=2, num_kv_heads=2, head_dim=64, causal_blocks=1),
        mlp=SwiGLUConfig(mlp_dim=352),
        scan_layers=False,
    ),
    data=DataConfig(seq_len=256),
    optimizer=AdamWConfig(),
    training=TrainingConfig(batch_size=16),
)


def with_blocks(config: RunConfig, blocks: int) -> RunConfig:
    attention = replace(config.model.attention, causal_blocks=blocks)
    return replace(config, model=replace(config.model, attention=attention))


VARIANTS = {
    "unrolled, causal_blocks 1, AdamW": BASE,
    "causal_blocks 2": with_blocks(BASE, 2),
    "causal_blocks 4": with_blocks(BASE, 4),
    "scanned": replace(BASE, model=replace(BASE.model, scan_layers=True)),
    "full remat": replace(BASE, model=replace(BASE.model, remat="full")),
    "Muon": replace(BASE, optimizer=MuonConfig()),
}


def main() -> None:
    """Times every variant and prints the table."""
    running = {}
    for name, config in VARIANTS.items():
        mesh = make_mesh(config.mesh, jax.devices()[:1])
        compiled = compile_steps(config, mesh)
        batch = put_batch(random_batch(config), batch_sharding(config, mesh))
        running[name] = [compiled, init_state(config, mesh), batch]
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(ROUNDS + 1):
        for name, (compiled, state, batch) in running.items():
            start = time.perf_counter()
            running[name][1], metrics = compiled.train_step(state, batch)
            float(metrics.loss)
            seconds[name].append(time.perf_counter() - start)
    table = Table("variant", "median ms", "best ms", "tokens/s", "GFLOP/s", "ratio", "compile s")
    first = statistics.median(next(iter(seconds.values()))[1:])
    for name, config in VARIANTS.items():
        median, best = statistics.median(seconds[name][1:]), min(seconds[name][1:])
        flops = training_flops_per_token(config.model, config.data.seq_len).total
        table.add_row(
            name,
            f"{median * 1e3:.0f}",
            f"{best * 1e3:.0f}",
            f"{config.batch_tokens / median:,.0f}",
            f"{config.batch_tokens * flops / median / 1e9:.0f}",
            f"{median / first:.2f}",
            f"{running[name][0].seconds:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
