"""Examples that are made rather than read: builders by name, with the settings they take."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from configs.errors import InputError, require
from configs.serialize import did_you_mean
from data.tasks import library, probes

Records = list[dict[str, Any]]

BUILDERS: Mapping[str, Callable[..., Records]] = {
    "copy": probes.copy,
    "reverse": probes.reverse,
    "induction": probes.induction,
    "mapping": probes.mapping,
    "module_of_docstring": library.module_of_docstring,
    "docstring_of_name": library.docstring_of_name,
    "imported_name": library.imported_name,
    "closing_bracket": library.closing_bracket,
}


def build_records(name: object, settings: Mapping[str, object]) -> Records:
    """The examples a builder makes; equal settings make equal ones.

    Args:
      name: one of `BUILDERS`.
      settings: whole numbers by the names of the builder's parameters; those left out keep their
        defaults.

    Raises:
      InputError: an unknown builder or setting, or a value that is no whole number or too small.
    """
    known = ", ".join(BUILDERS)
    if not isinstance(name, str) or name not in BUILDERS:
        near = did_you_mean(str(name), BUILDERS)
        raise InputError(f"examples.builder: got {name!r}, expected one of {known}{near}")
    builder = BUILDERS[name]
    parameters = inspect.signature(builder).parameters
    for setting, value in settings.items():
        field = f"examples.{setting}"
        if setting not in parameters:
            near = did_you_mean(setting, parameters)
            raise InputError(
                f"{field}: got an unknown setting of {name}, expected one of "
                f"{', '.join(parameters)}{near}"
            )
        lowest = 0 if setting == "seed" else 1
        whole = type(value) is int and value >= lowest
        require(whole, field, value, f"a whole number, {lowest} or more")
    return builder(**settings)
