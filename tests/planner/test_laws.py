"""The published rows come out, frontiers are optimal, and every law states its own units."""

import json
import math
from dataclasses import replace

import pytest

from configs.errors import InputError
from planner.allocation import inference_aware, tokens_for_same_loss
from planner.fitted_law import FittedLaw
from planner.law import PARAMS_MEANING, minimize
from planner.laws import (
    BESIROGLU,
    CHINCHILLA_1,
    CHINCHILLA_3,
    DEEPSEEK,
    GADRE,
    KAPLAN,
    LAWS,
    LLAMA_3,
    MUENNIGHOFF,
    TWENTY_TO_ONE,
    default_law,
    law_named,
)

PREDICTING = [law for law in LAWS.values() if law.loss(1e9, 2e10) is not None]


@pytest.mark.parametrize(
    ("flops", "params", "tokens"),
    [
        (1.21e20, 1e9, 20.2e9),
        (5.76e23, 67e9, 5.76e23 / (6 * 67e9)),  # the paper prints 1.5T, rounded
    ],
)
def test_chinchilla_approach_1_reproduces_published_rows(flops, params, tokens):
    optimum = CHINCHILLA_1.frontier(flops)
    assert optimum.params == pytest.approx(params, rel=0.02)
    assert optimum.tokens == pytest.approx(tokens, rel=0.02)


@pytest.mark.parametrize("flops", [1e12, 3e15, 1e21])
def test_twenty_tokens_a_parameter_spend_exactly_the_budget(flops):
    optimum = TWENTY_TO_ONE.frontier(flops)
    assert optimum.ratio == pytest.approx(20)
    assert optimum.flops == pytest.approx(flops)


def test_default_law_is_chinchilla_only_from_its_range_upward():
    assert default_law(5.9e18) is TWENTY_TO_ONE
    assert default_law(6.1e18) is CHINCHILLA_1
    assert not CHINCHILLA_1.covers(1e23)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("flops", [1e18, 1e21, 1e24])
def test_every_law_counts_in_parameters_tokens_and_flops(law, flops):
    """C = 6·N·D within what rounded exponents allow: N in parameters, D in tokens, C in FLOPs."""
    optimum = law.frontier(flops)
    assert optimum.flops == pytest.approx(flops, rel=0.03)
    assert 0.1 < optimum.ratio < 200
    assert law.params_kind in PARAMS_MEANING and "arXiv" in law.source
    loss = law.loss(optimum.params, optimum.tokens)
    assert loss is None or 1.5 < loss < 4.5  # nats, not bits: bits would be above 4.5 at 1e18
    assert law_named(law.name) is law


@pytest.mark.parametrize("law", [CHINCHILLA_3, BESIROGLU], ids=lambda law: law.name)
@pytest.mark.parametrize("flops", [1e15, 1e21, 1e26])
def test_parametric_frontier_solves_its_optimality_condition(law, flops):
    """On C = 6·N·D the gain of more parameters equals the gain of more tokens."""
    optimum = law.frontier(flops)
    gain_of_params = law.alpha * law.A * optimum.params**-law.alpha
    gain_of_tokens = law.beta * law.B * optimum.tokens**-law.beta
    assert gain_of_params == pytest.approx(gain_of_tokens, rel=1e-6)
    assert optimum.flops == pytest.approx(flops, rel=1e-12)


def test_other_frontiers_are_where_their_loss_is_least():
    for law in (GADRE, MUENNIGHOFF, replace(MUENNIGHOFF, unique_tokens=1e9)):
        best = minimize(lambda n, law=law: law.loss(n, 1e21 / (6 * n)))
        assert law.frontier(1e21).params == pytest.approx(best, rel=1e-3)


