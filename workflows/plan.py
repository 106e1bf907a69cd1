"""isoflop plan: a budget to a run, without running it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from configs.overrides import apply_overrides, load_preset_or_file, parse_command
from configs.serialize import save
from planner.plan import Plan
from workflows.budget_options import BudgetOptions
from workflows.calibrate import calibrated_plan

PROG = "isoflop plan"


@dataclass(frozen=True, kw_only=True)
class PlanOptions(BudgetOptions):
    """Turns a budget into a shape, a batch size, a learning rate and a number of steps.

    The speed is measured by trying the planned step on this machine. Any field of the config can
    be overridden: --training.seed 1.
    """

    preset: str = "decoder_only"
    """What is no size (objective, norms, seeds) is taken from this preset or .json file."""
    vocab_size: int | None = None
    """Of a tokenizer that exists already; chosen by model size if not given."""
    seq_len: int | None = None
    """Tokens a row; chosen by model size if not given."""
    out: Path | None = None
    """Write the planned config here, for `isoflop train`."""
    json: bool = False
    """Print plan.json's record instead of a table."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop plan`."""
    options, overrides = parse_command(
        PlanOptions, args, prog=PROG, description=PlanOptions.__doc__ or ""
    )
    budget = options.budget()
    template = apply_overrides(load_preset_or_file(options.preset), overrides)
    plan = calibrated_plan(
        budget,
        template=template,
        vocab_size=options.vocab_size,
        seq_len=options.seq_len,
        held_out_tokens=0,
        console=Console(stderr=True),
    )
    plan = plan.with_config(apply_overrides(plan.config, overrides))
    if options.json:
        print(json.dumps({"schema_version": 1, **plan.to_json()}, indent=2))
    else:
        print_plan(plan, Console())
    if options.out is not None:
        save(plan.config, options.out)
    return 0


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
    row(
        "shape",
        f"{model['num_layers']} layers × {model['emb_dim']} wide",
        f"{model['num_heads']} heads of {model['head_dim']} ({model['num_kv_heads']} key/value), "
        f"MLP {model['mlp_dim']}, {model['vocab_size']:,} pieces",
    )
    row(
        "its parameters",
        f"{model['params']:,} in all",
        f"{model['matmul_params']:,} in matrix products",
    )
    epochs = "" if data["epochs"] is None else f", {data['epochs']:.2f} epochs"
    row(
        "data",
        f"{data['tokens']:,} tokens",
        f"{training['num_steps']:,} steps of {data['batch_size']} rows × {data['seq_len']}{epochs}",
    )
    row(
        "optimizer",
        f"learning rate {training['learning_rate']:g}",
        f"{training['schedule']}, {training['warmup_steps']} warm-up steps, "
        f"weight decay {training['weight_decay']:g}",
    )
    row(
        "predicted",
        f"{predicted['train_seconds']:,.0f} s",
        f"{predicted['flops']:.3g} FLOPs, {predicted['peak_bytes'] / 1e9:.2f} GB a device; "
        f"loss {predicted['loss_note']}",
    )
    row("hardware", f"{plan.hardware.num_devices} × {plan.hardware.device}", plan.hardware.source)
    console.print(table, highlight=False)
