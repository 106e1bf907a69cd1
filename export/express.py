"""Whether a family can say all that a config says: its config.json, read back, must mean the same.

So nothing that a family has no word for is lost in silence: the first field that comes back
different is named, with both values.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from configs.errors import InputError
from configs.model_config import ModelConfig, MuPInitConfig
from export.families import FAMILIES
from export.families.family import Family, SpecialIds

# How to compute, how to begin and what training adds to the loss: not what a trained model is.
_WITHOUT_MEANING = frozenset(
    {
        "model.attention.causal_blocks",
        "model.compute_dtype",
        "model.scan_layers",
        "model.position.start",
        "model.remat",
        "model.mlp.balance_loss",
        "model.mlp.router_z_loss",
    }
)


def express(config: ModelConfig, family: Family, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json for a model trained on rows of `seq_len` tokens.

    Raises:
      InputError: the family has no such model; the message names our field.
    """
    _require_variant(family, "architecture", config.architecture, (family.architecture,))
    for name, variants in family.blocks.items():
        block = getattr(config, name)
        variants = variants if isinstance(variants, tuple) else (variants,)
        if not isinstance(block, variants):
            kinds = tuple(variant().kind for variant in variants)
            _require_variant(family, f"{name}.kind", block.kind, kinds)
    if isinstance(config.init, MuPInitConfig) and config.init.base_emb_dim != config.emb_dim:
        raise InputError(
            f"model.init.kind: got 'mup', which scales the logits by the width; expected another "
            f"to export as family {family.name}"
        )
    theirs = family.to_config(config, seq_len, ids)
    read_back, _ = family.from_config(theirs)
    require_same_meaning(read_back, config, f"which is all that family {family.name} can say")
    return theirs


def default_family(config: ModelConfig, seq_len: int) -> str:
    """The name of the first family of the table that can say all of a config.

    Raises:
      InputError: none can.
    """
    for family in FAMILIES.values():
        try:
            express(config, family, seq_len, SpecialIds(pad=0, bos=2, eos=3))
        except InputError:
            continue
        return family.name
    raise InputError(
        f"family: got a model that none of {', '.join(sorted(FAMILIES))} can express, expected "
        "one; isoflop export RUN --family NAME says what stands in the way"
    )


def require_same_meaning(got: ModelConfig, expected: ModelConfig, reason: str) -> None:
    """Raises InputError("FIELD: got OURS, expected THEIRS, REASON") at the first difference."""
    difference = first_difference(expected, got)
    if difference is not None:
        name, ours, theirs = difference
        raise InputError(f"{name}: got {ours!r}, expected {theirs!r}, {reason}")


def first_difference(one: ModelConfig, other: ModelConfig) -> tuple[str, Any, Any] | None:
    """(field, its value in one, in the other) of the first field whose meanings differ, or None."""
    mine, yours = meaning(one), meaning(other)
    for name in {**mine, **yours}:
        if name not in mine or name not in yours or mine[name] != yours[name]:
            return name, mine.get(name), yours.get(name)
    return None


def meaning(config: ModelConfig) -> dict[str, Any]:
    """Field -> value, for the fields that decide what a trained model computes.

    Different ways to say one thing become one: the pattern of windows is spelled out for every
    layer, a scale of the scores that follows from head_dim is put as a number.
    """
    flat = dict(_flat("model", config))
    windowed = config.attention.windowed_layers(config.num_layers)
    flat["model.attention.layer_pattern"] = tuple("window" if w else "full" for w in windowed)
    if not any(windowed):
        flat["model.attention.window"] = 0
    flat["model.attention.query_scale"] = config.attention.score_scale
    return {
        name: value
        for name, value in flat.items()
        if name not in _WITHOUT_MEANING and not name.startswith("model.init.")
    }


def _flat(prefix: str, config: Any) -> Mapping[str, Any]:
    flat: dict[str, Any] = {}
    for field in fields(config):
        name, value = f"{prefix}.{field.name}", getattr(config, field.name)
        if is_dataclass(value):
            flat |= _flat(name, value)
        else:
            flat[name] = value
    return flat


def _require_variant(family: Family, name: str, got: str, expected: tuple[str, ...]) -> None:
    if got not in expected:
        raise InputError(
            f"model.{name}: got {got!r}, expected {' or '.join(map(repr, expected))}, which is all "
            f"that family {family.name} can say"
        )
