"""The published rows come out, and the rule of thumb obeys itself."""

import pytest

from planner.laws import CHINCHILLA_1, TWENTY_TO_ONE, default_law


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
    assert optimum.tokens / optimum.params == pytest.approx(20)
    assert optimum.flops == pytest.approx(flops)


def test_default_law_is_chinchilla_only_from_its_range_upward():
    assert default_law(5.9e18) is TWENTY_TO_ONE
    assert default_law(6.1e18) is CHINCHILLA_1
    assert not CHINCHILLA_1.covers(1e23)
