"""Budget -> Plan -> RunConfig."""

import math
from dataclasses import replace

from configs.data_config import DataConfig
from configs.errors import InputError, require
from configs.mlp_config import MoEConfig
from configs.model_config import ModelConfig
from configs.objective_config import ExampleLengths
from configs.position_config import LearnedPositionConfig, PositionConfig
from configs.schema import MeshConfig, RunConfig
from planner.accounting import total_params, training_flops_per_token
from planner.allocation import (
    COMPUTE_BUDGETS,
    allocate,
    assumed_flops,
    optimum_rule_for,
    require_enough_tokens,
)
from planner.budget import NO_CONSTRAINTS, Budget, Constraints
from planner.hardware import Hardware
from planner.hyperparameters import Rule, batch_tokens_for, optimizer_for
from planner.law import Law, Optimum
from planner.laws import BESIROGLU, TWENTY_TO_ONE
from planner.layout import fit_in_memory
from planner.on_hardware import known_topology
from planner.outlook import params_by_law
from planner.promise import Plan, tokens_per_row
from planner.rows import batch_rows
from planner.shapes import ACCELERATOR_TILE, CPU_TILE, mlp_ratio, shape_for, vocabulary_for
from planner.topology import Topology

__all__ = ["Plan", "make_plan", "seq_len_for", "shape_text", "sweep_sizes"]

_UNTIED_FROM = 1e9  # smaller models cannot afford a second table (Llama 3.2 1B ties, 8B does not)
_EVALUATIONS = 5  # during a run, and as many saves


