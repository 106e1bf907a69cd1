"""Budgets are read exactly, and nonsense is refused by name."""

import pytest

from configs.errors import InputError
from planner.budget import Budget, Constraints, parse_budget, parse_count, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1.5h", 5400), ("2d", 172_800), ("1h30m", 5400)],
)
def test_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("7B", 7e9), ("125M", 1.25e8), ("1e21", 1e21), ("1.5T", 1.5e12), ("12", 12)]
)
def test_counts(text, count):
    assert parse_count("params", text) == count


@pytest.mark.parametrize("text", ["5", "m", "5 m", "-5m", "5y", "", "nan"])
def test_bad_durations_name_the_field(text):
    with pytest.raises(InputError, match="^time: "):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["7b", "-1", "seven", "1e", "inf", "nan", ""])
def test_bad_counts_name_the_field(text):
    with pytest.raises(InputError, match="^params: "):
        parse_count("params", text)


@pytest.mark.parametrize("given", [{}, {"time": "5m", "tokens": "1B"}])
def test_exactly_one_budget(given):
    with pytest.raises(InputError, match="^budget: .*exactly one"):
        parse_budget(**given)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_is_a_positive_quantity(value):
    with pytest.raises(InputError, match="^budget"):
        Budget(kind="tokens", value=value)


@pytest.mark.parametrize(
    ("given", "kind", "value", "unit"),
    [
        ({"time": "5m"}, "time", 300.0, "s"),
        ({"budget_flops": "1e21"}, "flops", 1e21, "FLOPs"),
        ({"params": "7B"}, "params", 7e9, "parameters"),
        ({"tokens": "1.5T"}, "tokens", 1.5e12, "tokens"),
        ({"hours": "72"}, "time", 259_200.0, "s"),
        ({"cost": "50K"}, "cost", 5e4, "of the price's currency"),
    ],
)
def test_each_option_makes_its_budget(given, kind, value, unit):
    budget = parse_budget(**given)
    assert (budget.kind, budget.value, budget.unit) == (kind, value, unit)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budget_flops": "lots"}, "^budget-flops: got 'lots'"),
        ({"tokens": "1k"}, "^tokens: got '1k'"),
        ({"time": "0s"}, r"^budget \(time\): got 0.0, expected s above 0"),
        ({"params": "0"}, r"^budget \(params\): got 0.0"),
        ({"tokens": "1e400"}, r"^budget \(tokens\): got inf"),
        ({"time": "5m", "params": "7B"}, "^budget: got --time, --params, expected exactly one"),
        ({}, "^budget: got none, expected exactly one of --time, --hours, --budget-flops"),
    ],
)
def test_a_bad_option_is_named_in_one_line(given, message):
    with pytest.raises(InputError, match=message) as error:
        parse_budget(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_params", 0.0), ("unique_tokens", -1.0), ("inference_tokens", float("nan"))]
    + [("max_epochs", 0.5), ("max_epochs", float("inf")), ("seq_len", 0), ("vocab_size", -3)],
)
def test_constraints_are_positive_numbers(field, value):
    with pytest.raises(InputError, match=f"^{field}: got"):
        Constraints(**{field: value})
