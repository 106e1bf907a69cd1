"""Overrides and commands on the command line: what they set, and the one line when they cannot."""

import dataclasses
import io
import sys
from collections.abc import Sequence

import pytest
import tyro

from configs.errors import InputError
from configs.mlp_config import MoEConfig
from configs.objective_config import PrefixLMConfig
from configs.optimizer_config import CosineConfig, WarmupStableDecayConfig
from configs.overrides import (
    apply_overrides,
    field_names,
    load_preset_or_file,
    parse_command,
    reject_overrides,
    split_overrides,
)
from configs.position_config import Llama3ScalingConfig, RopeConfig, YarnScalingConfig
from configs.presets import PRESETS
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from configs.serialize import save


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """A command of the tests."""

    config: tyro.conf.Positional[str] = "decoder_only/tiny"
    """Preset or file."""
    out_dir: str = "runs/a"
    """Where the run is written."""
    steps: int | None = None
    """Steps, at most."""
    quiet: bool = False
    """Print nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """A command with required arguments."""

    run: tyro.conf.Positional[str]
    """A run directory."""


def train(args: Sequence[str]) -> tuple[Train, list[str]]:
    return parse_command(Train, args, prog="isoflop train", description="Trains a model.")


def error_of(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    assert "╭" not in str(caught.value) and "\x1b" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["decoder_only", "encoder_only", "encoder_decoder"]
    + [f"decoder_only/{model}" for model in ("llama3_2_1b", "gemma3_1b", "mixtral_8x7b")],
)
def test_no_overrides_change_nothing(name):
    assert apply_overrides(PRESETS[name](), []) == PRESETS[name]()


def test_overrides_set_nested_fields_in_either_spelling():
    args = "--training.num-steps 500 --model.attention.num_heads=8 --data.seq_len 64 --name x"
    config = apply_overrides(RunConfig(), args.split())
    assert config.training.num_steps == 500
    assert config.model.attention.num_heads == 8
    assert config.data.seq_len == 64
    assert config.name == "x"
    assert config.optimizer == RunConfig().optimizer


def test_switches_turn_on_and_off():
    off = apply_overrides(RunConfig(), ["--model.no-tie-embeddings"])
    assert not off.model.tie_embeddings
    assert apply_overrides(off, ["--model.tie_embeddings"]).model.tie_embeddings


def test_lists_take_any_number_of_values():
    config = apply_overrides(
        RunConfig(),
        "--mesh.rules.batch data --mesh.rules.embed --mesh.rules.mlp fsdp tensor".split(),
    )
    assert config.mesh.rules.batch == ("data",)
    assert config.mesh.rules.embed == ()
    assert config.mesh.rules.mlp == ("fsdp", "tensor")


def test_the_last_of_two_settings_counts():
    args = "--training.num-steps 500 --training.num_steps 600".split()
    assert apply_overrides(RunConfig(), args).training.num_steps == 600


def test_fields_of_the_chosen_variant_can_be_set():
    config = apply_overrides(RunConfig(), ["--optimizer.schedule.warmup-steps", "7"])
    assert config.optimizer.schedule == CosineConfig(warmup_steps=7)


@pytest.mark.parametrize("kind", ["warmup_stable_decay", "warmup-stable-decay"])
def test_kind_changes_the_variant_of_a_union(kind):
    args = ["--optimizer.schedule.kind", kind, "--optimizer.schedule.decay-fraction", "0.5"]
    config = apply_overrides(RunConfig(), args)
    assert config.optimizer.schedule == WarmupStableDecayConfig(decay_fraction=0.5)


def test_naming_the_kind_it_has_keeps_its_fields():
    config = apply_overrides(RunConfig(), ["--optimizer.schedule.warmup-steps", "7"])
    assert apply_overrides(config, ["--optimizer.schedule.kind=cosine"]) == config


@pytest.mark.parametrize("learned_first", [True, False])
def test_the_variant_of_a_union_inside_a_union_can_be_chosen_in_either_order(learned_first):
    learned = apply_overrides(RunConfig(), ["--model.position.kind", "learned"])
    options = [
        ["--model.position.kind", "rope"],
        ["--model.position.scaling.kind", "llama3", "--model.position.scaling.factor", "32"],
    ]
    args = sum(options if learned_first else options[::-1], [])
    position = apply_overrides(learned, args).model.position
    assert position == RopeConfig(scaling=Llama3ScalingConfig(factor=32.0))


def test_a_union_keeps_the_variant_of_a_union_inside_it():
    args = ["--model.position.scaling.kind", "yarn", "--model.position.theta", "1e6"]
    config = apply_overrides(RunConfig(), args)
    assert config.model.position == RopeConfig(theta=1e6, scaling=YarnScalingConfig())
    assert apply_overrides(config, ["--model.position.kind", "rope"]) == config


def test_architecture_and_objective_change_together():
    args = (
        "--model.architecture encoder_decoder --model.num-encoder-layers 3 "
        "--objective.kind prefix_lm --objective.architecture encoder_decoder"
    )
    config = apply_overrides(RunConfig(), args.split())
    assert config.objective == PrefixLMConfig(architecture="encoder_decoder")
    assert (config.model.num_layers, config.model.num_encoder_layers) == (4, 3)


def test_a_mixture_of_experts_is_chosen_like_any_variant():
    args = "--model.mlp.kind moe --model.mlp.num-experts 4 --mesh.expert 4"
    config = apply_overrides(RunConfig(), args.split())
    assert config.model.mlp == MoEConfig(num_experts=4)
    assert config.mesh == MeshConfig(expert=4)


def test_checks_see_all_overrides_together():
    # Alone, the new variant's 100 warm-up steps would not fit 50 steps, nor 50 steps the old 100.
    args = (
        "--optimizer.schedule.kind warmup_stable_decay --training.num-steps 50 "
        "--optimizer.schedule.warmup-steps 5"
    )
    assert apply_overrides(RunConfig(), args.split()).training.num_steps == 50


def test_negative_values_are_values():
    message = error_of(apply_overrides, RunConfig(), ["--training.z-loss", "-1e-4"])
    assert message == "training.z_loss: got -0.0001, expected 0 or more"


BAD_OVERRIDES = {
    "--training.num-stepz 5": (
        "--training.num-stepz: got an unknown option; did you mean '--training.num-steps'?"
    ),
    "--training.num_stepz=5": (
        "--training.num_stepz: got an unknown option; did you mean '--training.num-steps'?"
    ),
    "--num-steps 5": ("--num-steps: got an unknown option; did you mean '--training.num-steps'?"),
    "--zzz": "--zzz: got an unknown option; see --help",
    "--training.num-steps abc": "--training.num-steps: got 'abc', expected a whole number",
    "--training.num-steps 2.5": "--training.num-steps: got '2.5', expected a whole number",
    "--training.num-steps=": "--training.num-steps: got '', expected a whole number",
    "--optimizer.learning-rate fast": "--optimizer.learning-rate: got 'fast', expected a number",
    "--optimizer.learning-rate nan": (
        "optimizer.learning_rate: got nan, expected a number above 0"
    ),
    "--training.num-steps": "--training.num-steps: got nothing, expected one value",
    "--training.num-steps 1 2": "--training.num-steps: got '1 2', expected one value",
    "--training.num-steps --data.seed 1": "--training.num-steps: got nothing, expected one value",
    "--model.compute-dtype float16": (
        "--model.compute-dtype: got 'float16', expected one of float32, bfloat16"
    ),
    "--model.tie-embeddings false": (
        "--model.tie-embeddings: got 'false', expected no value: a switch is turned off by "
        "--model.no-tie-embeddings"
    ),
    "--optimizer.schedule.kind cosin": (
        "--optimizer.schedule.kind: got 'cosin', expected one of cosine, linear, "
        "warmup_stable_decay, inverse_square_root; "
        "did you mean 'cosine'?"
    ),
    "--optimizer.schedule.decay-fraction 0.5": (
        "--optimizer.schedule.decay-fraction: got an option of another variant than the chosen "
        "one; choose it with --optimizer.schedule.kind"
    ),
    "--model.position.kind learned --model.position.scaling.kind yarn": (
        "--model.position.scaling.kind: got an option of another variant than the chosen one; "
        "choose it with --model.position.kind"
    ),
    "--model.position.kind learned --model.position.scaling.factor 2": (
        "--model.position.scaling.factor: got an option of another variant than the chosen one; "
        "choose it with --model.position.kind"
    ),
    "--model.position.scaling.factor 2": (
        "--model.position.scaling.factor: got an option of another variant than the chosen one; "
        "choose it with --model.position.scaling.kind"
    ),
    "--model.position.scaling.kind llama4": (
        "--model.position.scaling.kind: got 'llama4', expected one of none, linear, llama3, yarn; "
        "did you mean 'llama3'?"
    ),
    "--model.attention.layer-pattern full local": (
        "--model.attention.layer-pattern: got 'local', expected one of full, window"
    ),
    "--model.architecture encoder_only": (
        "objective.kind: got 'causal_lm', expected an objective for architecture encoder_only "
        "(this one is for decoder_only)"
    ),
    "stray": "arguments: got 'stray', expected an option such as --data.seed 1",
    "--model.attention.num-kv-heads 3": (
        "model.attention.num_kv_heads: got 3, expected a divisor of num_heads (4)"
    ),
    "--training.num-steps 5": (
        "optimizer.schedule.warmup_steps: got 100, expected fewer than training.num_steps (5)"
    ),
    "--mesh.rules.batch stage": (
        "mesh.rules: got mesh axis 'stage', expected one of replica, data, fsdp, expert, "
        "sequence, tensor"
    ),
}


@pytest.mark.parametrize("line", BAD_OVERRIDES)
def test_a_bad_override_is_one_line_naming_it(line):
    assert error_of(apply_overrides, RunConfig(), line.split()) == BAD_OVERRIDES[line]


class Terminal(io.TextIOWrapper):
    """What tyro looks at to decide on colours and line drawing."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_errors_read_the_same_on_a_narrow_terminal(encoding, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO(), encoding=encoding))
    for line, message in BAD_OVERRIDES.items():
        assert error_of(apply_overrides, RunConfig(), line.split()) == message


