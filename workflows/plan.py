"""isoflop plan: a budget to a run, without running it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from configs.errors import require
from configs.folders import require_writable_file
from configs.overrides import apply_overrides, load_preset_or_file, parse_command
from configs.serialize import save
from planner.explain import explain
from planner.layout_rules import mesh_text
from planner.plan import Plan, make_plan
from planner.topology import parse_topology
from workflows.budget_options import PlanningOptions
from workflows.verify import before_jax, print_verdict, verified

PROG = "isoflop plan"
_WIDTH = 120  # of tables that go into a file or a pipe


@dataclass(frozen=True, kw_only=True)
class PlanOptions(PlanningOptions):
    """Turns a budget into a shape, a batch size, a learning rate and a number of steps.

    Without --chips the speed is measured by trying the planned step on this machine. Any field of
    the config can be overridden: --training.seed 1. Exit status 0; with --verify 1 if the step does
    not fit; 2: bad input.
    """

    preset: str = "decoder_only"
    """What is no size (architecture, objective, norms, seeds) is taken from this preset or .json
    file."""
    out: Path | None = None
    """Write the planned config here, for `isoflop train`."""
    explain: bool = False
    """Narrate the arithmetic line by line."""
    verify: bool = False
    """Compile the planned step for the planned chips (this machine's devices without --chips), set
    the compiler's memory, FLOPs and collectives beside the plan's, and promise the compiler's
    memory. Needs no chips: TPUs need the extra tpu, GPUs the extra cuda."""
    topology: str | None = None
    """With --verify, compile for these instead: as many devices, cpu:8 say."""
    json: bool = False
    """Print plan.json's record instead of a table."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop plan`."""
    options, overrides = parse_command(
        PlanOptions, args, prog=PROG, description=PlanOptions.__doc__ or ""
    )
    budget, law, constraints = options.budget(), options.chosen_law(), options.constraints()
    template = apply_overrides(load_preset_or_file(options.preset), overrides)
    require(
        options.verify or options.topology is None, "topology", options.topology, "--verify too"
    )
    chosen = None if options.topology is None else parse_topology(options.topology)
    topology = options.topology_of_chips()
    if options.out is not None:
        require_writable_file("out", options.out)
    if options.verify:
        before_jax(chosen or topology)
    hardware = options.hardware()
    if topology is not None:
        plan = make_plan(
            budget,
            template=template,
            hardware=hardware,
            law=law,
            constraints=constraints,
            topology=topology,
        )
    else:
        from workflows.calibrate import calibrated_plan  # loads JAX: chips do without

        plan = calibrated_plan(
            budget,
            template=template,
            law=law,
            constraints=constraints,
            hardware=hardware,
            held_out_tokens=0,
            console=Console(stderr=True),
        )
    plan = plan.with_config(apply_overrides(plan.config, overrides))
    report = None
    if options.verify:
        plan, report = verified(plan, chosen or topology, Console(stderr=True))
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    if options.json:
        print(json.dumps({"schema_version": 1, **plan.to_json()}, indent=2))
    elif options.explain:
        print("\n\n".join(explain(plan)))
    else:
        print_plan(plan, console)
        print_laws(plan, console)
    if report is not None and not options.json:
        from workflows.compile_report import print_report  # loads JAX

        print()
        print_report(report, console)
        print_verdict(plan, console)
    if options.out is not None:
        save(plan.config, options.out)
    return 0 if plan.compiled is None or plan.compiled.fits else 1


def print_plan(plan: Plan, console: Console, corpus_tokens: int | None = None) -> None:
    """The plan as a table for a person."""
    record = plan.to_json(corpus_tokens)
    model, data, training = record["model"], record["data"], record["training"]
    predicted, optimum = record["predicted"], record["optimum"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))

    def row(name: str, value: str, note: str = "") -> None:
        table.add_row(f"  {name}", value, note)

    row("budget", f"{plan.budget.value:,.6g} {plan.budget.unit}", f"{plan.flops:.3g} FLOPs")
    row("law", plan.law.name, f"{record['law']['note']}; N is {plan.law.convention}")
    row(
        "the law's optimum",
        f"{optimum['params']:,.0f} parameters",
        f"{optimum['tokens']:,.0f} tokens, {optimum['tokens_per_param']:.1f} a parameter",
    )
    depth = f"{model['num_layers']} layers"
    if model["num_encoder_layers"]:
        depth = f"{model['num_encoder_layers']} + {depth}"
    row(
        "shape",
        f"{depth} × {model['emb_dim']} wide",
        f"{model['num_heads']} heads of {model['head_dim']} ({model['num_kv_heads']} key/value), "
        f"MLP {model['mlp_dim']}, {model['vocab_size']:,} pieces",
    )
    met = f"{model['matmul_params']:,} in matrix products"
    if plan.config.lengths.encoder_length:
        met += f", {model['params_by_law']:,} of them for a place on average"
    if model["active_params"] < model["params"]:
        met += f", {model['active_params']:,} for any one token"
    row("its parameters", f"{model['params']:,} in all", met)
    epochs = "" if data["epochs"] is None else f", {data['epochs']:.2f} epochs"
    read = (
        "" if data["tokens_read"] == data["tokens"] else f", {data['tokens_read']:,} of the corpus"
    )
    row(
        "data",
        f"{data['tokens']:,} tokens",
        f"{training['num_steps']:,} steps of {data['batch_size']} rows × "
        f"{data['places_per_row']}{read}{epochs}",
    )
    row(
        "optimizer",
        f"learning rate {training['learning_rate']:g}",
        f"{training['schedule']}, {training['warmup_steps']} warm-up steps, "
        f"weight decay {training['weight_decay']:g}",
    )
    row(
        "predicted",
        duration(predicted["train_seconds"]),
        f"{predicted['flops']:.3g} FLOPs, {predicted['step_seconds']:.3g} s a step, "
        f"{predicted['peak_bytes'] / 1e9:.2f} GB a device",
    )
    row("loss", _loss_text(plan), predicted["loss_note"])
    for size in record["other_sizes"]:
        row(
            f"  at {size['factor']:g} × the size",
            f"{size['change']:+.2%} loss",
            f"{size['params']:,.0f} parameters, {size['tokens']:,.0f} tokens, the same compute",
        )
    row("hardware", f"{plan.hardware.num_chips} × {plan.hardware.device}", plan.hardware.source)
    m, parts = plan.config.model, plan.config.training.num_microbatches
    remat = m.remat if "keep" not in m.remat_pattern else f"{m.remat} ({' '.join(m.remat_pattern)})"
    row("layout", mesh_text(plan.config), f"remat {remat}, {parts} microbatches")
    for rule in plan.rules:
        if rule.field.startswith(("mesh", "model.remat", "training.num_micro", "mfu")):
            row(f"  {rule.field}", "" if rule.field == "mesh" else str(rule.value), rule.rule)
    cost = "" if plan.cost is None else f", costs {plan.cost:,.0f}"
    row("chip-hours", f"{plan.chip_hours:,.4g}", f"{predicted['days']:,.3g} days{cost}")
    console.print(table, highlight=False)
    for warning in record["warnings"]:
        console.print(f"  warning: {warning}", style="yellow", highlight=False)


