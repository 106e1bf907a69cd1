"""Every optimizer and schedule: chosen on the command line, stored and read, refused when wrong."""

import typing

import pytest

from configs.errors import InputError
from configs.optimizer_config import (
    AdafactorConfig,
    AdamWConfig,
    InverseSquareRootConfig,
    LinearConfig,
    LionConfig,
    OptimizerConfig,
    ScheduleConfig,
    SGDConfig,
)
from configs.overrides import apply_overrides
from configs.schema import RunConfig
from configs.serialize import from_json, to_json

OPTIMIZERS = {cls.kind: cls for cls in typing.get_args(OptimizerConfig)}
SCHEDULES = {cls.kind: cls for cls in typing.get_args(ScheduleConfig)}


def test_these_are_all():
    assert list(OPTIMIZERS) == ["adamw", "muon", "adafactor", "lion", "sgd"]
    assert list(SCHEDULES) == ["cosine", "linear", "warmup_stable_decay", "inverse_square_root"]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_is_chosen_by_its_kind_stored_and_read_again(kind, schedule):
    args = ["--optimizer.schedule.kind", schedule.replace("_", "-"), "--optimizer.kind", kind]
    config = apply_overrides(RunConfig(), args)
    assert type(config.optimizer) is OPTIMIZERS[kind]
    assert config.optimizer.schedule == SCHEDULES[schedule]()
    assert from_json(RunConfig, to_json(config)) == config


def test_fields_of_a_chosen_variant_are_options():
    line = (
        "--optimizer.kind adafactor --optimizer.momentum 0.9 --optimizer.min-factored-dim 64 "
        "--optimizer.schedule.constant-steps 500 --optimizer.schedule.cooldown-fraction 0"
    )
    assert apply_overrides(RunConfig(), line.split()).optimizer == AdafactorConfig(
        momentum=0.9,
        min_factored_dim=64,
        schedule=InverseSquareRootConfig(constant_steps=500, cooldown_fraction=0.0),
    )
    line = "--optimizer.kind=sgd --optimizer.nesterov --optimizer.schedule.kind=linear"
    config = apply_overrides(RunConfig(), line.split())
    assert config.optimizer == SGDConfig(nesterov=True, schedule=LinearConfig())


def test_a_field_of_another_optimizer_says_how_to_choose_it():
    with pytest.raises(InputError, match=r"--optimizer.kind"):
        apply_overrides(RunConfig(), ["--optimizer.nesterov"])


def test_lions_defaults_are_adamws_divided_and_multiplied_by_five():
    assert LionConfig().learning_rate == pytest.approx(AdamWConfig().learning_rate / 5)
    assert LionConfig().weight_decay == AdamWConfig().weight_decay * 5


BAD = {
    "optimizer.clipping_threshold: got -1.0": lambda: AdafactorConfig(clipping_threshold=-1.0),
    "optimizer.decay_exponent: got 0.0": lambda: AdafactorConfig(decay_exponent=0.0),
    "optimizer.min_factored_dim: got 0": lambda: AdafactorConfig(min_factored_dim=0),
    "optimizer.momentum: got 1.0": lambda: AdafactorConfig(momentum=1.0),
    "optimizer.learning_rate: got nan": lambda: LionConfig(learning_rate=float("nan")),
    "optimizer.b2: got 1.0": lambda: LionConfig(b2=1.0),
    "optimizer.weight_decay: got -0.1": lambda: SGDConfig(weight_decay=-0.1),
    "optimizer.momentum: got 0.0, expected a number above 0 for nesterov": (
        lambda: SGDConfig(momentum=0.0, nesterov=True)
    ),
    "optimizer.schedule.final_fraction: got 2": lambda: LinearConfig(final_fraction=2),
    "optimizer.schedule.warmup_steps: got -1": lambda: LinearConfig(warmup_steps=-1),
    "optimizer.schedule.constant_steps: got 0": lambda: InverseSquareRootConfig(constant_steps=0),
    r"optimizer.schedule.constant_steps: got 5, expected warmup_steps \(9\) or more": (
        lambda: InverseSquareRootConfig(warmup_steps=9, constant_steps=5)
    ),
    "optimizer.schedule.cooldown_fraction: got 1.5": (
        lambda: InverseSquareRootConfig(cooldown_fraction=1.5)
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_nonsense_is_refused_in_one_line(message):
    with pytest.raises(InputError, match=message) as raised:
        BAD[message]()
    assert "\n" not in str(raised.value)
