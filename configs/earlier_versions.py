"""A config.json of an earlier schema version as one of the present version.

What a later version added is given the value under which a run means what it meant; every other
field stays as written, and is checked as strictly as in a new file.
"""

from typing import Any

READABLE_VERSIONS = (2, 3, 4)
"""Schema versions of a config.json that can be read; the last is the one written."""

# Dotted owner ("" for the whole) and name of a field that a version added -> what it was before it
# could be chosen. Values, not the dataclasses' defaults: those may change, a written file's meaning
# may not.
_ADDED_IN_3: dict[tuple[str, str], Any] = {
    ("mesh", "replica"): 1,
    ("mesh", "sequence"): 1,
    ("model.attention", "kernel"): "auto",
    ("model", "remat_pattern"): ["remat"],
}
_ADDED_IN_4: dict[tuple[str, str], Any] = {
    ("training", "keep_best"): 0,
    ("", "guard"): {
        "nonfinite_limit": 1,  # the first loss that was not finite ended a run
        "spike_sigma": 0.0,
        "spike_window": 128,
        "spike_action": "skip",
        "max_rewinds": 3,
        "check_every": 0,
    },
}


def brought_up_to_date(data: dict[str, Any], version: int) -> dict[str, Any]:
    """The JSON object of a run's configuration, as the last of READABLE_VERSIONS has it.

    Args:
      data: without its `schema_version`; it may hold anything, and is left as it is. Fields that
        are there already are kept.
      version: of `data`, one of READABLE_VERSIONS.
    """
    if version < 3:
        data = _with_one_rule_for_length(_with_fields(data, _ADDED_IN_3))
    if version < 4:
        data = _with_fields(data, _ADDED_IN_4)
    return data


def _with_one_rule_for_length(data: dict[str, Any]) -> dict[str, Any]:
    """Version 2 had one rule that cut rows and what layers add to alike.

    With the version's own rules neither is cut: the new axes of the mesh are used only where its
    rules are written anew.
    """
    rules = data.get("mesh", {})
    rules = rules.get("rules") if isinstance(rules, dict) else None
    if isinstance(rules, dict) and "length" in rules:
        data = _with_field(data, ["mesh", "rules"], "residual_length", rules["length"])
    return data


def _with_fields(data: dict[str, Any], added: dict[tuple[str, str], Any]) -> dict[str, Any]:
    for (owner, name), value in added.items():
        data = _with_field(data, list(filter(None, owner.split("."))), name, value)
    return data


def _with_field(data: dict[str, Any], owner: list[str], name: str, value: object) -> dict[str, Any]:
    """A copy with `name` in the object at the path `owner`, if that is an object without it."""
    if not owner:
        return {name: value} | data
    inner = data.get(owner[0])
    if not isinstance(inner, dict):
        return data  # missing or of a wrong type: the reader says so
    return data | {owner[0]: _with_field(inner, owner[1:], name, value)}
