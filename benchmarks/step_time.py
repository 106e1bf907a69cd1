"""Step time against the accounting: calibrated on three shapes, checked on nine others.

    .venv/bin/python -m benchmarks.step_time --out benchmarks/step_time.json
    .venv/bin/python -m benchmarks.step_time --out benchmarks/step_time.json --redraw

The accounting says of a config, before anything is compiled, how many FLOPs its step executes
(planner/flops.py), how many bytes it keeps (planner/memory.py) and how many attention scores it
computes (planner/attention_kernel.py). A step is then taken to last

    seconds = FLOPs / rate + bytes / bandwidth + scores / score rate,

with the three constants of the machine solved for on three shapes (none below zero). Scores count
for themselves because a CPU spends more on their softmax than on their products. The other shapes
differ from those in width, depth, batch or row length, and tell how far the formula is off. Shapes
take turns, one step that does not count (another shape's memory was freed before it) and one that
does; the order turns too. A shape's time is the least of its rounds, what the machine takes when it
is left alone. The process starts itself again with huge pages, as `isoflop train` does.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import nnls

from configs.data_config import DataConfig
from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig
from configs.optimizer_config import AdamWConfig
from configs.schema import RunConfig, TrainingConfig
from configs.serialize import write_json
from planner.accounting import total_params
from planner.attention_kernel import attention_kernel, kernel_pairs
from planner.flops import executed_flops_per_step
from planner.memory import training_bytes
from planner.parameters import sides
from planner.plan import causal_blocks
from report.pictures.canvas import COLORS, MUTED, new_figure, save_png, style
from train.ahead_of_time import compile_train_step
from train.feed import put_batch
from train.mesh import make_mesh
from train.platform import huge_pages, restart_with_huge_pages
from train.state import init_state
from train.step import batch_sharding
from workflows.calibrate import random_batch

WARM_UP_STEPS = 2
GOAL = 0.20
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "step_time.png"

# Parameters are read by the forward and the backward pass, the gradient written, read for its norm
# and by the update, which reads and writes parameters and both moments: eleven passes, fp32.
_STATE_PASSES = 11
# What is kept for the backward pass, logits included, is written once and read once.
_KEPT_PASSES = 2
# Half of what is done to a score is done forward, which blockwise attention does again backward.
_SCORE_SHARE = {"reference": 1.0, "blockwise": 1.5}


def shape(
    num_layers: int, emb_dim: int, num_heads: int, rows: int, seq_len: int, vocab_size: int = 2048
) -> RunConfig:
    """A Llama on CPU as the planner sets it: unrolled, causal attention in blocks."""
    return RunConfig(
        name=f"{num_layers}×{emb_dim}, {rows}×{seq_len}",
        model=ModelConfig(
            vocab_size=vocab_size,
            emb_dim=emb_dim,
            num_layers=num_layers,
            attention=AttentionConfig(
                num_heads=num_heads,
                num_kv_heads=num_heads,
                head_dim=emb_dim // num_heads,
                causal_blocks=causal_blocks(seq_len),
            ),
            mlp=SwiGLUConfig(mlp_dim=emb_dim * 3),
            scan_layers=False,
            tie_embeddings=False,
        ),
        data=DataConfig(seq_len=seq_len),
        optimizer=AdamWConfig(),
        training=TrainingConfig(batch_size=rows),
    )


CALIBRATION = (
    shape(2, 128, 2, rows=4, seq_len=128),
    shape(6, 384, 6, rows=8, seq_len=256),
    shape(4, 256, 4, rows=2, seq_len=1024),
)
CHECKS = (
    shape(4, 128, 2, rows=8, seq_len=256),  # narrow
    shape(6, 256, 4, rows=8, seq_len=256, vocab_size=4096),  # the peers' shape
    shape(8, 512, 8, rows=4, seq_len=256),  # wide and deep
    shape(12, 192, 3, rows=8, seq_len=128),  # deep and narrow
    shape(4, 256, 4, rows=32, seq_len=128),  # many short rows
    shape(4, 256, 4, rows=4, seq_len=512),
    shape(6, 384, 6, rows=1, seq_len=256),  # few tokens
    shape(6, 384, 6, rows=24, seq_len=256),  # many tokens
    shape(3, 192, 3, rows=1, seq_len=2048),  # one long row
)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the accounting says of one step, on one device."""

    flops: float
    bytes: float
    scores: float

    @classmethod
    def of(cls, config: RunConfig) -> "Load":
        memory = training_bytes(config)
        kept = memory.activations + memory.logits
        (side,) = sides(config.model)
        kernel = attention_kernel(config, side, "cpu")
        of_row = config.model.num_layers * config.model.attention.num_heads
        of_row *= kernel_pairs(config, side, kernel) * _SCORE_SHARE[kernel]
        return cls(
            flops=executed_flops_per_step(config).total,
            bytes=_STATE_PASSES * memory.params + _KEPT_PASSES * kept,
            scores=config.training.batch_size * of_row,
        )


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Seconds a FLOP, a byte, and an attention score; each 0 or more."""

    flop_seconds: float
    byte_seconds: float
    score_seconds: float

    def seconds(self, load: Load) -> float:
        """How long the step should take."""
        return (
            load.flops * self.flop_seconds
            + load.bytes * self.byte_seconds
            + load.scores * self.score_seconds
        )


def calibrate(loads: Sequence[Load], seconds: Sequence[float]) -> Machine:
    """The machine that fits measured steps best in relative error; exactly, if three can be.

    Raises:
      ValueError: not as many seconds as loads, or fewer than three.
    """
    if len(loads) != len(seconds) or len(loads) < 3:
        raise ValueError(
            f"loads: got {len(loads)} and {len(seconds)} seconds, expected three or more of both"
        )
    terms = np.array([[load.flops, load.bytes, load.scores] for load in loads])
    scale = terms.max(axis=0)
    constants, _ = nnls(terms / scale / np.array(seconds)[:, None], np.ones(len(loads)))
    flop, byte, score = (constants / scale).tolist()
    return Machine(flop_seconds=flop, byte_seconds=byte, score_seconds=score)


def start_step(config: RunConfig) -> Callable[[], None]:
    """The compiled train step on a batch that stays, warmed up."""
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    train_step, state = compile_train_step(config, mesh).compiled, init_state(config, mesh)
    batch = put_batch(random_batch(config), batch_sharding(config, mesh))

    def step() -> None:
        nonlocal state
        state, _ = train_step(state, batch)
        jax.block_until_ready(state)

    for _ in range(WARM_UP_STEPS):
        step()
    return step


def measure(configs: Sequence[RunConfig], rounds: int) -> list[dict[str, Any]]:
    """A record a config: the accounting's load, and seconds by the clock and of all threads."""
    steps = [start_step(config) for config in configs]
    taken: list[list[tuple[float, float]]] = [[] for _ in configs]
    for number in range(rounds):
        for turn in range(len(configs)):
            index = (turn + number) % len(configs)
            steps[index]()
            start, cpu_start = time.perf_counter(), time.process_time()
            steps[index]()
            taken[index].append((time.perf_counter() - start, time.process_time() - cpu_start))
    records = []
    for config, times in zip(configs, taken, strict=True):
        load = Load.of(config)
        records.append(
            {
                "shape": config.name,
                "params": total_params(config.model),
                "batch_tokens": config.batch_tokens,
                "seq_len": config.data.seq_len,
                "flops": load.flops,
                "bytes": load.bytes,
                "scores": load.scores,
                "seconds": min(wall for wall, _ in times),
                "median_seconds": statistics.median(wall for wall, _ in times),
                "cpu_seconds": statistics.median(cpu for _, cpu in times),
            }
        )
    return records


