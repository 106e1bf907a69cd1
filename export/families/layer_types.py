"""Which layers see a window: their list of a word per layer, our repeated pattern."""

from collections.abc import Sequence
from typing import Any, Literal

from configs.errors import InputError
from configs.model_config import AttentionConfig

_OURS: dict[str, Literal["full", "window"]] = {
    "full_attention": "full",
    "sliding_attention": "window",
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


def write_layer_types(attention: AttentionConfig, num_layers: int) -> list[str]:
    """Their word for every layer."""
    windowed = attention.windowed_layers(num_layers)
    return [_THEIRS["window" if is_windowed else "full"] for is_windowed in windowed]


def read_layer_types(layer_types: Any, num_layers: int) -> tuple[Literal["full", "window"], ...]:
    """The shortest pattern that gives their list when repeated.

    ["sliding_attention", "full_attention", "sliding_attention"] -> ("window", "full")

    Raises:
      InputError: not a list of `num_layers` words that we know.
    """
    fits = isinstance(layer_types, list | tuple) and len(layer_types) == num_layers
    if not fits or not all(isinstance(word, str) and word in _OURS for word in layer_types):
        raise InputError(
            f"layer_types: got {layer_types!r}, expected {num_layers} of {', '.join(_OURS)}"
        )
    return shortest_pattern([_OURS[word] for word in layer_types])


def shortest_pattern(
    layers: Sequence[Literal["full", "window"]],
) -> tuple[Literal["full", "window"], ...]:
    """("window", "full", "window") -> ("window", "full")."""
    lengths = range(1, len(layers) + 1)
    repeats = (n for n in lengths if all(layers[i] == layers[i % n] for i in range(len(layers))))
    return tuple(layers[: next(repeats)])
