"""Masks written out, and which layers have which."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from configs.model_config import AttentionConfig
from model.masks import MaskSpec, attention_mask, row_places, segment_mask
from tests.model.samples import attention

SEGMENTS = jnp.array([[1, 1, 1, 2, 2, 0]])


def drawn(mask_BLM) -> list[str]:
    """One row's mask, a string a query: # where it sees a key."""
    return ["".join(".#"[int(seen)] for seen in row) for row in np.asarray(mask_BLM)[0]]


def mask_of(prefix: list[int] | None = None, **spec) -> list[str]:
    prefix_BL = None if prefix is None else jnp.array([prefix])
    return drawn(attention_mask(MaskSpec(**spec), row_places(SEGMENTS, prefix_BL)))


def test_a_decoder_sees_itself_and_what_came_before_in_its_document():
    assert mask_of(causal=True) == [
        "#.....",
        "##....",
        "###...",
        "...#..",
        "...##.",
        "......",
    ]


def test_an_encoder_sees_its_whole_document():
    assert mask_of(causal=False) == [
        "###...",
        "###...",
        "###...",
        "...##.",
        "...##.",
        "......",
    ]


def test_a_window_of_two_is_the_place_and_its_neighbours():
    assert mask_of(causal=True, window=2) == [
        "#.....",
        "##....",
        ".##...",
        "...#..",
        "...##.",
        "......",
    ]
    assert mask_of(causal=False, window=2) == [
        "##....",
        "###...",
        ".##...",
        "...##.",
        "...##.",
        "......",
    ]


def test_all_of_a_document_sees_its_prefix():
    assert mask_of(prefix=[1, 1, 0, 1, 0, 1], causal=True) == [
        "##....",
        "##....",
        "###...",
        "...#..",
        "...##.",
        "......",
    ]


def test_a_prefix_beyond_the_window_is_not_seen():
    assert mask_of(prefix=[1, 1, 1, 0, 0, 0], causal=True, window=2)[:3] == [
        "##....",
        "###...",
        ".##...",
    ]


def test_memory_is_seen_by_the_segment_of_its_number():
    encoder_segments = jnp.array([[2, 2, 1, 3, 0]])
    assert drawn(segment_mask(SEGMENTS, encoder_segments)) == [
        "..#..",
        "..#..",
        "..#..",
        "##...",
        "##...",
        ".....",
    ]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (attention(), "......"),
        (attention(window=2, layer_pattern=("window",)), "WWWWWW"),
        (attention(window=2, layer_pattern=("window", "full")), "W.W.W."),  # Gemma 2
        (attention(window=2, layer_pattern=("full", "window", "window")), ".WW.WW"),  # ModernBERT
        (attention(window=2, layer_pattern=("window",) * 5 + ("full",)), "WWWWW."),  # Gemma 3
    ],
)
def test_the_pattern_of_layers_is_repeated(config: AttentionConfig, expected: str):
    layers = config.windowed_layers(6)
    assert "".join(".W"[is_window] for is_window in layers) == expected
    assert replace(config).windowed_layers(3) == layers[:3]
