"""Our nested parameters <-> a flat dict of Hugging Face tensors, by a family's table.

Strict both ways: a parameter the table does not name, a name without a parameter, a wrong shape
or dtype is an error that lists names.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from configs.errors import InputError
from configs.model_config import FanInInitConfig, ModelConfig
from export.families.family import Entry, Family, num_layers_of, sizes_of

_MOST_NAMES = 10


def flatten(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{"a": {"b": x}} -> {"a/b": x}, each leaf a NumPy array (jax arrays are fetched)."""
    return {path: np.asarray(leaf) for path, leaf in _leaves(params)}


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


def table_of(config: ModelConfig, family: Family) -> tuple[Entry, ...]:
    """The family's entries for the parameters that the config's model has.

    Raises:
      InputError: the model has parameters that the table does not name.
    """
    shapes = param_shapes(config)
    table = tuple(entry for entry in family.entries(config) if entry.ours in shapes)
    homeless = shapes.keys() - {entry.ours for entry in table}
    if homeless:
        raise InputError(
            f"family: got {family.name!r}, which has no place for the model's {_listed(homeless)}"
        )
    return table


def to_hf(params: Mapping[str, Any], config: ModelConfig, family: Family) -> dict[str, np.ndarray]:
    """Their tensors, contiguous fp32, in the order of the table.

    Args:
      params: nested dict of fp32 arrays, layers on a leading axis.
      config: the model the parameters belong to.
      family: whose names and layout to write.

    Raises:
      InputError: missing or unused parameters, or one of a wrong shape or dtype, by name.
    """
    flat, table, sizes = flatten(params), table_of(config, family), sizes_of(config)
    _require_names("parameters", flat, {entry.ours for entry in table})
    tensors: dict[str, np.ndarray] = {}
    num_parts: dict[str, int] = {}
    for entry in table:
        array, leading = flat[entry.ours], _leading_shape(entry, config)
        _require_array(entry.ours, array, leading + entry.our_shape(sizes))
        for name, index in _names(entry, config):
            tensor = tensors.setdefault(name, np.empty(entry.their_shape(sizes), np.float32))
            entry.put(array[index], tensor, sizes)
            num_parts[name] = num_parts.get(name, 0) + 1
    for entry in table:  # a part that no entry writes would leave rubbish
        assert all(num_parts[name] == entry.num_parts for name, _ in _names(entry, config)), entry
    return tensors


def from_hf(
    tensors: Mapping[str, np.ndarray], config: ModelConfig, family: Family
) -> dict[str, Any]:
    """Our nested parameters from their fp32 tensors; inverse of `to_hf`.

    Tensors are named as `table_name` names them.

    Raises:
      InputError: missing or unused tensors, one of a wrong shape or dtype, or copies that differ,
        by name.
    """
    table, sizes = table_of(config, family), sizes_of(config)
    tensors = _without_copies(tensors, family.copies(config))
    names = {entry: _names(entry, config) for entry in table}
    optional = {name for entry in table if entry.may_be_missing for name, _ in names[entry]}
    expected = {name for entry in table for name, _ in names[entry]}
    _require_names("tensors", tensors, expected, optional)
    flat: dict[str, np.ndarray] = {}
    for entry in table:
        shape = _leading_shape(entry, config) + entry.our_shape(sizes)
        array = np.empty(shape, np.float32)
        if entry.fill is not None:
            array[...] = entry.fill
        for name, index in names[entry]:
            if name in tensors:
                _require_array(name, tensors[name], entry.their_shape(sizes))
                array[index] = entry.take(tensors[name], sizes)
        flat[entry.ours] = array
    return unflatten(flat)


def table_name(name: str, config: ModelConfig, family: Family) -> str | None:
    """What the table calls a tensor that files call `name`; None for one that is left out."""
    for pattern, replacement in family.renames(config):
        name = re.sub(pattern, replacement, name)
    return None if any(re.fullmatch(pattern, name) for pattern in family.left_out) else name


def param_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter of the config's model."""
    # Building a model takes a second: what changes no shape is not to build it again.
    return _built_shapes(replace(config, init=FanInInitConfig(), scan_layers=True, remat="none"))


@lru_cache(maxsize=64)
def _built_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    from model.build import abstract_params

    return {path: leaf.shape for path, leaf in _leaves(abstract_params(config))}


def first_layers(config: ModelConfig, family: Family) -> dict[str, int]:
    """Path -> the first layer that has a tensor, for parameters whose first layers have none."""
    table = table_of(config, family)
    return {entry.ours: entry.first_layer for entry in table if entry.first_layer}


def _leaves(params: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


def _leading_shape(entry: Entry, config: ModelConfig) -> tuple[int, ...]:
    """Lengths of the axes of layers and experts, where the entry has them."""
    layers = (num_layers_of(config, entry.ours),) if entry.per_layer else ()
    return layers + ((sizes_of(config)["E"],) if entry.per_expert else ())


def _names(entry: Entry, config: ModelConfig) -> list[tuple[str, tuple[int, ...]]]:
    """Their names, each with where it lies in the leading axes of ours."""
    places = product(*map(range, _leading_shape(entry, config)))
    keys = [key for key, used in (("layer", entry.per_layer), ("expert", entry.per_expert)) if used]
    return [
        (entry.theirs.format(**dict(zip(keys, place, strict=True))), place)
        for place in places
        if not entry.per_layer or place[0] >= entry.first_layer
    ]


def _without_copies(
    tensors: Mapping[str, np.ndarray], copies: Mapping[str, str]
) -> Mapping[str, np.ndarray]:
    """Drops tensors that repeat another; a copy without its original takes its place."""
    kept = dict(tensors)
    for name, original in copies.items():
        if name not in kept:
            continue
        copy = kept.pop(name)
        if not np.array_equal(kept.setdefault(original, copy), copy):
            raise InputError(
                f"{name}: got numbers that differ from {original}, expected the same (tied)"
            )
    return kept


def _require_names(
    what: str, got: Iterable[str], expected: Iterable[str], optional: Iterable[str] = ()
) -> None:
    got, expected = set(got), set(expected)
    problems = [
        f"{kind} {_listed(names)}"
        for kind, names in (
            ("missing", expected - got - set(optional)),
            ("unused", got - expected),
        )
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
