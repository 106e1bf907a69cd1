"""Our nested parameters <-> a flat dict of Hugging Face tensors, by a family's table.

Strict both ways: a parameter the table does not name, a name without a parameter, a wrong shape
or dtype is an error that lists names.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from configs.errors import InputError
from configs.model_config import ModelConfig
from export.families.family import Entry, Family

_MOST_NAMES = 10


def flatten(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{"a": {"b": x}} -> {"a/b": x}, each leaf a NumPy array (jax arrays are fetched)."""
    flat: dict[str, np.ndarray] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{path}": leaf for path, leaf in flatten(value).items()}
        else:
            flat[name] = np.asarray(value)
    return flat


def unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Inverse of `flatten`."""
    params: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return params


def to_hf(params: Mapping[str, Any], config: ModelConfig, family: Family) -> dict[str, np.ndarray]:
    """Their tensors, contiguous fp32, in the order of the table.

    Args:
      params: nested dict of fp32 arrays, layers on a leading axis of length num_layers.
      config: the model the parameters belong to.
      family: whose names and layout to write.

    Raises:
      InputError: missing or unused parameters, or one of a wrong shape or dtype, by name.
    """
    flat, table, sizes = flatten(params), family.entries(config), family.sizes(config)
    _require_names("parameters", flat, (entry.ours for entry in table))
    tensors: dict[str, np.ndarray] = {}
    for entry in table:
        array = flat[entry.ours]
        _require_array(entry.ours, array, _full_shape(entry, config, sizes))
        layers = enumerate(array) if entry.per_layer else ((0, array),)
        for layer, part in layers:
            tensors[entry.theirs.format(layer=layer)] = entry.to_theirs(part, sizes)
    return tensors


def from_hf(
    tensors: Mapping[str, np.ndarray], config: ModelConfig, family: Family
) -> dict[str, Any]:
    """Our nested parameters from their fp32 tensors; inverse of `to_hf`.

    Raises:
      InputError: missing or unused tensors, or one of a wrong shape or dtype, by name.
    """
    table, sizes = family.entries(config), family.sizes(config)
    _require_names("tensors", tensors, (n for entry in table for n in _names(entry, config)))
    flat: dict[str, np.ndarray] = {}
    for entry in table:
        layers = []
        for name in _names(entry, config):
            _require_array(name, tensors[name], entry.their_shape(sizes))
            layers.append(entry.to_ours(tensors[name], sizes))
        flat[entry.ours] = np.stack(layers) if entry.per_layer else layers[0]
    return unflatten(flat)


def _names(entry: Entry, config: ModelConfig) -> list[str]:
    layers = range(config.num_layers if entry.per_layer else 1)
    return [entry.theirs.format(layer=layer) for layer in layers]


def _full_shape(entry: Entry, config: ModelConfig, sizes: Mapping[str, int]) -> tuple[int, ...]:
    layers = (config.num_layers,) if entry.per_layer else ()
    return layers + entry.our_shape(sizes)


def _require_names(what: str, got: Iterable[str], expected: Iterable[str]) -> None:
    got, expected = set(got), set(expected)
    problems = [
        f"{kind} {_listed(names)}"
        for kind, names in (("missing", expected - got), ("unused", got - expected))
        if names
    ]
    if problems:
        raise InputError(f"{what}: {'; '.join(problems)}")


def _listed(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES} more"


def _require_array(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise InputError(f"{name}: got shape {array.shape}, expected {shape}")
    if array.dtype != np.float32:
        raise InputError(f"{name}: got dtype {array.dtype}, expected float32")
