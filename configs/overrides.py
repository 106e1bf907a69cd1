"""Any field of a run's config as a command-line option, beside a command's own options.

    isoflop train decoder_only/tiny --out runs/a --training.num-steps 500 --model.no-tie-embeddings
                  own argument      own option   overrides: their names have a dot

tyro does the parsing and prints `--help`; unknown options are caught before, to say which one may
have been meant.
"""

import copy
import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import tyro

from configs.errors import InputError
from configs.option_parser import parse_options
from configs.presets import PRESETS
from configs.schema import RunConfig
from configs.serialize import did_you_mean, field_types, load_config, shown, variants

T = TypeVar("T")

_OPTION = re.compile(r"--[A-Za-z_].*|-h", re.DOTALL)
_OVERRIDE = re.compile(r"--[A-Za-z_][\w-]*(\.[\w-]+)+(=.*)?", re.DOTALL)


class Field(NamedTuple):
    """A leaf of a RunConfig: how many values its option takes (None: any number), and the
    variants it chooses from where it is the `kind` of a union."""

    num_values: int | None
    variants: Mapping[str, type]


def apply_overrides(config: RunConfig, args: Sequence[str]) -> RunConfig:
    """A copy of `config` with command-line overrides applied and all checks run anew.

    Args:
      config: what the options are defaults of.
      args: `--training.num-steps 5`, `--model.attention.num_heads=8`, `--model.no-tie-embeddings`,
        `--mesh.rules.batch data fsdp`. Hyphens and underscores are the same; the last of two
        settings of a field counts. `--optimizer.schedule.kind warmup_stable_decay` changes the
        variant of a union, whose fields then start from that variant's defaults. A union inside
        the variant of another is set after it, in whichever order the options are.

    Raises:
      InputError: unknown option, value of the wrong type, stray value, or a check of the schema.
    """
    known = field_names()
    kept: list[str] = []
    kinds: list[tuple[str, str]] = []
    for option, values in _groups(args):
        path = _path(option)
        if option != "-h" and option != "--help":
            _check_option(option, values, known)
        if path in known and known[path].variants:
            kinds.append((path, values[0]))
        elif path in known and known[path].num_values == 1:
            kept.append(f"{option}={values[0]}")  # so that a value of -1 or -h stays a value
        else:
            kept += [option, *values]
    for path, kind in sorted(kinds, key=lambda setting: setting[0].count(".")):
        config = _with_variant(config, path, kind, known[path].variants)
    parsed, unknown = parse_options(
        RunConfig,
        kept,
        default=config,
        prog="isoflop",
        config=(tyro.conf.AvoidSubcommands,),
    )
    if unknown:
        raise _of_another_variant(config, unknown[0].partition("=")[0])
    return parsed


def parse_command(
    command: type[T], args: Sequence[str], *, prog: str, description: str
) -> tuple[T, list[str]]:
    """Parses a command's own options with tyro and leaves overrides of the config aside.

    An argument is an override when its name has a dot (`--training.num-steps 5`); it is set aside
    with its values before tyro looks, so it never feeds a positional argument.

    Args:
      command: a dataclass; its defaults and field docstrings are what `--help` shows.
      args: the arguments after the command's name.
      prog: what help shows as the program, such as "isoflop train".
      description: the text at the head of `--help`.

    Returns:
      The dataclass, and the overrides in the order given: for `apply_overrides`, or for
      `reject_overrides` where the command takes none.

    Raises:
      InputError: unknown option, missing or mistyped value.
      SystemExit: with code 0, after printing `--help`.
    """
    own, overrides = split_overrides(args)
    names = [_spelled(name) for name in inspect.signature(command).parameters]
    parsed, unknown = parse_options(command, own, prog=prog, description=description)
    if unknown:
        option = unknown[0].partition("=")[0]
        if not _OPTION.fullmatch(option):
            raise InputError(f"{prog}: got {option!r}, expected no such argument; see --help")
        near = did_you_mean(option.replace("_", "-"), names + _spellings(field_names()))
        raise InputError(f"{option}: got an unknown option of {prog}{near or '; see --help'}")
    return parsed, overrides


def reject_overrides(overrides: Sequence[str], *, prog: str) -> None:
    """Raises InputError where a command without a config to override was given overrides."""
    if overrides:
        option = overrides[0].partition("=")[0]
        raise InputError(f"{option}: got an unknown option of {prog}; see --help")


def split_overrides(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """(a command's own arguments, overrides with their values), each in the order given.

    Before: `["tiny", "--training.num-steps", "5", "--out", "a", "--model.no-tie-embeddings"]`
    After:  `["tiny", "--out", "a"], ["--training.num-steps", "5", "--model.no-tie-embeddings"]`

    Nothing after `--` is an override.
    """
    known = field_names()
    own: list[str] = []
    overrides: list[str] = []
    rest = list(args)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*own, argument, *rest], overrides
        if not _OVERRIDE.fullmatch(argument):
            own.append(argument)
            continue
        overrides.append(argument)
        if "=" in argument:
            continue
        # An unknown option takes one value: the error that follows names the option anyway.
        field = known.get(_path(argument), Field(1, {}))
        num_values = len(rest) if field.num_values is None else field.num_values
        while num_values > 0 and rest and not rest[0].startswith("--"):
            overrides.append(rest.pop(0))
            num_values -= 1
    return own, overrides