def make_plan(
    budget: Budget,
    *,
    template: RunConfig,
    hardware: Hardware,
    law: Law | None = None,
    constraints: Constraints = NO_CONSTRAINTS,
    params: float | None = None,
    reserved_seconds: float = 0.0,
    topology: Topology | None = None,
) -> Plan:
    """Turns a budget into a plan.

    Time: (seconds − reserved) × the hardware's FLOP/s is the compute C; the law gives N and D for
    C. Cost: the time that the price leaves. FLOPs: C itself. Parameters or tokens: the other one
    follows at the law's ratio. N becomes a shape; the steps are what C, or D, comes to in that
    shape's own FLOPs.

    With two sides tokens are the places of both, and the matmul kind of N is the mean a place
    meets, so that C = 6·N·D stays true of all but scores.

    Args:
      template: what is no size is taken from it (architecture, objective, seeds, norms, ties).
      law: None takes chinchilla-1 in its range and above, 20 tokens a parameter below; and 20
        tokens everywhere for encoders and encoder-decoders, for which no law is published.
      constraints: what else has to hold; what it leaves open is chosen by the model's size.
      params: matmul parameters that a place is to meet, whatever the law asks for (a sweep's size);
        the budget then decides the tokens.
      topology: how the hardware's devices are joined; None: as that many chips usually are.

    Raises:
      InputError: the budget is too small for any model, too large for the memory or the data, or
        contradicts the constraints.
    """
    flops = _compute(budget, hardware, reserved_seconds)
    if law is None and template.model.architecture != "decoder_only":
        law = TWENTY_TO_ONE
    allocation = allocate(budget, flops, law, constraints)
    law, optimum, optimum_rule = allocation.law, allocation.optimum, allocation.rule
    if params is not None:
        optimum = Optimum(params=params, tokens=optimum.flops / (6 * params))
    length_rule = constraints.seq_len_rule if constraints.seq_len else "rule of thumb by size"
    seq_len = constraints.seq_len or seq_len_for(optimum.params, template.model.position)
    lengths = template.objective.lengths(seq_len)
    vocab_rule = "of the tokenizer given" if constraints.vocab_size else "rule of thumb by size"
    vocab_size = constraints.vocab_size or vocabulary_for(
        optimum.params, len(template.objective.symbols(seq_len))
    )

    def count(model: ModelConfig) -> int:
        if budget.kind == "params" and params is None:
            return total_params(model)
        return params_by_law("matmul" if params is not None else law.params_kind, model, lengths)

    model = shape_for(
        optimum.params,
        template=_without_sizes(template.model, hardware, optimum, lengths),
        vocab_size=vocab_size,
        tile=ACCELERATOR_TILE if hardware.is_accelerator else CPU_TILE,
        count=count,
        at_most=constraints.max_params,
    )
    if budget.kind == "params" and _is_shared_out(model):
        params_met = params_by_law(law.params_kind, model, lengths)
        optimum = Optimum(params=params_met, tokens=optimum.ratio * params_met)
        flops = optimum.flops
        met = f"of {budget.value:.4g} parameters a token meets N"
        optimum_rule = optimum_rule_for(f"{optimum_rule.rule}; {met}", optimum)
    batch_tokens, batch_rule = batch_tokens_for(optimum.flops, _loss_for_batch(law, optimum))
    rows = batch_rows(batch_tokens / lengths.places, model, lengths, hardware)
    batch_size = rows.number
    if rows.rule:
        batch_rule = f"{batch_rule}; {rows.rule}"
    step_tokens = batch_size * lengths.places
    per_step = training_flops_per_token(model, lengths).total * step_tokens
    if budget.kind in COMPUTE_BUDGETS:
        num_steps = round(flops / per_step)
    else:
        num_steps = math.ceil(optimum.tokens / step_tokens)
    if num_steps < 2:
        raise InputError(
            f"budget: got {budget.value:g} {budget.unit}, which is {num_steps} optimizer steps; "
            f"expected enough for at least 2"
        )
    require_enough_tokens(num_steps * batch_size * tokens_per_row(lengths), constraints)
    optimizer, optimizer_rules = optimizer_for(
        template.optimizer, optimum.flops, num_steps, norm_placement=model.norm_placement
    )
    interval = max(1, math.ceil(num_steps / _EVALUATIONS))
    config = replace(
        template,
        model=model,
        data=DataConfig(corpus=template.data.corpus, seq_len=seq_len, seed=template.data.seed),
        optimizer=optimizer,
        mesh=MeshConfig(rules=template.mesh.rules),
        training=replace(
            template.training,
            num_steps=num_steps,
            batch_size=batch_size,
            num_microbatches=1,
            batch_warmup=(),
            batch_warmup_steps=(),
            eval_every=interval,
            checkpoint_every=interval,
        ),
    )
    config, layout_rules = fit_in_memory(
        config, hardware, topology=topology or known_topology(hardware), rows=rows
    )
    rules = [
        optimum_rule,
        Rule(field="model", value=shape_text(model), rule=_shape_rule(model, constraints)),
        Rule(field="model.vocab_size", value=vocab_size, rule=vocab_rule),
        Rule(field="data.seq_len", value=seq_len, rule=length_rule),
        Rule(field="training.batch_size", value=batch_size, rule=batch_rule),
        Rule(
            field="training.num_steps",
            value=num_steps,
            rule=f"{budget.kind} budget over this shape's own FLOPs a step"
            if budget.kind in COMPUTE_BUDGETS
            else "the law's tokens over the batch",
        ),
        *optimizer_rules,
        *layout_rules,
    ]
    return Plan(
        budget=budget,
        constraints=constraints,
        flops=flops,
        law=law,
        optimum=optimum,
        config=config,
        rules=tuple(rules),
        hardware=hardware,
        reserved_seconds=reserved_seconds,
    )


def sweep_sizes(flops: float, number: int, spread: float) -> list[float]:
    """Matmul parameters for one budget of a sweep: 20 tokens a parameter in the middle.

    Args:
      flops: C of every run of this budget.
      number: how many sizes.
      spread: factor between neighbours.
    """
    middle = TWENTY_TO_ONE.frontier(flops).params
    return [middle * spread ** (i - (number - 1) / 2) for i in range(number)]


