"""What laws say about a plan: its loss, other sizes, other laws, and where they are stretched."""

import math
from dataclasses import dataclass, replace

from configs.mlp_config import MoEConfig
from configs.model_config import ModelConfig
from configs.objective_config import ExampleLengths
from planner.accounting import (
    active_params,
    matmul_params,
    matmul_params_per_place,
    non_embedding_params,
    total_params,
)
from planner.fitted_law import FittedLaw
from planner.law import Law, Optimum, ParamsKind
from planner.laws import BESIROGLU, LAWS, TWENTY_TO_ONE

LAWFUL_OBJECTIVES = ("causal_lm",)  # what the published laws were fitted on


@dataclass(frozen=True, kw_only=True)
class LossPrediction:
    """Nats per token at the end of training, or why there is none.

    value None with an interval: the law is too loose for a point. law: whose loss it is.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    law: str | None = None
    note: str


@dataclass(frozen=True, kw_only=True)
class LawAnswer:
    """What one law would do with the same compute, in its own definition of N.

    stretch: 1 where the law was fitted, 10 for ten times above, .1 for ten times below.
    """

    name: str
    params: float
    params_kind: ParamsKind
    tokens: float
    tokens_per_param: float
    loss: float | None
    in_range: bool
    stretch: float
    note: str


@dataclass(frozen=True, kw_only=True)
class OtherSize:
    """A model of another size at the same compute: loss and how much worse it is (a share)."""

    factor: float
    params: float
    tokens: float
    loss: float
    change: float


def params_by_law(kind: ParamsKind, model: ModelConfig, lengths: ExampleLengths) -> int:
    """N of a model as a law counts it.

    Of a mixture's experts those count that a token is sent to, whatever the kind. matmul: what a
    place meets, so that 6·N·D are the FLOPs without scores; in an encoder-decoder, where a place
    meets the weights of one side, the mean over the places of both.
    """
    match kind:
        case "total":
            return active_params(model)
        case "non-embedding":
            return active_params(model) - (total_params(model) - non_embedding_params(model))
        case "matmul" if model.architecture == "encoder_decoder":
            return round(matmul_params_per_place(model, lengths))
        case "matmul":
            return matmul_params(model)


def is_borrowed(model: ModelConfig, objective: str) -> bool:
    """Whether published laws, all of dense causal language models, say nothing about a model."""
    return objective not in LAWFUL_OBJECTIVES or isinstance(model.mlp, MoEConfig)


def loss_law(law: Law, flops: float) -> Law | None:
    """The law whose loss is shown: the plan's own, else besiroglu where some law applies at all."""
    optimum = law.frontier(flops)
    if law.loss(optimum.params, optimum.tokens) is not None:
        return law
    return None if law is TWENTY_TO_ONE else BESIROGLU


def predict_loss(
    law: Law,
    flops: float,
    model: ModelConfig,
    lengths: ExampleLengths,
    tokens: float,
    objective: str,
) -> LossPrediction:
    """The loss of a shape after so many tokens, with an interval and what to think of it.

    A fitted law's interval holds 90% of single runs. Published losses are of another text and
    tokenizer: their interval is the spread between the laws that predict one.
    """
    if isinstance(law, FittedLaw):
        params = params_by_law(law.params_kind, model, lengths)
        low, high = law.loss_interval(params, tokens) or (None, None)
        if law.reasons:
            note = f"interval only, the fit does not identify the law: {law.reasons[0]}"
            return LossPrediction(low=low, high=high, law=law.name, note=note)
        note = f"90% interval; {law.range_note(flops)}"
        return LossPrediction(
            value=law.loss(params, tokens), low=low, high=high, law=law.name, note=note
        )
    if objective not in LAWFUL_OBJECTIVES:
        return LossPrediction(note=f"unfitted: no law is published for {objective}")
    if is_borrowed(model, objective):
        return LossPrediction(note="unfitted: the laws here are of dense models, this is a mixture")
    used = loss_law(law, flops)
    if used is None:
        return LossPrediction(note="unfitted: no law was fitted on this data at this size")
    losses = {
        one.name: one.loss(params_by_law(one.params_kind, model, lengths), tokens)
        for one in {used.name: used, **LAWS}.values()
    }
    known = [loss for loss in losses.values() if loss is not None]
    note = "spread of the published laws, each for its own text and tokenizer: fit yours"
    return LossPrediction(
        value=losses[used.name], low=min(known), high=max(known), law=used.name, note=note
    )