def judge(records: Sequence[Mapping[str, Any]], num_calibration: int) -> dict[str, Any]:
    """Calibrates on the first records and adds to each what was expected and how far off it was.

    error: expected over measured, minus 1.
    """
    loads = [
        Load(**{name: record[name] for name in ("flops", "bytes", "scores")}) for record in records
    ]
    seconds = [record["seconds"] for record in records]
    machine = calibrate(loads[:num_calibration], seconds[:num_calibration])
    judged = [
        dict(record)
        | {
            "is_calibration": number < num_calibration,
            "expected_seconds": machine.seconds(load),
            "error": machine.seconds(load) / record["seconds"] - 1,
        }
        for number, (record, load) in enumerate(zip(records, loads, strict=True))
    ]
    errors = [abs(record["error"]) for record in judged if not record["is_calibration"]]
    return {
        "machine": {
            "gflops_per_second": _rate(machine.flop_seconds) / 1e9,
            "gb_per_second": _rate(machine.byte_seconds) / 1e9,
            "scores_per_second": _rate(machine.score_seconds),
        },
        "largest_error": max(errors),
        "mean_error": statistics.mean(errors),
        "shapes": judged,
    }


def _rate(seconds: float) -> float:
    return 1 / seconds if seconds else 0.0  # 0: the term does not count


