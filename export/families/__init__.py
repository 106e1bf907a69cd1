"""The export families, by the name `--family` takes."""

from collections.abc import Mapping
from typing import Any

from configs.errors import InputError
from export.families.bart import BART
from export.families.bert import BERT
from export.families.family import Family
from export.families.gemma2 import GEMMA2
from export.families.gemma3 import GEMMA3
from export.families.gpt2 import GPT2
from export.families.llama import LLAMA
from export.families.mixtral import MIXTRAL
from export.families.modernbert import MODERNBERT
from export.families.qwen3 import QWEN3
from export.families.roberta import ROBERTA
from export.families.t5 import T5

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        LLAMA,
        QWEN3,
        GEMMA2,
        GEMMA3,
        GPT2,
        MIXTRAL,
        BERT,
        ROBERTA,
        MODERNBERT,
        T5,
        BART,
    )
}


def get_family(name: str) -> Family:
    """The family called `name`. Raises InputError on a name that is not in the table."""
    if name not in FAMILIES:
        raise InputError(f"family: got {name!r}, expected one of {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def family_of(theirs: Mapping[str, Any]) -> Family:
    """The family of a config.json, by its `model_type` and the class of its `architectures`.

    Raises:
      InputError: a model type we have no table for, or a class that has another head or none.
    """
    model_type = theirs.get("model_type")
    by_type = {family.model_type: family for family in FAMILIES.values()}
    if not isinstance(model_type, str) or model_type not in by_type:
        known = ", ".join(sorted(map(repr, by_type)))
        raise InputError(f"model_type: got {model_type!r}, expected {known}")
    family, classes = by_type[model_type], theirs.get("architectures")
    if classes:
        one = isinstance(classes, list) and len(classes) == 1
        if not one or classes[0] not in family.architectures:
            known = " or ".join(family.architectures)
            raise InputError(f"architectures: got {classes!r}, expected {known}")
    return family