def side_by_side(law: Law, flops: float, *, model: ModelConfig, objective: str) -> list[LawAnswer]:
    """Every law's answer for C, the plan's own first; published losses only where they apply."""
    answers, is_foreign = [], is_borrowed(model, objective)
    for one in {law.name: law, **LAWS, law.name: law}.values():
        optimum = one.frontier(flops)
        answers.append(
            LawAnswer(
                name=one.name,
                params=optimum.params,
                params_kind=one.params_kind,
                tokens=optimum.tokens,
                tokens_per_param=optimum.ratio,
                loss=None
                if is_foreign and not isinstance(one, FittedLaw)
                else one.loss(optimum.params, optimum.tokens),
                in_range=one.covers(flops),
                stretch=one.stretch(flops),
                note=one.range_note(flops),
            )
        )
    return answers


def other_sizes(
    law: Law, flops: float, optimum: Optimum, *, model: ModelConfig, objective: str
) -> list[OtherSize]:
    """Half and double the size at the compute of `optimum`; empty where no law predicts a loss."""
    used = loss_law(law, flops)
    if used is None or (is_borrowed(model, objective) and not isinstance(used, FittedLaw)):
        return []
    base = used.loss(optimum.params, optimum.tokens)
    assert base is not None
    others = []
    for factor in (0.5, 2.0):
        moved = replace(optimum, params=factor * optimum.params, tokens=optimum.tokens / factor)
        loss = used.loss(moved.params, moved.tokens)
        assert loss is not None
        others.append(
            OtherSize(
                factor=factor,
                params=moved.params,
                tokens=moved.tokens,
                loss=loss,
                change=loss / base - 1,
            )
        )
    return others


def warnings_about(
    law: Law,
    flops: float,
    optimum: Optimum,
    model: ModelConfig,
    lengths: ExampleLengths,
    objective: str,
    epochs: float | None,
) -> list[str]:
    """What a reader of the plan should not overlook, each with its numbers."""
    warnings = []
    if is_borrowed(model, objective) and not isinstance(law, FittedLaw):
        trained = objective if objective not in LAWFUL_OBJECTIVES else "a mixture of experts"
        warnings.append(
            f"{law.name}'s {optimum.ratio:.1f} tokens a parameter are borrowed from dense causal "
            f"language models: no law is published for {trained}, sweep and fit to know"
        )
    elif law is TWENTY_TO_ONE:
        smallest = min(one.min_flops for one in LAWS.values() if one.min_flops > 1e15)
        if flops < smallest:
            warnings.append(
                f"{flops:.3g} FLOPs is {smallest / flops:,.3g} times below the smallest run of any "
                f"published law here ({smallest:.3g}): 20 tokens a parameter is a rule of thumb, "
                "sweep and fit to know"
            )
    elif not law.covers(flops):
        warnings.append(f"{law.name} {law.range_note(flops)}")
    if isinstance(law, FittedLaw):
        warnings += [f"{law.name}: {reason}" for reason in law.reasons]
    shape = params_by_law(law.params_kind, model, lengths)
    if abs(math.log(shape / optimum.params)) > math.log(1.1):
        warnings.append(
            f"the shape has {shape / optimum.params:.2f} times the parameters the law asks for "
            f"({shape:,} and {optimum.params:,.0f}, {law.params_kind})"
        )
    embedding = 1 - non_embedding_params(model) / total_params(model)
    if embedding > 0.3:
        warnings.append(
            f"token table and head are {embedding:.0%} of the parameters: laws that count them and "
            "laws that do not disagree here"
        )
    if epochs is not None and epochs > 4:
        warnings.append(
            f"{epochs:.1f} epochs: beyond 4 repeated tokens are worth clearly less "
            "than new ones, beyond 16 next to nothing (Muennighoff et al. 2023)"
        )
    return warnings
