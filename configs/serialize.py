"""Strict JSON for the dataclasses of `configs.schema`, and the one place that writes JSON files.

Every field must be there, none may be extra, each must have its type: `true` is no number, `5.0`
is no whole number, `5` is accepted where a fraction may stand. Unions are told apart by `kind`.

    {"optimizer": {"schedule": {"kind": "cosine", "warmup_steps": 100, "final_fraction": 0.1}, ...

A file additionally carries `schema_version` at its top level; files of an earlier version are read
as `configs.earlier_versions` says.
"""

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import json
import math
import os
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from configs.earlier_versions import READABLE_VERSIONS, brought_up_to_date
from configs.errors import InputError
from configs.schema import RunConfig

SCHEMA_VERSION = READABLE_VERSIONS[-1]

_SHOWN_CHARACTERS = 80
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    type(None): "null",
}

Config = TypeVar("Config")


def to_json(config: Any) -> dict[str, Any]:
    """The JSON object of a configuration dataclass: field name -> plain JSON value.

    Numbers take the declared type (a learning rate of 1 is written 1.0), so that equal
    configurations have equal JSON.
    """
    hints = field_types(type(config))
    return {name: _plain(getattr(config, name), hint) for name, hint in hints.items()}


def from_json(cls: type[Config], data: object, *, field: str = "") -> Config:
    """Builds a configuration dataclass from a JSON object, checking everything.

    Args:
      cls: one of the dataclasses of `configs.schema`.
      data: the parsed JSON object.
      field: dotted name under which errors report `data`; "" for a whole run.

    Raises:
      InputError: unknown field, missing field, wrong type, unknown `kind`, or whatever the
        dataclass checks itself; each names the full dotted field.
    """
    return _build(cls, data, field)


def dumps(config: RunConfig) -> str:
    """The text of a config.json: `schema_version` first, then the fields in declared order."""
    return _text({"schema_version": SCHEMA_VERSION, **to_json(config)})