def _compute(budget: Budget, hardware: Hardware, reserved_seconds: float) -> float:
    """C of the budget, model FLOPs."""
    if budget.kind == "flops":
        return budget.value
    if budget.kind in ("params", "tokens"):
        return assumed_flops(budget)
    seconds = budget.value
    if budget.kind == "cost":
        price = hardware.price_per_chip_hour
        if price is None:
            raise InputError("price: got none, expected the price per chip-hour for --cost")
        seconds = 3600 * budget.value / (price * hardware.num_chips)
    require(
        seconds > reserved_seconds,
        f"budget ({budget.kind})",
        budget.value,
        f"more than the {reserved_seconds:.0f} s that evaluations and saves take",
    )
    return (seconds - reserved_seconds) * hardware.flops_per_second


def _is_shared_out(model: ModelConfig) -> bool:
    """Whether a token meets a part of the layers' weights only: one side's, or some experts'."""
    return model.architecture == "encoder_decoder" or isinstance(model.mlp, MoEConfig)


def _without_sizes(
    template: ModelConfig, hardware: Hardware, optimum: Optimum, lengths: ExampleLengths
) -> ModelConfig:
    """The template with what the hardware and the length of rows decide."""
    is_accelerator, is_decoder = hardware.is_accelerator, template.architecture == "decoder_only"
    position = template.position
    if isinstance(position, LearnedPositionConfig):
        longest = max(lengths.length, lengths.encoder_length)
        position = replace(position, num_positions=longest + position.offset)
    has_causal_side = template.architecture != "encoder_only"
    return replace(
        template,
        compute_dtype="bfloat16" if is_accelerator else "float32",
        scan_layers=is_accelerator,
        remat="none",
        tie_embeddings=optimum.params < _UNTIED_FROM if is_decoder else template.tie_embeddings,
        position=position,
        attention=replace(
            template.attention,
            causal_blocks=1
            if is_accelerator or not has_causal_side
            else causal_blocks(lengths.length),
        ),
    )


def causal_blocks(length: int) -> int:
    """How many blocks a CPU's reference attention takes a causal row in: each has 128 queries or
    more, 8 are enough (benchmarks/RESULTS.md)."""
    blocks = 2
    while blocks < 8 and length % (2 * blocks) == 0 and length // (2 * blocks) >= 128:
        blocks *= 2
    return blocks


def _loss_for_batch(law: Law, optimum: Optimum) -> float | None:
    """A loss to reckon the critical batch with; None where no law applies."""
    if law is TWENTY_TO_ONE:
        return None
    return law.loss(optimum.params, optimum.tokens) or BESIROGLU.loss(
        optimum.params, optimum.tokens
    )


def shape_text(model: ModelConfig) -> str:
    """'12 × 768', of an encoder-decoder '12 + 12 × 768': layers times width."""
    sides = f"{model.num_encoder_layers} + " if model.num_encoder_layers else ""
    return f"{sides}{model.num_layers} × {model.emb_dim}"


def _shape_rule(model: ModelConfig, constraints: Constraints) -> str:
    wide = "8/3" if mlp_ratio(model.mlp) < 4 else "4"
    rule = (
        f"closest count among well-proportioned shapes: width per layer "
        f"{model.emb_dim / model.num_layers:.0f}, heads of {model.attention.head_dim}, "
        f"MLP {wide} wide"
    )
    if constraints.max_params is None:
        return rule
    return f"{rule}, at most {constraints.max_params:,.0f} parameters"


def seq_len_for(params: float, position: PositionConfig) -> int:
    """Row length by model size: the context published models of that size were trained with.

    Small models that have to learn what positions mean get short rows: with 256 of them they stay
    near unigrams for most of a short run (benchmarks/RESULTS.md).
    """
    if isinstance(position, LearnedPositionConfig) and params < 1e7:
        return 64
    for below, seq_len in ((1e7, 256), (5e7, 512), (3e8, 1024), (3e9, 2048)):
        if params < below:
            return seq_len
    return 4096