def test_unrounded_and_printed_chinchilla_3_differ_by_a_fifth():
    printed = replace(CHINCHILLA_3, E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
    ratio = printed.frontier(5.76e23).params / CHINCHILLA_3.frontier(5.76e23).params
    assert abs(math.log(ratio)) > math.log(1.15)


def test_known_points():
    assert KAPLAN.frontier(8.64e19).params == pytest.approx(1.3e9)  # one petaflop/s-day
    assert LLAMA_3.frontier(3.8e25).tokens == pytest.approx(16.55e12)
    assert LLAMA_3.frontier(3.8e25).params == pytest.approx(402e9, rel=0.06)
    assert DEEPSEEK.frontier(1e20).params == pytest.approx(0.1715 * 1e20**0.5243 / 6)
    assert BESIROGLU.frontier(5.76e23).params == pytest.approx(70e9, rel=0.05)


def test_four_epochs_are_nearly_free_and_sixteen_are_not():
    law = replace(MUENNIGHOFF, unique_tokens=1e9)
    assert law.effective_tokens(1e9) == pytest.approx(1e9)
    assert law.effective_tokens(4e9) > 3.6e9
    assert law.effective_tokens(40e9) < 16.4e9  # U·(1 + R_D*) is all there is
    assert MUENNIGHOFF.effective_tokens(40e9) == 40e9
    assert MUENNIGHOFF.effective_params(1e9) == 1e9
    free, tight = MUENNIGHOFF.frontier(1e21), law.frontier(1e21)
    assert tight.params != pytest.approx(free.params, rel=0.1)
    assert law.loss(tight.params, tight.tokens) > MUENNIGHOFF.loss(free.params, free.tokens)


@pytest.mark.parametrize("law", PREDICTING, ids=lambda law: law.name)
def test_loss_falls_with_parameters_and_with_tokens(law):
    assert law.loss(2e9, 2e10) < law.loss(1e9, 2e10)
    assert law.loss(1e9, 4e10) < law.loss(1e9, 2e10)


def test_inference_makes_the_model_smaller_at_the_same_loss():
    compute_optimal = BESIROGLU.frontier(1e22)
    loss = BESIROGLU.loss(compute_optimal.params, compute_optimal.tokens)
    none, some, much = (inference_aware(BESIROGLU, 1e22, tokens) for tokens in (0, 1e11, 1e13))
    assert none.params == pytest.approx(compute_optimal.params, rel=1e-3)
    assert much.params < some.params < none.params
    for answer, demand in ((some, 1e11), (much, 1e13)):
        assert BESIROGLU.loss(answer.params, answer.tokens) == pytest.approx(loss, rel=1e-9)

        def lifetime(params, demand=demand):
            return 6 * params * tokens_for_same_loss(BESIROGLU, params, loss) + 2 * params * demand

        least = lifetime(answer.params)
        assert least < lifetime(1.05 * answer.params) and least < lifetime(answer.params / 1.05)
    with pytest.raises(InputError, match="^inference_tokens.*besiroglu"):
        inference_aware(CHINCHILLA_1, 1e22, 1e12)


def law_json() -> dict:
    return {
        "schema_version": 1,
        "source": "a sweep",
        "params_kind": "matmul",
        "flops_meaning": "model FLOPs",
        "flops_per_param_token": 7.0,
        "range": {"min_flops": 1e12, "max_flops": 1e13},
        "parametric": {"E": 1.5, "A": 60.0, "B": 300.0, "alpha": 0.3, "beta": 0.4},
        "goodness": {"rms_relative_residual": 0.01},
        "samples": [[1.5, 60.0 + i, 300.0, 0.3, 0.4] for i in range(-20, 21)],
        "reasons": [],
    }


def test_a_fitted_law_is_read_and_carries_its_uncertainty(tmp_path):
    path = tmp_path / "law.json"
    path.write_text(json.dumps(law_json()))
    law = law_named(f"fitted:{path}")
    assert isinstance(law, FittedLaw) and law.params_kind == "matmul"
    optimum = law.frontier(1e13)
    assert optimum.flops == pytest.approx(1e13)
    assert 7 * optimum.params * optimum.tokens == pytest.approx(1e13)
    interval = law.loss_interval(1e5, 1e7)
    assert interval is not None
    low, high = interval
    assert low < law.loss(1e5, 1e7) < high
    assert high - low > 2 * 1.6 * 0.01 * law.loss(1e5, 1e7)  # a single run scatters too
    interval = law.params_interval(1e13)
    assert interval is not None
    low, high = interval
    assert low < optimum.params < high


@pytest.mark.parametrize(
    "change",
    [
        {"parametric": {"E": 1.5, "A": 60.0, "B": 300.0, "alpha": 0.3}},
        {"parametric": {"E": 1.5, "A": 60.0, "B": 300.0, "alpha": -0.3, "beta": 0.4}},
        {"params_kind": "all"},
        {"samples": [["x"] * 5]},
        {"range": None},
    ],
)
def test_what_is_no_law_is_refused(tmp_path, change):
    path = tmp_path / "law.json"
    path.write_text(json.dumps(law_json() | change))
    with pytest.raises(InputError, match="^law"):
        law_named(f"fitted:{path}")


@pytest.mark.parametrize("name", ["chinchila-1", "", "fitted:", "fitted:/nowhere/law.json"])
def test_unknown_laws_are_refused(name):
    with pytest.raises(InputError, match="^law"):
        law_named(name)