def save(config: RunConfig, path: str | os.PathLike[str]) -> None:
    """Writes config.json at `path`, whole or not at all."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **to_json(config)})


def load_config(path: str | os.PathLike[str]) -> RunConfig:
    """Reads a config.json, of this schema version or of one in READABLE_VERSIONS.

    Raises:
      InputError: unreadable file, invalid JSON, another schema version, or any field that
        `from_json` refuses; the message starts with the path.
    """
    data = read_json(path)
    try:
        if not isinstance(data, dict):
            raise InputError(f"config: got {shown(data)}, expected a JSON object")
        version = data.pop("schema_version", None)
        if type(version) is not int or version not in READABLE_VERSIONS:
            got = "nothing" if version is None else shown(version)
            expected = " or ".join(map(str, READABLE_VERSIONS))
            raise InputError(f"schema_version: got {got}, expected {expected}")
        return from_json(RunConfig, brought_up_to_date(data, version))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def deciding(config: RunConfig) -> dict[str, Any]:
    """The config as JSON types without what does not decide the numbers: where corpora lie and how
    many threads read them."""
    data = {"schema_version": SCHEMA_VERSION, **to_json(config)}
    data["data"] = {
        name: value
        for name, value in data["data"].items()
        if name not in ("corpus", "read_threads")
    }
    data["data"]["mixture"] = {
        name: value for name, value in data["data"]["mixture"].items() if name != "corpora"
    }
    return data


def fingerprint(config: RunConfig) -> str:
    """SHA-256 (hex) of everything that decides the numbers (`deciding`).

    The same on every machine and Python version, whatever the order of keys.
    """
    canonical = json.dumps(deciding(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def write_json(path: str | os.PathLike[str], obj: object) -> None:
    """Writes a JSON file atomically, see `write_text`.

    Raises:
      ValueError: `obj` holds NaN or infinity, which JSON cannot express (write null instead).
      OSError: the file system refuses; what was at `path` is untouched.
    """
    write_text(path, _text(obj))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 file atomically: temporary name beside it, fsync, rename.

    A reader sees the old file or the new one, never a part. The folder must exist.

    Raises:
      OSError: the file system refuses; what was at `path` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    # The rename itself is durable once the folder is synced.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file; NaN, infinity and a key given twice are refused.

    Raises:
      InputError: the file cannot be read or is not JSON.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"{path}: got {reason!r}, expected a readable JSON file") from None
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: got invalid JSON ({error}), expected a JSON file") from None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the option nearest to `word`, "" where none is near."""
    near = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def shown(value: object) -> str:
    """`repr` of a value on one line, cut to a length that fits an error message."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


@functools.cache
def field_types(cls: type) -> Mapping[str, Any]:
    """Field name -> declared type of a configuration dataclass, in declared order."""
    hints = typing.get_type_hints(cls)
    return types.MappingProxyType({f.name: hints[f.name] for f in dataclasses.fields(cls)})


def variants(hint: Any) -> dict[str, type]:
    """`kind` -> dataclass of a union of dataclasses; {} for any other type."""
    if not _is_union(hint):
        return {}
    members = [member for member in typing.get_args(hint) if dataclasses.is_dataclass(member)]
    return {typing.get_args(field_types(m)["kind"])[0]: m for m in members}  # type: ignore[arg-type]


def _text(obj: object) -> str:
    return json.dumps(obj, indent=2, allow_nan=False) + "\n"


def _plain(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, tuple):
        return [_plain(item, typing.get_args(hint)[0]) for item in value]
    return float(value) if hint is float else value


def _build(cls: type[Config], data: object, field: str) -> Config:
    if not isinstance(data, dict):
        raise InputError(f"{field or 'config'}: got {shown(data)}, expected a JSON object")
    hints = field_types(cls)
    for name in data:
        if name not in hints:
            expected = f"one of {', '.join(hints)}"
            raise InputError(
                f"{_dotted(field, name)}: got an unknown field, "
                f"expected {expected}{did_you_mean(name, hints)}"
            )
    for name, hint in hints.items():
        if name not in data:
            raise InputError(f"{_dotted(field, name)}: got nothing, expected {_words(hint)}")
    values = {name: _value(data[name], hint, _dotted(field, name)) for name, hint in hints.items()}
    return cls(**values)


def _value(value: Any, hint: Any, field: str) -> Any:
    """`value` as the declared type, or an InputError naming `field`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, field)
    if _is_union(hint):
        return _union(value, hint, field)
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            near = did_you_mean(value, map(str, arguments)) if isinstance(value, str) else ""
            raise InputError(f"{field}: got {shown(value)}, expected {_words(hint)}{near}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{field}: got {shown(value)}, expected {_words(hint)}")
        return tuple(_value(item, arguments[0], f"{field}[{i}]") for i, item in enumerate(value))
    if hint is float and type(value) is int:
        # A whole number too large for a float is refused below like infinity.
        value = float(value) if abs(value) < 2**1023 else math.inf
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise InputError(f"{field}: got {shown(value)}, expected {_words(hint)}")
    return value


def _union(value: Any, hint: Any, field: str) -> Any:
    if value is None and type(None) in typing.get_args(hint):
        return None
    kinds = variants(hint)
    if not kinds:  # an optional plain value
        (member,) = (m for m in typing.get_args(hint) if m is not type(None))
        return _value(value, member, field)
    if not isinstance(value, dict):
        raise InputError(f"{field}: got {shown(value)}, expected {_words(hint)}")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        got = shown(kind) if "kind" in value else "nothing"
        near = did_you_mean(kind, kinds) if isinstance(kind, str) else ""
        raise InputError(f"{field}.kind: got {got}, expected one of {', '.join(kinds)}{near}")
    return _build(kinds[kind], value, field)


def _words(hint: Any) -> str:
    """What a declared type is called in an error message."""
    if typing.get_origin(hint) is Literal:
        choices = [str(choice) for choice in typing.get_args(hint)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if typing.get_origin(hint) is tuple:
        return "a list"
    kinds = variants(hint)
    if kinds:
        return f"a JSON object with kind {' or '.join(kinds)}"
    if _is_union(hint):
        return " or ".join(_words(member) for member in typing.get_args(hint))
    return _WORDS.get(hint, "a JSON object")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _dotted(field: str, name: object) -> str:
    return f"{field}.{name}" if field else str(name)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} is given twice")
    return dict(pairs)
