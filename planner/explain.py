"""The plan's arithmetic, line by line, for a person who is learning it."""

from dataclasses import asdict

from configs.mlp_config import GATED, MoEConfig
from planner.accounting import (
    active_params,
    total_params,
    training_flops_per_token,
)
from planner.allocation import COMPUTE_BUDGETS
from planner.law_forms import ParametricLaw
from planner.on_hardware import needed_bytes
from planner.promise import Plan

_MEMORY_PARTS = {
    "params": "parameters",
    "optimizer": "the optimizer's moments",
    "gradients": "gradients",
    "activations": "what the layers keep for the backward pass",
    "layer": "what one layer's backward pass adds",
    "logits": "logits",
    "update": "what the update adds",
}


def explain(plan: Plan) -> list[str]:
    """Paragraphs of plain text, from the budget to the seconds, with every number put in."""
    return [
        _budget(plan),
        _law(plan),
        _shape(plan),
        _flops(plan),
        _steps(plan),
        _rules(plan),
        _memory(plan),
        _time(plan),
        *(f"Beware: {warning}." for warning in plan.warnings()),
    ]


def _budget(plan: Plan) -> str:
    budget, hardware = plan.budget, plan.hardware
    match budget.kind:
        case "time":
            return (
                f"1. Compute. {budget.value:,.0f} s, less {plan.reserved_seconds:,.0f} s for "
                f"evaluations and saves, at {hardware.flops_per_second:.4g} FLOP/s "
                f"({hardware.source}) are C = {plan.flops:.4g} FLOPs."
            )
        case "cost":
            price = hardware.price_per_chip_hour
            return (
                f"1. Compute. {budget.value:,.2f} at {price} a chip-hour on {hardware.num_chips} "
                f"chips, at {hardware.flops_per_second:.4g} FLOP/s ({hardware.source}), are "
                f"C = {plan.flops:.4g} FLOPs."
            )
        case "flops":
            return f"1. Compute. C = {plan.flops:.4g} FLOPs, as given."
        case _:
            return (
                f"1. Compute. {budget.value:,.0f} {budget.unit} are given. With 20 tokens a "
                f"parameter training takes C = 6·N·D = {plan.flops:.4g} FLOPs: it decides which "
                "law applies."
            )


def _law(plan: Plan) -> str:
    law, optimum = plan.law, plan.optimum
    text = f"2. Law. {law.name} ({law.source}; N is {law.convention}; C is {law.flops_meaning}). "
    if isinstance(law, ParametricLaw) and plan.budget.kind in COMPUTE_BUDGETS:
        both = law.alpha + law.beta
        text += (
            f"It says L(N, D) = {law.E:.4g} + {law.A:.4g}/N^{law.alpha:.4g} + "
            f"{law.B:.4g}/D^{law.beta:.4g}; on C = {law.flops_per_param_token:.3g}·N·D the loss is "
            f"least for N ∝ C^{law.beta / both:.3f} and D ∝ C^{law.alpha / both:.3f}. "
        )
    rule = next(rule for rule in plan.rules if rule.field == "optimum")
    return text + (
        f"{rule.rule}: N = {optimum.params:,.0f} parameters and D = {optimum.tokens:,.0f} tokens, "
        f"{optimum.ratio:.1f} a parameter; {optimum.flops_per_param_token:.3g}·N·D = "
        f"{optimum.flops:.4g} FLOPs. Range: {law.range_note(plan.flops)}."
    )


def _shape(plan: Plan) -> str:
    m = plan.config.model
    a, D = m.attention, m.emb_dim
    attention = f"{D}·{a.head_dim}·(2·{a.num_heads} + 2·{a.num_kv_heads}) for attention"
    if m.num_encoder_layers:
        attention += " (twice in the decoder, which also attends to the encoder)"
    is_mixture = isinstance(m.mlp, MoEConfig)
    matrices = 3 if is_mixture or isinstance(m.mlp, GATED) else 2
    mlp = f"{matrices}·{D}·{m.mlp.mlp_dim} for the MLP"
    if isinstance(m.mlp, MoEConfig):
        mlp = f"{m.mlp.num_experts} experts of {matrices}·{D}·{m.mlp.mlp_dim}"
    tables = "one table, which is the head too" if m.tie_embeddings else "a table and a head"
    depth = f"{m.num_layers} layers"
    if m.num_encoder_layers:
        depth = f"{m.num_encoder_layers} encoder and {m.num_layers} decoder layers"
    active = f", {active_params(m):,} of them for any one token" if is_mixture else ""
    return (
        f"3. Shape. {depth} of width {D}: {attention} and {mlp} each, and {tables}, of "
        f"{m.vocab_size:,}·{D}. Together {total_params(m):,} parameters{active}; counted as "
        f"{plan.law.name} counts them, {plan.params_by_law:,} where it asked for "
        f"{plan.optimum.params:,.0f}."
    )