def test_help_shows_every_field_with_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        apply_overrides(RunConfig(training=TrainingConfig(num_steps=4321)), ["--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--training.num-steps INT" in printed
    assert "(default: 4321)" in printed


def test_every_field_of_every_variant_is_an_option():
    names = field_names()
    assert names["training.num_steps"].num_values == 1
    assert names["model.no_tie_embeddings"].num_values == 0
    assert names["mesh.rules.batch"].num_values is None
    assert {"optimizer.schedule.decay_fraction", "optimizer.schedule.warmup_steps"} <= set(names)
    assert list(names["optimizer.schedule.kind"].variants) == [
        "cosine",
        "linear",
        "warmup_stable_decay",
        "inverse_square_root",
    ]
    scalings = names["model.position.scaling.kind"].variants
    assert list(scalings) == ["none", "linear", "llama3", "yarn"]


def test_a_command_keeps_its_own_options_and_hands_on_overrides_in_order():
    command, overrides = train(
        "--training.num-steps 5 my.json --model.no-tie-embeddings --out-dir runs/b "
        "--data.seed=3 --mesh.rules.batch data fsdp --steps 9".split()
    )
    assert command == Train(config="my.json", out_dir="runs/b", steps=9)
    assert overrides == (
        "--training.num-steps 5 --model.no-tie-embeddings --data.seed=3 "
        "--mesh.rules.batch data fsdp".split()
    )


def test_an_override_never_feeds_a_positional_argument():
    command, overrides = train(["--training.num-steps", "5"])
    assert command.config == "decoder_only/tiny"
    assert overrides == ["--training.num-steps", "5"]


def test_a_misspelt_override_reaches_apply_overrides_with_its_value():
    command, overrides = train(["--training.num-stepz", "5", "--quiet"])
    assert command.quiet
    assert "did you mean '--training.num-steps'?" in error_of(
        apply_overrides, RunConfig(), overrides
    )


def test_nothing_after_a_double_dash_is_an_override():
    own, overrides = split_overrides("--data.seed 1 -- echo --data.seed 2".split())
    assert own == "-- echo --data.seed 2".split()
    assert overrides == ["--data.seed", "1"]


def test_text_that_begins_with_dashes_is_no_override():
    assert split_overrides(["--see e.g. the first.", "--a"])[1] == []


@pytest.mark.parametrize(
    "line, message",
    [
        (
            "--out-dri x",
            "--out-dri: got an unknown option of isoflop train; did you mean '--out-dir'?",
        ),
        ("--zzz", "--zzz: got an unknown option of isoflop train; see --help"),
        ("--steps k", "--steps: got 'k', expected a whole number or None"),
        ("--steps", "--steps: got nothing, expected a value"),
        ("a b", "isoflop train: got 'b', expected no such argument; see --help"),
        (
            "--batch-size 5",
            "--batch-size: got an unknown option of isoflop train; "
            "did you mean '--training.batch-size'?",
        ),
    ],
)
def test_a_bad_command_line_is_one_line_naming_the_option(line, message):
    assert error_of(train, line.split()) == message


def test_a_missing_argument_is_one_line():
    message = error_of(lambda: parse_command(Score, [], prog="isoflop score", description=""))
    assert message == "isoflop score: got too few arguments, expected RUN; see --help"


def test_help_of_a_command_shows_description_and_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        train(["--help"])
    captured = capsys.readouterr()
    assert stop.value.code == 0
    assert captured.err == ""
    for text in ("isoflop train", "Trains a model.", "--out-dir", "runs/a", "Where the run is"):
        assert text in captured.out


def test_a_command_without_a_config_refuses_overrides():
    reject_overrides([], prog="isoflop score")
    message = error_of(lambda: reject_overrides(["--data.seed=1"], prog="isoflop score"))
    assert message == "--data.seed: got an unknown option of isoflop score; see --help"


def test_a_preset_or_a_file_is_loaded(tmp_path):
    config = apply_overrides(PRESETS["decoder_only/small"](), ["--name", "mine"])
    save(config, tmp_path / "config.json")
    assert load_preset_or_file(str(tmp_path / "config.json")) == config
    assert load_preset_or_file("decoder_only/small") == PRESETS["decoder_only/small"]()
    assert load_preset_or_file("decoder_only") == load_preset_or_file("decoder_only/tiny")


def test_an_unknown_preset_suggests_the_nearest():
    message = error_of(load_preset_or_file, "decoder_only/tinny")
    assert message.startswith("config: got 'decoder_only/tinny', expected a path to a .json file")
    assert message.endswith("did you mean 'decoder_only/tiny'?")


def test_a_missing_file_is_one_line(tmp_path):
    assert "expected a readable JSON file" in error_of(
        load_preset_or_file, str(tmp_path / "none.json")
    )
