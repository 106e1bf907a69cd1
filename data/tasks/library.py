"""Tasks about the standard library, from the files that are held out from training.

Examples and shots alike are of held-out files, so a model has met neither. Everything is read from
the syntax tree or the tokens of the source; nothing is imported or run.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from data.sources.stdlib import StdlibSource

_MAX_CHOICES = 4
_SHORTEST, _LONGEST = 12, 60  # characters of a docstring's first line; shots have to be short
_LONGEST_LINE = 40
_CLOSED = re.compile(r"^(?P<code>.*?[^)\]}])(?P<closing>[)\]}]{1,2})$")
_PAIRS = {")": "(", "]": "[", "}": "{"}

Record = dict[str, Any]


class HeldOutFile(NamedTuple):
    """module: its dotted name. text: its source."""

    module: str
    text: str


class Described(NamedTuple):
    """A function, class or module and the first line of its docstring."""

    module: str
    name: str
    line: str


def module_of_docstring(*, seed: int = 0, count: int = 200) -> list[Record]:
    """The first line of a docstring, and the module it belongs to, among four.

    Example: {"input": "Create and return a temporary directory.", "target": "tempfile",
      "choices": ["pdb", "tempfile", "uuid", "enum"]}.
    """
    rng = np.random.default_rng([seed, 1])
    found = _unique(described(), by="line")
    modules = sorted({one.module for one in found})
    return [
        {
            "input": one.line,
            "target": one.module,
            "choices": _among(rng, one.module, modules),
        }
        for one in _drawn(rng, found, count)
    ]


def docstring_of_name(*, seed: int = 0, count: int = 200) -> list[Record]:
    """The name of a function or class, and the first line of its docstring, among four.

    Example: {"input": "mkdtemp", "target": "Create and return a temporary directory.",
      "choices": [four first lines]}.
    """
    rng = np.random.default_rng([seed, 2])
    found = [one for one in described() if one.name and not one.name.startswith("__")]
    found = _unique(_unique(found, by="name"), by="line")
    lines = [one.line for one in found]
    return [
        {"input": one.name, "target": one.line, "choices": _among(rng, one.line, lines)}
        for one in _drawn(rng, found, count)
    ]


def imported_name(*, seed: int = 0, count: int = 200) -> list[Record]:
    """The beginning of an import, and what it imports, among four names that files import.

    Example: {"input": "from functools import", "target": "partial", "choices": [four names]}.
    """
    rng = np.random.default_rng([seed, 3])
    names_of = defaultdict(set)
    for file in held_out_files():
        for node in ast.walk(ast.parse(file.text)):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names_of[node.module].update(a.name for a in node.names if a.name != "*")
    pairs = sorted((module, name) for module, names in names_of.items() for name in names)
    every = sorted({name for _, name in pairs})
    return [
        {
            "input": f"from {module} import",
            "target": name,
            "choices": _among(rng, name, [n for n in every if n not in names_of[module]]),
        }
        for module, name in _drawn(rng, pairs, count)
    ]


def closing_bracket(*, seed: int = 0, count: int = 200) -> list[Record]:
    """A line of code without the one or two brackets that end it, and those, among as many.

    Kinds of endings come equally often as far as there are lines: code alone would nearly always
    end with ")".

    Example: {"input": "return self._cache[key(", "target": ")]", "choices": ["))", ")]", …]}.
    """
    rng = np.random.default_rng([seed, 4])
    by_closing = defaultdict(set)
    for file in held_out_files():
        for line in map(str.strip, file.text.split("\n")):
            match = _CLOSED.fullmatch(line)
            if match and len(line) <= _LONGEST_LINE and _open_brackets(line) == "":
                by_closing[match["closing"]].add(match["code"])
    queues = {
        closing: _drawn(rng, sorted(lines), len(lines))
        for closing, lines in sorted(by_closing.items())
    }
    records = []
    for turn in range(max(map(len, queues.values()), default=0)):
        for closing, lines in queues.items():
            if turn < len(lines):
                others = ["".join(o) for o in product(")]}", repeat=len(closing))]
                choices = _among(rng, closing, others)
                records.append({"input": lines[turn], "target": closing, "choices": choices})
    kept = records[:count]
    return [kept[i] for i in rng.permutation(len(kept))]


@cache
def held_out_files() -> tuple[HeldOutFile, ...]:
    """The library's files that no corpus trains on, by name; those that Python can parse."""
    source = StdlibSource()
    files = []
    for name in sorted(source.pinned_held_out):
        path = source.folder / name
        if path.is_file():
            module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            files.append(HeldOutFile(module, path.read_text("utf-8")))
    return tuple(files)


def described() -> Iterator[Described]:
    """What has a docstring, with its first line where that has a fitting length; a module's own
    name is empty."""
    for file in held_out_files():
        for node in ast.walk(ast.parse(file.text)):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                line = (ast.get_docstring(node) or "").partition("\n")[0].strip()
                if _SHORTEST <= len(line) <= _LONGEST:
                    yield Described(file.module, getattr(node, "name", ""), line)


def _unique(found: Iterator[Described] | list[Described], *, by: str) -> list[Described]:
    """Those whose name or line no other has."""
    groups = defaultdict(list)
    for one in found:
        groups[getattr(one, by)].append(one)
    return [group[0] for _, group in sorted(groups.items()) if len(group) == 1]


def _drawn(rng: np.random.Generator, items: Sequence[Any], count: int) -> list[Any]:
    return [items[i] for i in rng.permutation(len(items))[:count]]


def _among(rng: np.random.Generator, target: str, others: Sequence[str]) -> list[str]:
    """`target` among three of `others` that are not it, in random order."""
    wrong = [other for other in others if other != target]
    choices = [target, *_drawn(rng, wrong, _MAX_CHOICES - 1)]
    return [choices[i] for i in rng.permutation(len(choices))]


def _open_brackets(line: str) -> str | None:
    """The brackets a line leaves open, "" where they match; None where they cannot, or where
    strings or comments may hold some."""
    if re.search(r"[\"'#\\]", line):
        return None
    opened = ""
    for character in line:
        if character in _PAIRS.values():
            opened += character
        elif character in _PAIRS:
            if not opened.endswith(_PAIRS[character]):
                return None
            opened = opened[:-1]
    return opened
