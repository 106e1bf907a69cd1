"""Each preset equals its golden JSON, so that a changed default shows in the diff, and is what its
docstring and docs/presets.md say it is.

After a deliberate change: `make golden`.
"""

import os
import re
from pathlib import Path

import pytest

from configs.objective_config import MaskedLMConfig, SpanCorruptionConfig
from configs.overrides import load_preset_or_file
from configs.presets import PRESETS
from configs.schema import RunConfig
from configs.serialize import dumps, load_config
from planner.accounting import active_params, total_params, training_bytes, training_flops_per_row

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
SHORT_NAMES = [name for name in PRESETS if "/" not in name]
NAMES = [name for name in PRESETS if "/" in name]
UNITS = {"M": 1e6, "B": 1e9, "T": 1e12}


def golden_file(name: str) -> Path:
    return GOLDEN / f"{name.replace('/', '.')}.json"


def number(text: str) -> float:
    """`"1.24B"` -> 1.24e9."""
    text = text.replace(",", "")
    return float(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else float(text)


def tokens_read(config: RunConfig) -> int:
    rows = config.training.rows_before(config.training.num_steps)
    return rows * (config.lengths.tokens - config.lengths.overlap)


def a100_hours(config: RunConfig) -> float:
    """Of model FLOPs at 40% of 312 TFLOP/s, the docs' convention."""
    rows = config.training.rows_before(config.training.num_steps)
    flops = rows * training_flops_per_row(config.model, config.lengths).total
    return flops / (0.4 * 312e12) / 3600


def documented() -> dict[str, list[str]]:
    """The rows of the tables of docs/presets.md: name -> the other cells."""
    lines = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if "| `" in line
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_equals_its_golden_file(name):
    config = load_preset_or_file(name)
    if os.environ.get("ISOFLOP_UPDATE_GOLDEN"):
        golden_file(name).write_text(dumps(config), encoding="utf-8")
    assert dumps(config) == golden_file(name).read_text(encoding="utf-8"), "see `make golden`"
    assert load_config(golden_file(name)) == config


def test_there_is_no_golden_file_without_a_preset():
    assert set(GOLDEN.iterdir()) == {golden_file(name) for name in PRESETS}


@pytest.mark.parametrize("architecture", SHORT_NAMES)
def test_the_short_name_is_the_tiny_one(architecture):
    assert PRESETS[architecture]() == PRESETS[f"{architecture}/tiny"]()


@pytest.mark.parametrize("name", NAMES)
def test_a_presets_names_say_its_architecture_and_size(name):
    architecture, own = name.split("/")
    assert PRESETS[name]().model.architecture == architecture
    assert PRESETS[name]().name == own == PRESETS[name].__name__


@pytest.mark.parametrize("name", NAMES)
def test_a_presets_docstring_gives_its_size_and_command(name):
    text = PRESETS[name].__doc__ or ""
    first = re.match(r"([\d.]+[MB]) parameters", text)
    assert first, text
    # The docstring rounds to two or three digits.
    assert total_params(PRESETS[name]().model) == pytest.approx(number(first[1]), rel=0.01)
    assert f"`isoflop train {name} --data.corpus PATH`" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_tokens_in_a_presets_docstring_are_those_it_reads(name):
    text = PRESETS[name].__doc__ or ""
    said = re.search(r"([\d.]+[MBT]) tokens", text)
    assert said, text
    # Two digits where the first is 1 or 4: 2.5% off at most.
    assert tokens_read(PRESETS[name]()) == pytest.approx(number(said[1]), rel=0.04)


@pytest.mark.parametrize("name", ["decoder_only/small", "decoder_only/base_1b"])
def test_our_causal_presets_read_twenty_tokens_a_parameter(name):
    config = PRESETS[name]()
    assert tokens_read(config) / total_params(config.model) == pytest.approx(20, rel=0.02)


def test_the_documented_presets_are_all_there_are():
    assert list(documented()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_documented_numbers_are_the_presets(name):
    config = PRESETS[name]()
    params, active, tokens, devices, hours = documented()[name][:5]
    # Three digits are written of parameters and tokens, two of hours.
    assert number(params) == pytest.approx(total_params(config.model), rel=0.005)
    assert number(active) == pytest.approx(active_params(config.model), rel=0.005)
    assert number(tokens) == pytest.approx(tokens_read(config), rel=0.005)
    assert int(devices) == config.mesh.num_devices
    if hours == "none":
        assert a100_hours(config) < 0.01
    else:
        assert number(hours) == pytest.approx(a100_hours(config), rel=0.05)
        assert number(hours) == pytest.approx(docstring_hours(name, number(hours)), rel=0.01)


def docstring_hours(name: str, otherwise: float) -> float:
    """The A100-hours that a published preset's docstring gives; ours give none."""
    said = re.search(r"about ([\d.,]+M?)\s+A100-hours", PRESETS[name].__doc__ or "")
    assert said or name.endswith(("/small", "/base_1b"))
    return number(said[1]) if said else otherwise


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_fits_its_mesh_of_80_gb_devices(name):
    # A tenth is left for what the estimate does not count.
    assert training_bytes(PRESETS[name]()).total < 0.9 * 80e9


def test_tiny_presets_read_as_many_places_a_step_and_fit_one_vocabulary():
    configs = [PRESETS[f"{architecture}/tiny"]() for architecture in SHORT_NAMES]
    assert {c.data.seq_len * c.training.batch_size for c in configs} == {2048}
    assert {config.model.vocab_size for config in configs} == {1024}
    for config in configs:
        # Byte pieces and the four special ids are in every tokenizer of ours.
        assert len(config.objective.symbols(config.data.seq_len)) < 1024 - 260


def test_each_architectures_short_name_has_the_objective_it_is_known_for():
    assert isinstance(PRESETS["encoder_only"]().objective, MaskedLMConfig)
    assert isinstance(PRESETS["encoder_decoder"]().objective, SpanCorruptionConfig)