def load_preset_or_file(name: str) -> RunConfig:
    """The RunConfig of a preset's name, or of the file at a path that ends in .json.

    Raises:
      InputError: neither of the two, or a file that `load_config` refuses.
    """
    if name in PRESETS:
        return PRESETS[name]()
    if Path(name).suffix == ".json":
        return load_config(name)
    raise InputError(
        f"config: got {shown(name)}, expected a path to a .json file or one of the presets "
        f"{', '.join(PRESETS)}{did_you_mean(name, PRESETS)}"
    )


def field_names() -> dict[str, Field]:
    """Every option of a RunConfig as a dotted name with underscores, over all variants."""
    return dict(_leaves(RunConfig, ""))


def _leaves(cls: type, prefix: str) -> Iterator[tuple[str, Field]]:
    for name, hint in field_types(cls).items():
        path = f"{prefix}{name}"
        if kinds := variants(hint):
            for member in kinds.values():
                yield from _leaves(member, f"{path}.")
            yield f"{path}.kind", Field(1, kinds)
        elif dataclasses.is_dataclass(hint):
            yield from _leaves(typing.cast(type, hint), f"{path}.")
        elif hint is bool:
            yield path, Field(0, {})
            yield f"{prefix}no_{name}", Field(0, {})
        else:
            yield path, Field(None if typing.get_origin(hint) is tuple else 1, {})


def _groups(args: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(option, its values) in order."""
    groups: list[tuple[str, list[str]]] = []
    for argument in args:
        if _OPTION.fullmatch(argument):
            option, equals, value = argument.partition("=")
            groups.append((option, [value] if equals else []))
        elif groups:
            groups[-1][1].append(argument)
        else:
            raise InputError(
                f"arguments: got {argument!r}, expected an option such as --data.seed 1"
            )
    return groups


def _check_option(option: str, values: Sequence[str], known: Mapping[str, Field]) -> None:
    path = _path(option)
    if path not in known:
        near = did_you_mean(option.replace("_", "-"), _spellings(known))
        raise InputError(f"{option}: got an unknown option{near or '; see --help'}")
    num_values = known[path].num_values
    if num_values is None or len(values) == num_values:
        return
    got = repr(" ".join(values)) if values else "nothing"
    if num_values:
        raise InputError(f"{option}: got {got}, expected one value")
    parent, _, name = path.rpartition(".")
    negated = f"{parent}.no_{name.removeprefix('no_')}"
    raise InputError(
        f"{option}: got {got}, expected no value: a switch is turned off by {_spelled(negated)}"
    )


def _with_variant(config: RunConfig, path: str, kind: str, kinds: Mapping[str, type]) -> RunConfig:
    """`config` with the union at `path` (which ends in .kind) set to a variant's defaults.

    Returns `config` unchanged where the union has that kind already. Checks across fields are
    left to the parse that follows: other options may yet make the whole consistent.
    """
    kind = kind.replace("-", "_")
    if kind not in kinds:
        raise InputError(
            f"{_spelled(path)}: got {kind!r}, expected one of {', '.join(kinds)}"
            f"{did_you_mean(kind, kinds)}"
        )
    *owners, name = path.split(".")[:-1]
    chain: list[Any] = [config]
    for owner in owners:
        chain.append(getattr(chain[-1], owner))
    if not hasattr(chain[-1], name):
        raise _of_another_variant(config, _spelled(path))
    if getattr(chain[-1], name).kind == kind:
        return config
    value: Any = kinds[kind]()
    for owner, field in zip(reversed(chain), [name, *reversed(owners)], strict=True):
        changed = copy.copy(owner)
        object.__setattr__(changed, field, value)
        value = changed
    return value


def _of_another_variant(config: RunConfig, option: str) -> InputError:
    """What to raise for an option that `config` lacks, though a variant of some union has it."""
    owners = _path(option).split(".")[:-1]
    owner: Any = config
    depth = 0
    while depth < len(owners) and hasattr(owner, owners[depth]):
        owner = getattr(owner, owners[depth])
        depth += 1
    union = ".".join(owners[:depth])
    return InputError(
        f"{option}: got an option of another variant than the chosen one; "
        f"choose it with {_spelled(union + '.kind')}"
    )


def _path(option: str) -> str:
    """`--training.num-steps=5` -> `training.num_steps`."""
    return option.partition("=")[0].removeprefix("--").replace("-", "_")


def _spelled(path: str) -> str:
    """`training.num_steps` -> `--training.num-steps`."""
    return f"--{path.replace('_', '-')}"


def _spellings(known: Mapping[str, Field]) -> list[str]:
    return [_spelled(path) for path in known]
