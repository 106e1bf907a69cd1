"""The export families, by the name `--family` takes."""

from configs.errors import InputError
from export.families.family import Family
from export.families.llama import LLAMA

FAMILIES: dict[str, Family] = {family.name: family for family in (LLAMA,)}


def get_family(name: str) -> Family:
    """The family called `name`. Raises InputError on a name that is not in the table."""
    if name not in FAMILIES:
        raise InputError(f"family: got {name!r}, expected one of {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def family_of(model_type: object) -> Family:
    """The family of a config.json's `model_type`. Raises InputError where we have none."""
    for family in FAMILIES.values():
        if family.model_type == model_type:
            return family
    known = ", ".join(sorted(repr(family.model_type) for family in FAMILIES.values()))
    raise InputError(f"model_type: got {model_type!r}, expected {known}")
