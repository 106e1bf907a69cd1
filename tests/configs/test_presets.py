"""Each preset equals its golden JSON, so that a changed default shows in the diff.

After a deliberate change: `make golden`.
"""

import os
from pathlib import Path

import pytest

from configs.overrides import load_preset_or_file
from configs.presets import PRESETS
from configs.serialize import dumps, load_config

GOLDEN = Path(__file__).parent / "golden"


def golden_file(name: str) -> Path:
    return GOLDEN / f"{name.replace('/', '.')}.json"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_equals_its_golden_file(name):
    config = load_preset_or_file(name)
    if os.environ.get("ISOFLOP_UPDATE_GOLDEN"):
        golden_file(name).write_text(dumps(config), encoding="utf-8")
    assert dumps(config) == golden_file(name).read_text(encoding="utf-8"), "see `make golden`"
    assert load_config(golden_file(name)) == config


def test_there_is_no_golden_file_without_a_preset():
    assert set(GOLDEN.iterdir()) == {golden_file(name) for name in PRESETS}


def test_the_short_name_is_the_tiny_one():
    assert PRESETS["decoder_only"]() == PRESETS["decoder_only/tiny"]()


@pytest.mark.parametrize(
    "name, params, tokens_per_param",
    [
        ("decoder_only/tiny", 0.54e6, None),
        ("decoder_only/small", 124e6, 20),
        ("decoder_only/base_1b", 1.04e9, 20),
    ],
)
def test_a_preset_is_as_large_as_its_docstring_says(name, params, tokens_per_param):
    config = PRESETS[name]()
    m = config.model
    D, H, K, C = m.emb_dim, m.attention.num_heads, m.attention.num_kv_heads, m.attention.head_dim
    layer = D * C * (2 * H + 2 * K) + 3 * D * m.mlp.mlp_dim + 2 * D
    counted = m.vocab_size * D * (1 if m.tie_embeddings else 2) + m.num_layers * layer + D
    assert counted == pytest.approx(params, rel=0.01)  # the docstring rounds to three digits
    if tokens_per_param:
        tokens = config.training.num_steps * config.batch_tokens
        assert tokens / counted == pytest.approx(tokens_per_param, rel=0.02)
