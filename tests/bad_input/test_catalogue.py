"""The catalogue of bad input: exit 2, one line that names the field or file, the disk as it was.

Most cases run in this process, where each takes milliseconds; some are run again as a user runs
them. The line about how programs are compiled may stand before the error's: it is printed at once,
so that a crash in the compiler shows its flags.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import isoflop
from tests.bad_input import (
    command_cases,
    configs_cases,
    data_cases,
    foreign_cases,
    planner_cases,
    run_cases,
)
from tests.bad_input.case import Case
from tests.bad_input.workspace import make_workspace

ROOT = Path(__file__).resolve().parents[2]
MOST_SECONDS = 15

CASES = [
    *configs_cases.CASES,
    *command_cases.CASES,
    *data_cases.CASES,
    *run_cases.CASES,
    *foreign_cases.CASES,
    *planner_cases.CASES,
]


# One of every kind, as a user meets them: the exit status is the process's own.
AS_A_USER = (
    "front door: a command misspelt",
    "doctor: unknown option",
    "config: cut short",
    "field: unknown, inside",
    "train: run below a file",
    "corpus: training file with a flipped bit",
    "source: JSON lines without text",
    "checkpoint: a flipped bit",
    "index: file outside",
    "fit: a loss of NaN",
)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    make_workspace(folder)
    return folder


@pytest.fixture
def workspace(pristine, tmp_path, monkeypatch) -> Path:
    """A copy of the pristine folder, in which this process works."""
    folder = tmp_path / "work"
    shutil.copytree(pristine, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def environment():
    """Flags that a command sets for the compiler end with it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_bad_input_is_one_line_and_leaves_the_disk_as_it_was(
    bad: Case, workspace, capsys, monkeypatch
):
    for damage in bad.damage:
        damage()
    before, start = snapshot(workspace.parent), time.perf_counter()
    status = isoflop.run(bad.args)
    seconds = time.perf_counter() - start
    check(bad, status, capsys.readouterr().err, seconds)
    assert snapshot(workspace.parent) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", AS_A_USER)
def test_a_process_of_its_own_says_the_same(name: str, workspace):
    [bad] = [bad for bad in CASES if bad.name == name]
    for damage in bad.damage:
        damage()
    before, start = snapshot(workspace.parent), time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(ROOT / "isoflop.py"), *bad.args],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    check(bad, done.returncode, done.stderr, time.perf_counter() - start)
    assert snapshot(workspace.parent) == before


def test_every_command_is_refused_three_inputs():
    counts = Counter(bad.args[0] for bad in CASES)
    assert {command: counts[command] for command in isoflop.COMMANDS if counts[command] < 3} == {}
    assert len({bad.name for bad in CASES}) == len(CASES)


def check(bad: Case, status: int, stderr: str, seconds: float) -> None:
    lines = [line for line in stderr.splitlines() if " · compilation cache: " not in line]
    assert status == 2, stderr
    assert len(lines) == bad.num_problems, stderr
    assert all(line.startswith("isoflop: error: ") for line in lines), stderr
    assert any(all(word in line for word in bad.words) for line in lines), stderr
    assert seconds < MOST_SECONDS


def snapshot(folder: Path) -> dict[str, object]:
    """Path -> when and what was written last, of every file; folders have only to be there."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
    }
