"""Rules give their published numbers inside their range, and say where a number is from."""

import pytest

from configs.optimizer_config import (
    AdafactorConfig,
    AdamWConfig,
    CosineConfig,
    InverseSquareRootConfig,
    LinearConfig,
    LionConfig,
    MuonConfig,
    SGDConfig,
    WarmupStableDecayConfig,
)
from planner.hyperparameters import (
    batch_tokens_for,
    critical_batch_tokens,
    learning_rate_for,
    optimizer_for,
)


def test_published_rules_hold_inside_their_range():
    for flops in (1e17, 1e18, 2e19):
        tokens, rule = batch_tokens_for(flops)
        assert tokens == pytest.approx(0.2920 * flops**0.3271)
        assert "2401.02954" in rule and "outside" not in rule
        rate, rule = learning_rate_for(flops)
        assert rate == pytest.approx(0.3118 * flops**-0.1250)
        assert "2401.02954" in rule and "outside" not in rule


def test_outside_their_range_rules_say_so():
    assert "outside its fitted range 1e+17–2e+19 FLOPs" in batch_tokens_for(1e22)[1]
    assert "outside its fitted range 1e+17–2e+19 FLOPs" in learning_rate_for(1e22)[1]


def test_batches_grow_and_rates_fall_with_compute_without_jumps():
    exponents = [10 ** (9 + i / 10) for i in range(150)]
    tokens = [batch_tokens_for(flops)[0] for flops in exponents]
    rates = [learning_rate_for(flops)[0] for flops in exponents]
    assert tokens == sorted(tokens)
    assert rates == sorted(rates, reverse=True)
    for values in (tokens, rates):
        ratios = [b / a for a, b in zip(values, values[1:], strict=False)]
        assert max(ratios) < 1.15 and min(ratios) > 0.9


@pytest.mark.parametrize(
    "schedule",
    [CosineConfig(), WarmupStableDecayConfig(), LinearConfig(), InverseSquareRootConfig()],
)
@pytest.mark.parametrize("num_steps", [2, 3, 50, 10**6])
def test_warm_up_is_a_fiftieth_of_the_steps_and_always_shorter_than_the_run(schedule, num_steps):
    template = AdamWConfig(schedule=schedule, b2=0.9)
    optimizer, rules = optimizer_for(template, 1e18, num_steps)
    warmup_steps = optimizer.schedule.warmup_steps
    assert warmup_steps == min(2000, round(num_steps / 50))
    assert warmup_steps < num_steps
    assert type(optimizer.schedule) is type(schedule)
    assert isinstance(optimizer, AdamWConfig) and optimizer.b2 == 0.9
    assert optimizer.learning_rate == pytest.approx(learning_rate_for(1e18)[0], rel=5e-3)
    values = {rule.field: rule.value for rule in rules}
    assert values["optimizer.learning_rate"] == optimizer.learning_rate
    assert values["optimizer.schedule.warmup_steps"] == warmup_steps


def test_muon_gives_way_to_adamw_where_its_rates_were_never_measured():
    template = MuonConfig(schedule=CosineConfig(final_fraction=0.07))
    optimizer, rules = optimizer_for(template, 1e18, 100)
    assert isinstance(optimizer, AdamWConfig)
    assert isinstance(optimizer.schedule, CosineConfig)
    assert optimizer.schedule.final_fraction == 0.07
    assert "Muon" in {rule.field: rule.rule for rule in rules}["optimizer.kind"]


def test_the_batch_stays_below_the_critical_one():
    assert critical_batch_tokens(2.0) == pytest.approx(7.37e6, rel=0.01)
    free, _ = batch_tokens_for(1e24)
    capped, rule = batch_tokens_for(1e24, 2.0)
    assert capped == critical_batch_tokens(2.0) < free and "critical" in rule
    largest, rule = batch_tokens_for(1e27, 1.2)
    assert largest == 4608 * 4096 and "largest batch" in rule
    assert batch_tokens_for(1e20, 2.5)[0] == batch_tokens_for(1e20)[0]


def test_muon_keeps_its_own_rate():
    template = MuonConfig(learning_rate=0.03, adam_learning_rate=0.004)
    optimizer, rules = optimizer_for(template, 1e14, 100)
    assert isinstance(optimizer, MuonConfig)
    assert optimizer.learning_rate == 0.03
    values = {rule.field: rule.value for rule in rules}
    assert values["optimizer.learning_rate"] == 0.03
    assert values["optimizer.adam_learning_rate"] == optimizer.adam_learning_rate


def rules_of(template, flops=1e18, num_steps=1000, **options):
    optimizer, rules = optimizer_for(template, flops, num_steps, **options)
    assert type(optimizer) is type(template)
    for rule in rules:
        value = optimizer
        for name in rule.field.split(".")[1:]:
            value = getattr(value, name)
        assert value == rule.value, rule.field
    return optimizer, {rule.field: rule.rule for rule in rules}


def test_lions_rate_is_a_fifth_of_adamws_and_its_decay_five_times():
    lion, why = rules_of(LionConfig())
    adamw, _ = rules_of(AdamWConfig())
    assert lion.learning_rate == pytest.approx(adamw.learning_rate / 5, rel=5e-3)
    assert lion.weight_decay == pytest.approx(5 * adamw.weight_decay)
    for field in ("optimizer.learning_rate", "optimizer.weight_decay"):
        assert "2302.06675" in why[field]
    assert "2401.02954" in why["optimizer.learning_rate"]  # what it is a fifth of
    post, why = rules_of(LionConfig(), norm_placement="post")
    assert post.learning_rate == pytest.approx(6e-4 / 5)
    assert "post-norm" in why["optimizer.learning_rate"]


def test_a_decay_of_the_presets_own_stays():
    lion, why = rules_of(LionConfig(weight_decay=0.2))
    assert lion.weight_decay == 0.2
    assert why["optimizer.weight_decay"] == "the preset's, for lion"


def test_adafactors_steps_are_relative_at_any_size_and_held_as_long_as_t5s():
    for flops, num_steps in ((1e14, 300), (1e18, 20_000), (1e22, 2**19)):
        adafactor, why = rules_of(AdafactorConfig(), flops, num_steps)
        assert adafactor.learning_rate == 0.01 and adafactor.weight_decay == 0.0
        assert "1910.10683" in why["optimizer.learning_rate"]
        assert isinstance(adafactor.schedule, InverseSquareRootConfig)
        assert adafactor.schedule.constant_steps == 10_000
        assert "T5" in why["optimizer.schedule.constant_steps"]


def test_sgd_keeps_the_rate_it_is_given_and_says_that_no_law_has_one():
    sgd, why = rules_of(SGDConfig())
    assert sgd.learning_rate == 0.1 and "no law" in why["optimizer.learning_rate"]
    sgd, why = rules_of(SGDConfig(learning_rate=0.3))
    assert sgd.learning_rate == 0.3 and why["optimizer.learning_rate"] == "the preset's"


def test_post_norm_models_keep_their_ceiling_where_muon_gives_way():
    adamw, _ = optimizer_for(MuonConfig(), 1e18, 100, norm_placement="post")
    assert isinstance(adamw, AdamWConfig) and adamw.learning_rate == 6e-4
    own, _ = optimizer_for(AdamWConfig(learning_rate=9e-4), 1e18, 100, norm_placement="post")
    assert own.learning_rate == 9e-4
