"""Any change of a checkpoint's files is noticed, and told by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.errors import InputError
from train.manifest import (
    MANIFEST,
    ArrayEntry,
    array_checksum,
    check_contents,
    check_step,
    read_manifest,
    write_manifest,
)

SAVED = "2026-11-28T15:00:00Z"


@pytest.fixture
def step(tmp_path) -> Path:
    folder = tmp_path / "5"
    (folder / "state" / "d").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in [("state/d/a", 3000), ("state/d/b", 0), ("state/c", 10), ("progress", 70)]:
        (folder / name).write_bytes(rng.bytes(size))
    arrays = {
        "params/kernel": ArrayEntry("float32", (2, 3), array_checksum(np.ones((2, 3)))),
        "step": ArrayEntry("int32", ()),
    }
    write_manifest(folder, step=5, score=2.25, saved=SAVED, arrays=arrays)
    return folder


def flip_bit(path: Path, offset: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def rewrite(step: Path, change: Callable[[dict], object]) -> None:
    record = json.loads((step / MANIFEST).read_text())
    change(record)
    (step / MANIFEST).write_text(json.dumps(record, indent=1) + "\n")


def test_a_manifest_says_what_was_saved(step):
    manifest = read_manifest(step)
    assert (manifest.step, manifest.score, manifest.saved) == (5, 2.25, SAVED)
    assert manifest.arrays is not None
    assert str(manifest.arrays["params/kernel"]) == "float32[2,3]"
    assert manifest.arrays["step"] == ArrayEntry("int32", (), None)
    assert set(manifest.files) == {"state/d/a", "state/d/b", "state/c", "progress"}
    assert manifest.num_bytes == 3080
    assert check_step(step) == []


def test_a_flip_of_any_bit_is_noticed(step):
    rng = np.random.default_rng(0)
    for path in sorted(path for path in step.rglob("*") if path.is_file()):
        size = path.stat().st_size
        for offset in rng.integers(0, size, min(size, 120 if path.name == MANIFEST else 20)):
            bit = int(rng.integers(8))
            flip_bit(path, offset, bit)
            assert check_step(step) != [], (path, offset, bit)
            flip_bit(path, offset, bit)
    assert check_step(step) == []


DAMAGE = {
    "a manifest cut short": (
        lambda step: (step / MANIFEST).write_text((step / MANIFEST).read_text()[:-20]),
        f"{MANIFEST} is missing or unreadable",
    ),
    "an empty manifest": (
        lambda step: (step / MANIFEST).write_text(""),
        f"{MANIFEST} is missing or unreadable",
    ),
    "a manifest that is no object": (
        lambda step: (step / MANIFEST).write_text("[]"),
        f"{MANIFEST} is missing or unreadable",
    ),
    "no manifest": (
        lambda step: (step / MANIFEST).unlink(),
        f"{MANIFEST} is missing or unreadable",
    ),
    "a manifest changed by hand": (
        lambda step: rewrite(step, lambda record: record.update(score=1.0)),
        f"{MANIFEST} does not match its own checksum",
    ),
    "a file cut short": (
        lambda step: (step / "state/d/a").write_bytes(b"x"),
        "state/d/a has 1 bytes and had 3000",
    ),
    "a file changed": (
        lambda step: flip_bit(step / "progress", 3, 3),
        "progress does not match its checksum",
    ),
    "a missing file": (lambda step: (step / "state/c").unlink(), "state/c is missing"),
    "a file too many": (
        lambda step: (step / "state/extra").write_text("x"),
        "state/extra was not there when it was written",
    ),
    "a link to a folder elsewhere": (
        lambda step: (step / "state/link").symlink_to(step.parent),
        "state/link was not there when it was written",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_by_name(step, damage):
    harm, expected = DAMAGE[damage]
    harm(step)
    assert check_step(step) == [expected]


def test_all_damaged_files_are_told(step):
    for name in ("state/d/a", "progress"):
        flip_bit(step / name, 0, 0)
    assert check_step(step) == [
        "progress does not match its checksum",
        "state/d/a does not match its checksum",
    ]


def test_a_file_that_became_a_link_is_no_file_of_ours(step):
    shutil.move(step / "progress", step.parent / "elsewhere")
    (step / "progress").symlink_to(step.parent / "elsewhere")
    assert check_step(step) == ["progress is not a file"]


def test_the_folder_of_another_step_is_refused(step):
    moved = step.rename(step.parent / "6")
    assert check_step(moved) == [f"{MANIFEST} is that of step 5"]


def test_processes_read_every_file_between_them(step):
    for name in ("state/d/a", "progress", "state/c"):
        flip_bit(step / name, 0, 0)
    manifest = read_manifest(step)
    parts = [check_contents(step, manifest, share=(i, 3)) for i in range(3)]
    assert sorted(sum(parts, [])) == check_contents(step, manifest)
    assert max(map(len, parts)) < 3
    assert check_contents(step, manifest, ["state/c"]) == ["state/c does not match its checksum"]
    assert check_contents(step, manifest, []) == []


def test_an_intact_manifest_of_a_later_version_is_not_damage(step, monkeypatch):
    monkeypatch.setattr("train.manifest.SCHEMA_VERSION", 3)
    write_manifest(step, step=5, score=None, saved=SAVED, arrays={})
    monkeypatch.undo()
    with pytest.raises(InputError, match="got schema_version 3, expected 1 or 2"):
        check_step(step)


def test_a_checksum_is_of_the_values_in_row_major_order():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert array_checksum(array) == array_checksum(np.asfortranarray(array))
    assert array_checksum(array) != array_checksum(array.T)
    assert array_checksum(np.full((), 3.0)) == array_checksum(np.full((1,), 3.0))
