"""How fast this machine really trains: a short trial of the very program a plan would run."""

import statistics
import time
from dataclasses import replace

import jax
import numpy as np
import psutil
from rich.console import Console

from configs.schema import RunConfig
from data.batches import Batch
from planner.accounting import training_flops_per_token
from planner.budget import Budget, Constraints
from planner.hardware import DEFAULT_MFU, Hardware, chip_of_device
from planner.law import Law
from planner.plan import Plan, make_plan
from planner.promise import tokens_per_row
from train.feed import put_batch
from train.mesh import make_mesh
from train.metrics import peak_flops_per_second
from train.programs import compile_steps
from train.state import init_state
from train.step import batch_sharding

_TRIAL_SECONDS = 6.0
_ROUNDS = 4
# Reading rows and logging share a CPU's cores with the step: measured on two cores.
_SHARED_CORES = 1.05


def describe_hardware() -> Hardware:
    """The devices JAX shows, with an assumed MFU; `calibrate` replaces the assumption."""
    devices = jax.devices()
    kind = devices[0].device_kind
    chip = chip_of_device(kind)
    is_accelerator = devices[0].platform != "cpu"
    peak, _ = peak_flops_per_second(devices)
    if chip is not None:
        memory = chip.memory_bytes / chip.devices
    else:
        memory = psutil.virtual_memory().total / len(devices)
    return Hardware(
        device=kind,
        num_devices=len(devices),
        flops_per_second=DEFAULT_MFU * peak,
        peak_flops_per_second=peak,
        memory_bytes=memory,
        source=f"assumed: {DEFAULT_MFU:.0%} of peak",
        is_accelerator=is_accelerator,
        num_chips=max(1, len(devices) // (chip.devices if chip else 1)),
    )


def step_seconds(config: RunConfig) -> float:
    """Median seconds of the config's train step on random tokens, after it is compiled."""
    mesh = make_mesh(config.mesh)
    compiled = compile_steps(config, mesh)
    state, batch = init_state(config, mesh), random_batch(config)
    batch = put_batch(batch, batch_sharding(config, mesh))
    state, metrics = compiled.train_step(state, batch)
    float(metrics.loss)  # the first step pays for page faults and caches
    seconds: list[float] = []
    while sum(seconds) < _TRIAL_SECONDS:
        start = time.perf_counter()
        state, metrics = compiled.train_step(state, batch)
        float(metrics.loss)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def calibrated_plan(
    budget: Budget,
    *,
    template: RunConfig,
    law: Law | None = None,
    constraints: Constraints,
    hardware: Hardware | None = None,
    held_out_tokens: int,
    console: Console,
) -> Plan:
    """A plan whose speed was measured on the shape it chose.

    Plan, try the planned step, plan again with the measured speed, until the step stays the same.
    Wider models reach more FLOP/s, so several shapes may be consistent with their own speed; the
    first plan assumes a high speed and later ones come down to the largest of them.

    Args:
      hardware: replaces what JAX shows where only its price or memory differs.
      held_out_tokens: scored after the last step; their time comes out of a time budget.
    """
    reserved, plan = 0.0, None
    hardware = hardware or describe_hardware()
    for _ in range(_ROUNDS):
        previous = plan
        plan = make_plan(
            budget,
            template=template,
            hardware=hardware,
            law=law,
            constraints=constraints,
            reserved_seconds=reserved,
        )
        if previous is not None and _same_step(previous.config, plan.config):
            break
        with console.status("trying the train step on this machine"):
            seconds = step_seconds(plan.config)
        if not hardware.is_accelerator:
            seconds *= _SHARED_CORES
        c = plan.config
        per_token = training_flops_per_token(c.model, c.lengths).total
        hardware = replace(
            hardware,
            flops_per_second=per_token * c.batch_tokens / seconds,
            source=f"measured on this machine: {seconds * 1e3:.0f} ms a step",
        )
        reserved = _reserved_seconds(c, seconds, held_out_tokens)
    assert plan is not None
    return plan


def _same_step(a: RunConfig, b: RunConfig) -> bool:
    """Whether two configs compile to the same amount of work a step."""
    return (a.model, a.lengths, a.training.batch_size, a.mesh) == (
        b.model,
        b.lengths,
        b.training.batch_size,
        b.mesh,
    )


def _reserved_seconds(config: RunConfig, seconds: float, held_out_tokens: int) -> float:
    """For evaluations and saves: a forward pass is a third of a step, a save about a second."""
    t = config.training
    evaluations = t.num_steps // t.eval_every if t.eval_every else 0
    scored = held_out_tokens + evaluations * min(t.eval_tokens, held_out_tokens)
    saves = 1 + (t.num_steps // t.checkpoint_every if t.checkpoint_every else 0)
    return seconds / 3 * scored / (t.batch_size * tokens_per_row(config.lengths)) + saves


def random_batch(config: RunConfig) -> Batch:
    """Tokens drawn evenly, one document a row and side: as much work as any batch of the shape."""
    generator, lengths = np.random.default_rng(0), config.lengths
    rows, vocab_size = config.training.batch_size, config.model.vocab_size

    def side(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens, positions and segments [rows, length]."""
        tokens = generator.integers(0, vocab_size, (rows, length), np.int32)
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
        return tokens, positions, np.ones((rows, length), np.int32)

    tokens, positions, ones = side(lengths.length)
    encoder = side(lengths.encoder_length) if lengths.encoder_length else (None, None, None)
    return Batch(
        tokens,
        tokens,
        ones.astype(np.float32),
        positions,
        ones,
        ones if lengths.has_prefix else None,
        *encoder,
    )