def _flops(plan: Plan) -> str:
    m, lengths = plan.config.model, plan.config.lengths
    flops = training_flops_per_token(m, lengths)
    pairs = {
        "decoder_only": "half of the square, causal",
        "encoder_only": "the whole square",
        "encoder_decoder": "half of the square in the decoder, all pairs elsewhere",
    }
    parts = [
        ("attention's projections", flops.attention_projections),
        (f"attention's scores ({pairs[m.architecture]})", flops.attention_scores),
        ("the MLPs", flops.mlp),
        ("the head", flops.head),
    ]
    shares = ", ".join(f"{name} {part / flops.total:.0%}" for name, part in parts)
    if m.architecture == "decoder_only" and not m.attention.window:
        scores = f"6·L·H·C·T for the scores over rows of {lengths.length}"
    elif lengths.encoder_length:
        scores = (
            f"12·H·C for each pair of a query and a key over rows of {lengths.encoder_length} in "
            f"the encoder and {lengths.length} in the decoder"
        )
    else:
        scores = f"12·H·C for each pair of a query and a key over rows of {lengths.length}"
    met = "parameter in a matrix product"
    if lengths.encoder_length:
        met += " that a place meets, on average over both sides"
    return (
        f"4. FLOPs a token. 6 for each {met} (2 forward, 4 backward) and {scores}: "
        f"{flops.total:,.0f}. Of it: {shares}."
    )


def _steps(plan: Plan) -> str:
    t, c = plan.config.training, plan.config
    lengths = c.lengths
    row = f"{lengths.length}"
    if lengths.encoder_length:
        row = f"{lengths.encoder_length} + {lengths.length}"
    text = (
        f"5. Steps. {t.batch_size} rows of {row} are {c.batch_tokens:,} tokens a step; "
        f"{t.num_steps:,} steps read {plan.tokens:,} tokens, "
        f"{plan.tokens / plan.params_by_law:.1f} for each parameter of the shape."
    )
    if plan.tokens_read == plan.tokens:
        return text
    return f"{text} They are made of {plan.tokens_read:,} tokens of the corpus."


def _rules(plan: Plan) -> str:
    lines = [
        f"   {rule.field} = {rule.value}: {rule.rule}"
        for rule in plan.rules
        if rule.field != "optimum"
    ]
    return "\n".join(["6. Where the other numbers are from.", *lines])


def _memory(plan: Plan) -> str:
    memory = needed_bytes(plan.config, plan.hardware)
    parts = asdict(memory)
    held = ", ".join(
        f"{_MEMORY_PARTS[name]} {size / 1e9:.3g}" for name, size in parts.items() if name != "total"
    )
    return (
        f"7. Memory of a device, in GB: {held}. Not all at once: the fullest moment, of loss, "
        f"backward pass and update, holds {memory.total / 1e9:.3g} of "
        f"{plan.hardware.memory_bytes / 1e9:.3g}."
    )


def _time(plan: Plan) -> str:
    flops = plan.step_seconds * plan.hardware.flops_per_second
    cost = "" if plan.cost is None else f", which cost {plan.cost:,.2f}"
    loss = plan.loss
    outcome = f"No loss is promised ({loss.note})."
    if loss.value is not None:
        outcome = f"Loss {loss.value:.4g} nats per token by {loss.law} ({loss.note})."
    elif loss.low is not None and loss.high is not None:
        outcome = f"Loss {loss.low:.4g} to {loss.high:.4g} nats per token ({loss.note})."
    return (
        f"8. Time. A step's {flops:.4g} FLOPs at {plan.hardware.flops_per_second:.4g} FLOP/s take "
        f"{plan.step_seconds:.3g} s; all steps, evaluations and saves {plan.train_seconds:,.0f} s, "
        f"{plan.chip_hours:,.4g} chip-hours{cost}. {outcome}"
    )
