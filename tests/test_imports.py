"""The walls of the house: which room may import which, and which third-party package where.

Checked twice: on the syntax tree, imports inside functions included, and by importing every
module of the rooms that must work without JAX in a fresh interpreter.
"""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Room -> the rooms it may import, besides itself. tests and benchmarks may import anything.
ALLOWED = {
    "configs": set(),
    "planner": {"configs"},
    "data": {"configs"},
    "model": {"configs"},
    "train": {"configs", "planner", "data", "model"},
    "inference": {"configs", "data", "model", "train"},
    "export": {"configs", "data", "model", "train"},
    "report": {"configs", "planner"},
}
ALLOWED["workflows"] = set(ALLOWED)
ALLOWED["isoflop"] = {*ALLOWED}
ROOMS = set(ALLOWED)

# Third-party package -> where it may be imported: a room, or a path inside one.
PLACES = {
    "flax": ("model",),
    "jax": ("model", "train", "inference", "export", "workflows", "isoflop"),
    "grain": ("train",),
    "transformers": ("export", "inference/harness"),
    "torch": ("export", "inference/harness"),
    "lm_eval": ("inference/harness",),
}
# Extras: absent from a plain installation, so imported inside the functions that need them.
EXTRAS = {
    "transformers", "torch", "lm_eval", "tensorflow", "apache_beam", "datasets", "libtpu", "umap",
}  # fmt: skip
WITHOUT_JAX = ("configs", "planner", "data")
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "manager"}


class Import(NamedTuple):
    file: str
    line: int
    module: str
    at_import_time: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def source_files() -> list[Path]:
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    door = ROOT / "isoflop.py"
    return sorted([*files, *([door] if door.exists() else [])])


def room_of(file: str) -> str:
    return Path(file).parts[0].removesuffix(".py")


def imports_in(source: str, file: str) -> list[Import]:
    found: list[Import] = []

    def visit(node: ast.AST, at_import_time: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(file, node.lineno, a.name, at_import_time) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = list(Path(file).parent.parts)
            base = package[: len(package) - node.level + 1] if node.level else []
            # `from . import x` and `from pkg import x` may both name a module.
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [module] if module else [a.name for a in node.names]
            found.extend(Import(file, node.lineno, name, at_import_time) for name in names)
        for child in ast.iter_child_nodes(node):
            lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_typing_only(node)
            visit(child, at_import_time and not lazy)

    visit(ast.parse(source, filename=file), True)
    return found


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def all_imports() -> list[Import]:
    return [
        found
        for file in source_files()
        for found in imports_in(file.read_text(), file.relative_to(ROOT).as_posix())
    ]


def crosses_a_wall(found: Import) -> bool:
    room = room_of(found.file)
    return found.package in ROOMS and found.package not in {room, *ALLOWED[room]}


def is_out_of_place(found: Import) -> bool:
    places = PLACES.get(found.package)
    return places is not None and not any(
        found.file == f"{place}.py" or found.file.startswith(f"{place}/") for place in places
    )


def test_rooms_import_only_the_rooms_they_may():
    assert [str(found) for found in all_imports() if crosses_a_wall(found)] == []


def test_third_party_packages_stay_where_they_belong():
    assert [str(found) for found in all_imports() if is_out_of_place(found)] == []


def test_extras_are_imported_lazily():
    eager = [f for f in all_imports() if f.package in EXTRAS and f.at_import_time]
    assert [str(found) for found in eager] == []


def test_the_front_door_imports_rooms_lazily():
    eager = [
        found
        for found in all_imports()
        if found.file == "isoflop.py" and found.at_import_time and found.package in ROOMS
        if found.package != "configs"
    ]
    assert [str(found) for found in eager] == []


def test_no_module_has_a_name_that_means_anything():
    folders = [*ROOMS, "tests", "benchmarks"]
    names = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.stem in BANNED_NAMES]
    assert names == []


def test_every_package_is_listed_in_pyproject():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {file.parent.relative_to(ROOT).as_posix() for file in source_files()} - {"."}
    assert {folder.replace("/", ".") for folder in folders} - set(listed) == set()
    assert [folder for folder in folders if not (ROOT / folder / "__init__.py").exists()] == []


def modules_of(room: str) -> list[str]:
    files = [file for file in source_files() if room_of(file.relative_to(ROOT).as_posix()) == room]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("room", WITHOUT_JAX)
def test_importing_every_module_of_the_room_leaves_jax_unloaded(room):
    script = (
        "import importlib, sys\n"
        f"for name in {modules_of(room)!r}:\n"
        "    importlib.import_module(name)\n"
        "    loaded = {'jax', 'flax', 'grain', 'tensorflow', 'torch'} & set(sys.modules)\n"
        "    if loaded: sys.exit(f'{name} loads {sorted(loaded)}')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "file, source, check",
    [
        ("data/rows.py", "def f():\n    import model.build", crosses_a_wall),
        ("configs/a.py", "from planner.laws import LAWS", crosses_a_wall),
        ("train/loop.py", "from workflows import pretrain", crosses_a_wall),
        ("workflows/a.py", "import isoflop", crosses_a_wall),
        ("train/step.py", "import flax.linen as nn", is_out_of_place),
        ("data/rows.py", "from grain import python", is_out_of_place),
        ("planner/plan.py", "def f():\n    import jax", is_out_of_place),
        ("inference/generate.py", "import torch", is_out_of_place),
        ("report/page.py", "import jax.numpy as jnp", is_out_of_place),
    ],
)
def test_the_checker_sees_a_forbidden_import(file, source, check):
    assert [check(found) for found in imports_in(source, file)] == [True]


@pytest.mark.parametrize(
    "file, source",
    [
        ("train/loop.py", "from planner.accounting import flops"),
        ("model/block.py", "import flax.linen as nn\nimport jax"),
        ("inference/harness.py", "def f():\n    import torch"),
        ("export/families/llama.py", "from ..convert import Rule"),
        ("isoflop.py", "def f():\n    from workflows import pretrain"),
    ],
)
def test_the_checker_lets_an_allowed_import_pass(file, source):
    assert not any(crosses_a_wall(f) or is_out_of_place(f) for f in imports_in(source, file))


def test_imports_under_type_checking_or_in_functions_are_lazy():
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "def f():\n    import torch\n"
        "try:\n    import torch\nexcept ImportError: pass\n"
    )
    torch = [found for found in imports_in(source, "export/a.py") if found.package == "torch"]
    assert [found.at_import_time for found in torch] == [False, False, True]