def print_laws(plan: Plan, console: Console) -> None:
    """Every law's answer for the plan's compute, side by side."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("law", "N", "D", "D/N", "loss", "N counts", "range"):
        right = heading in ("N", "D", "D/N", "loss")
        table.add_column(heading, justify="right" if right else "left")
    for answer in plan.to_json()["laws"]:
        loss = "-" if answer["loss"] is None else f"{answer['loss']:.3f}"
        table.add_row(
            answer["name"],
            f"{answer['params']:.3g}",
            f"{answer['tokens']:.3g}",
            f"{answer['tokens_per_param']:.1f}",
            loss,
            answer["params_kind"],
            _range_text(answer["stretch"]),
        )
    console.print(f"\n  every law at {plan.flops:.3g} FLOPs, each in its own definition of N")
    console.print(table, highlight=False)


def _range_text(stretch: float) -> str:
    if stretch == 1:
        return "inside"
    return f"{stretch:,.3g} × above" if stretch > 1 else f"{1 / stretch:,.3g} × below"


def duration(seconds: float) -> str:
    """'97 s', '31.2 min', '5.3 h' or '12.0 days'."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} s"


def _loss_text(plan: Plan) -> str:
    loss = plan.loss
    interval = f"{loss.low:.3f} to {loss.high:.3f}" if loss.low and loss.high else ""
    if loss.value is None:
        return interval or "unfitted"
    return f"{loss.value:.3f} ({interval})" if interval else f"{loss.value:.3f}"