def draw(result: Mapping[str, Any]) -> Figure:
    """Measured against expected seconds, with the band of the goal; the error of every shape."""
    with style():
        figure = new_figure(9.6, 4.2)
        times, errors = figure.subplots(1, 2)
        shapes = result["shapes"]
        ends = np.array([0.6, 1.6]) * [f(s["seconds"] for s in shapes) for f in (min, max)]
        times.fill_between(
            ends, ends / (1 + GOAL), ends * (1 + GOAL), color=COLORS[0], alpha=0.1, linewidth=0
        )
        times.plot(ends, ends, color=MUTED, linewidth=0.8)
        for is_calibration, name in ((True, "calibrated on"), (False, "checked")):
            color = COLORS[is_calibration]
            chosen = [s for s in shapes if s["is_calibration"] == is_calibration]
            times.plot(
                [s["seconds"] for s in chosen],
                [s["expected_seconds"] for s in chosen],
                "o",
                color=color,
                label=name,
                markersize=5,
            )
        times.set(xscale="log", yscale="log", xlabel="measured, seconds a step")
        times.set_ylabel("expected")
        times.legend()
        names = [s["shape"] for s in shapes]
        colors = [COLORS[s["is_calibration"]] for s in shapes]
        errors.barh(names, [100 * s["error"] for s in shapes], color=colors, height=0.6)
        errors.invert_yaxis()
        for edge in (-GOAL, GOAL):
            errors.axvline(100 * edge, color=MUTED, linewidth=0.8, linestyle="--")
        errors.axvline(0, color=MUTED, linewidth=0.8)
        errors.set_xlabel("expected against measured, %")
        errors.set_title("layers × width, rows × length", loc="left", fontsize="medium")
    return figure


def table(result: Mapping[str, Any]) -> str:
    """Markdown: a row a shape."""
    lines = [
        "| layers × width, rows × length | parameters | GFLOP | MB | scores | measured, ms "
        "| expected | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for s in result["shapes"]:
        error = "calibration" if s["is_calibration"] else f"{s['error']:+.0%}"
        lines.append(
            f"| {s['shape']} | {s['params'] / 1e6:.2f}M | {s['flops'] / 1e9:.1f} "
            f"| {s['bytes'] / 1e6:,.0f} | {s['scores'] / 1e6:.1f}M | {s['seconds'] * 1e3:.1f} "
            f"| {s['expected_seconds'] * 1e3:.1f} | {error} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, or reads what was measured; prints the table, keeps record and picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("step_time.json"))
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--redraw", action="store_true", help="from --out, nothing is measured")
    options = parser.parse_args()
    if options.redraw:
        result = json.loads(options.out.read_text(encoding="utf-8"))
    else:
        restart_with_huge_pages()
        facts = {
            "device": jax.devices()[0].device_kind,
            "cores": len(os.sched_getaffinity(0)),
            "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "optax")},
            "huge_pages": huge_pages(),
            "rounds": options.rounds,
            "load_average": os.getloadavg()[0],
        }
        records = measure((*CALIBRATION, *CHECKS), options.rounds)
        result = facts | judge(records, len(CALIBRATION))
        write_json(options.out, result)
    save_png(draw(result), options.picture)
    print(table(result))
    print(json.dumps({name: result[name] for name in ("machine", "largest_error", "mean_error")}))


if __name__ == "__main__":
    main()
