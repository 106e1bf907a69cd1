"""Constraints move N and D the way they should, and contradictions are refused by name."""

import pytest

from configs.errors import InputError
from configs.presets import PRESETS
from planner.accounting import total_params
from planner.allocation import allocate
from planner.budget import Budget, Constraints
from planner.explain import explain
from planner.hardware import parse_chips
from planner.law_forms import MuennighoffLaw
from planner.laws import BESIROGLU, CHINCHILLA_1, KAPLAN, LAWS
from planner.plan import make_plan

FLOPS = Budget(kind="flops", value=1e21)
TEMPLATE = PRESETS["decoder_only"]()
CHIPS = parse_chips("h100:8")


def plan_of(budget, **options):
    return make_plan(budget, template=TEMPLATE, hardware=CHIPS, **options)


def test_scarce_tokens_bring_in_the_data_constrained_law():
    plenty = allocate(FLOPS, 1e21, None, Constraints(unique_tokens=1e12))
    assert plenty.law is CHINCHILLA_1
    scarce = allocate(FLOPS, 1e21, None, Constraints(unique_tokens=5e9, max_epochs=100))
    assert isinstance(scarce.law, MuennighoffLaw) and scarce.law.unique_tokens == 5e9
    assert "muennighoff" in scarce.rule.rule
    named = allocate(FLOPS, 1e21, BESIROGLU, Constraints(unique_tokens=5e9))
    assert named.law is BESIROGLU  # a law the user named stays


def test_more_tokens_than_exist_need_permission_to_repeat():
    with pytest.raises(InputError, match=r"^unique_tokens: got 5e\+09.*--max-epochs") as refused:
        plan_of(FLOPS, constraints=Constraints(unique_tokens=5e9))
    epochs = float(str(refused.value).split("--max-epochs ")[1].split(",")[0])
    plan = plan_of(FLOPS, constraints=Constraints(unique_tokens=5e9, max_epochs=epochs))
    assert plan.to_json()["data"]["epochs"] <= epochs + 0.01
    assert any("epochs" in warning for warning in plan.warnings())
    with pytest.raises(InputError, match="^unique_tokens"):
        plan_of(Budget(kind="tokens", value=1e10), constraints=Constraints(unique_tokens=5e9))


def test_inference_buys_a_smaller_model_for_the_same_training():
    plain = allocate(FLOPS, 1e21, BESIROGLU, Constraints())
    served = allocate(FLOPS, 1e21, BESIROGLU, Constraints(inference_tokens=1e13))
    assert served.optimum.params < 0.8 * plain.optimum.params
    assert served.optimum.flops == pytest.approx(1e21, rel=1e-3)
    with pytest.raises(InputError, match="^inference_tokens"):
        budget = Budget(kind="params", value=7e9)
        allocate(budget, 1e21, BESIROGLU, Constraints(inference_tokens=1e13))


def test_a_ceiling_on_parameters_leaves_the_compute_to_tokens():
    free, capped = plan_of(FLOPS), plan_of(FLOPS, constraints=Constraints(max_params=1e9))
    assert total_params(capped.config.model) <= 1e9 < total_params(free.config.model)
    assert capped.tokens > free.tokens
    flops = [plan.to_json()["predicted"]["flops"] for plan in (free, capped)]
    assert flops == pytest.approx([1e21, 1e21], rel=0.02)
    with pytest.raises(InputError, match="^max_params"):
        plan_of(FLOPS, constraints=Constraints(max_params=1000))


def test_hours_and_money_are_the_same_compute():
    hours = plan_of(Budget(kind="time", value=3600.0 * 10))
    priced = parse_chips("h100:8")
    priced = type(priced)(**{**vars(priced), "price_per_chip_hour": 2.5})
    money = make_plan(Budget(kind="cost", value=200.0), template=TEMPLATE, hardware=priced)
    assert money.flops == pytest.approx(hours.flops)
    assert money.cost == pytest.approx(200.0, rel=0.02)
    assert money.chip_hours == pytest.approx(80.0, rel=0.02)
    with pytest.raises(InputError, match="^price"):
        plan_of(Budget(kind="cost", value=200.0))


@pytest.mark.parametrize(
    "text", ["v9:8", "v5p", "v5p:0", "v5p:-1", "v5p:1.5", ":8", "h100:eight", ""]
)
def test_unknown_chips_are_refused(text):
    with pytest.raises(InputError, match="^chips: got"):
        parse_chips(text)


@pytest.mark.parametrize("mfu", [0.0, -0.1, 1.01, float("nan")])
def test_mfu_is_a_share(mfu):
    with pytest.raises(InputError, match="^mfu: got"):
        parse_chips("v5p:8", mfu)


def test_chips_are_chips_and_devices_are_devices():
    pod = parse_chips("v5p:256", 0.5)
    assert "v5p-512" in pod.device
    assert pod.num_devices == pod.num_chips == 256
    assert pod.flops_per_second == pytest.approx(256 * 459e12 / 2)
    ironwood = parse_chips("v7x:4")
    assert (ironwood.num_devices, ironwood.num_chips) == (8, 4)
    assert ironwood.peak_flops_per_second == pytest.approx(4 * 2307e12)


def test_every_law_stands_beside_the_others():
    record = plan_of(FLOPS, law=BESIROGLU).to_json()
    assert [answer["name"] for answer in record["laws"]][0] == "besiroglu"
    assert {answer["name"] for answer in record["laws"]} == set(LAWS)
    kaplan = next(answer for answer in record["laws"] if answer["name"] == "kaplan")
    assert kaplan["params"] == KAPLAN.frontier(1e21).params and not kaplan["in_range"]
    half, double = record["other_sizes"]
    assert half["factor"] == 0.5 and half["change"] > 0 and double["change"] > 0
    predicted = record["predicted"]
    assert predicted["loss_low"] <= predicted["loss"] <= predicted["loss_high"]


def test_below_every_law_no_loss_is_promised():
    record = plan_of(Budget(kind="flops", value=1e14)).to_json()
    assert record["law"]["name"] == "20-to-1"
    assert record["predicted"]["loss"] is None and "unfitted" in record["predicted"]["loss_note"]
    assert record["other_sizes"] == []
    assert any("below" in warning for warning in record["warnings"])


@pytest.mark.parametrize(
    "budget",
    [FLOPS, Budget(kind="params", value=7e9), Budget(kind="time", value=36_000.0)],
    ids=lambda budget: budget.kind,
)
def test_the_explanation_puts_the_plans_numbers_in(budget):
    plan = plan_of(budget)
    text = "\n".join(explain(plan))
    for number in (
        f"{plan.optimum.params:,.0f}",
        f"{total_params(plan.config.model):,}",
        f"{plan.tokens:,}",
        f"{plan.config.training.num_steps:,}",
        f"{plan.chip_hours:,.4g}",
    ):
        assert number in text
    assert all(rule.rule in text for rule in plan.rules)
