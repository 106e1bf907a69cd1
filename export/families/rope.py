"""Rotary embedding in their config.json, in the writing of transformers 5 and of 4.

5 keeps all of it in `rope_parameters`; 4 has `rope_theta` and `rope_scaling` beside each other.
Both are written. Read is what transformers 5 would: a `rope_scaling` replaces `rope_parameters`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from configs.errors import InputError
from configs.position_config import (
    LinearScalingConfig,
    Llama3ScalingConfig,
    NoScalingConfig,
    RopeConfig,
    RopeScalingConfig,
    YarnScalingConfig,
)
from export.families.fields import Fields

_BY_LAYER = ("full_attention", "sliding_attention")
_FIXED = {
    "partial_rotary_factor": (1.0, "we rotate the whole head"),
    "mscale": (None, "we take YaRN's factor from attention_factor or factor"),
    "mscale_all_dim": (None, "we take YaRN's factor from attention_factor or factor"),
}


def write_rope(position: RopeConfig) -> dict[str, Any]:
    """Their keys for one rotation that all layers share."""
    scaling = write_scaling(position.scaling)
    old = {} if isinstance(position.scaling, NoScalingConfig) else {"rope_scaling": scaling}
    parameters = {**scaling, "rope_theta": position.theta}
    return {"rope_theta": position.theta, **old, "rope_parameters": parameters}


def read_rope(fields: Fields, *, default_theta: float = 10_000.0) -> RopeConfig:
    """Inverse of `write_rope`."""
    theta = fields.number("rope_theta", default_theta)
    old, new = fields.get("rope_scaling"), fields.get("rope_parameters")
    name = "rope_scaling" if old else "rope_parameters"
    return read_parameters(name, old or new or {}, fields, theta)


def write_rope_by_layer(position: RopeConfig) -> dict[str, Any]:
    """Their object for rotations of full layers and of window layers apart, as `rope_parameters`.

    {"full_attention": {"rope_theta": 1e6, …}, "sliding_attention": {"rope_theta": 1e4, …}}
    """
    local_theta = position.local_theta or position.theta
    return {
        "full_attention": {**write_scaling(position.scaling), "rope_theta": position.theta},
        "sliding_attention": {"rope_type": "default", "rope_theta": local_theta},
    }


def read_rope_by_layer(
    fields: Fields, *, has_windows: bool, theta: float, local_theta: float
) -> RopeConfig:
    """Inverse of `write_rope_by_layer`.

    Args:
      fields: their config.json.
      has_windows: whether any layer sees a window; without, the local base means nothing.
      theta, local_theta: the bases where `rope_parameters` has none.

    Raises:
      InputError: window layers that are scaled, which ours never are.
    """
    parameters, old = fields.get("rope_parameters") or {}, fields.get("rope_scaling") or {}
    if not isinstance(parameters, Mapping) or parameters.keys() - _BY_LAYER:
        raise InputError(
            f"rope_parameters: got {parameters!r}, expected an object of {' and '.join(_BY_LAYER)}"
        )
    if not isinstance(old, Mapping):
        raise InputError(f"rope_scaling: got {old!r}, expected an object")
    full, local = (parameters.get(name) or {} for name in _BY_LAYER)
    full = read_parameters("rope_parameters.full_attention", {**full, **old}, fields, theta)
    local = read_parameters("rope_parameters.sliding_attention", local, fields, local_theta)
    if not isinstance(local.scaling, NoScalingConfig):
        raise InputError(
            f"rope_parameters.sliding_attention.rope_type: got {local.scaling.kind!r}, expected "
            "'default': our window layers are never scaled"
        )
    return replace(full, local_theta=local.theta if has_windows else 0.0)


def read_parameters(name: str, parameters: Any, fields: Fields, theta: float) -> RopeConfig:
    """One object of rotary parameters.

    Args:
      name: of the key that holds it, for errors.
      parameters: the object.
      fields: the config around it, whose longest context is the original one by default.
      theta: the base where the object has none.

    Raises:
      InputError: not an object, a kind of scaling that we have not, or a key we do not know.
    """
    if not isinstance(parameters, Mapping):
        raise InputError(f"{name}: got {parameters!r}, expected an object")
    fields.fixed({"partial_rotary_factor": _FIXED["partial_rotary_factor"]})
    inner = Fields(parameters)
    try:
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        scaling = _read_scaling(kind, inner, fields)
        theta = inner.number("rope_theta", theta)
        inner.fixed(_FIXED)
        # A null is False to transformers, not its default.
        if inner.has("truncate") and inner.get("truncate") is not True:
            raise InputError(
                f"truncate: got {inner.get('truncate')!r}, expected True: our YaRN's ramp begins "
                "and ends at whole features"
            )
        inner.ignore("rope_type", "type")
        inner.finish()
    except InputError as error:
        raise InputError(f"{name}.{error}") from None
    return RopeConfig(theta=theta, scaling=scaling)


def write_scaling(scaling: RopeScalingConfig) -> dict[str, Any]:
    """Their object of a scaling, without the base."""
    match scaling:
        case NoScalingConfig():
            return {"rope_type": "default"}
        case LinearScalingConfig():
            return {"rope_type": "linear", "factor": scaling.factor}
        case Llama3ScalingConfig():
            return {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_frequency_factor,
                "high_freq_factor": scaling.high_frequency_factor,
                "original_max_position_embeddings": scaling.original_length,
            }
        case YarnScalingConfig():
            factor = scaling.attention_factor
            return {
                "rope_type": "yarn",
                "factor": scaling.factor,
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
                "original_max_position_embeddings": scaling.original_length,
                **({"attention_factor": factor} if factor else {}),
            }


def _read_scaling(kind: Any, inner: Fields, fields: Fields) -> RopeScalingConfig:
    if kind == "default":
        return NoScalingConfig()
    if kind == "linear":
        return LinearScalingConfig(factor=inner.number("factor"))
    if kind == "llama3":
        return Llama3ScalingConfig(
            factor=inner.number("factor"),
            low_frequency_factor=inner.number("low_freq_factor"),
            high_frequency_factor=inner.number("high_freq_factor"),
            original_length=_original_length(inner, fields),
        )
    if kind == "yarn":
        return YarnScalingConfig(
            factor=inner.number("factor"),
            beta_fast=inner.number("beta_fast", 32.0) or 32.0,
            beta_slow=inner.number("beta_slow", 1.0) or 1.0,
            original_length=_original_length(inner, fields),
            attention_factor=inner.number("attention_factor", 0.0),
        )
    kinds = ("default", "linear", "llama3", "yarn")
    raise InputError(f"rope_type: got {kind!r}, expected {' or '.join(map(repr, kinds))}")


def _original_length(inner: Fields, fields: Fields) -> int:
    if inner.get("original_max_position_embeddings") is not None:
        return inner.whole("original_max_position_embeddings")
    return fields.whole("max_position_embeddings")
