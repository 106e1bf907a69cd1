"""A config.json of an earlier schema version as one of the present version.

What a later version added is given the value under which a run means what it meant; every other
field stays as written, and is checked as strictly as in a new file.
"""

from typing import Any

READABLE_VERSIONS = (2, 3)
"""Schema versions of a config.json that can be read; the last is the one written."""

# Dotted owner and name of a field that version 3 added -> what it was before it could be chosen.
# Values, not the dataclasses' defaults: those may change, a written file's meaning may not.
_ADDED_IN_3: dict[tuple[str, str], Any] = {
    ("mesh", "replica"): 1,
    ("mesh", "sequence"): 1,
    ("model.attention", "kernel"): "auto",
    ("model", "remat_pattern"): ["remat"],
}


def brought_up_to_date(data: dict[str, Any], version: int) -> dict[str, Any]:
    """The JSON object of a run's configuration, as the last of READABLE_VERSIONS has it.

    Args:
      data: without its `schema_version`; it may hold anything, and is left as it is. Fields that
        are there already are kept.
      version: of `data`, one of READABLE_VERSIONS.
    """
    if version >= 3:
        return data
    for (owner, name), value in _ADDED_IN_3.items():
        data = _with_field(data, owner.split("."), name, value)
    rules = data.get("mesh", {})
    rules = rules.get("rules") if isinstance(rules, dict) else None
    if isinstance(rules, dict) and "length" in rules:
        # One rule cut rows and what layers add to alike. With the version's own rules neither
        # is cut: the new axes of the mesh are used only where its rules are written anew.
        data = _with_field(data, ["mesh", "rules"], "residual_length", rules["length"])
    return data


def _with_field(data: dict[str, Any], owner: list[str], name: str, value: object) -> dict[str, Any]:
    """A copy with `name` in the object at the path `owner`, if that is an object without it."""
    if not owner:
        return {name: value} | data
    inner = data.get(owner[0])
    if not isinstance(inner, dict):
        return data  # missing or of a wrong type: the reader says so
    return data | {owner[0]: _with_field(inner, owner[1:], name, value)}
