"""Checkpoints come back bit for bit, on any mesh, and damage never comes back as weights."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from configs.errors import InputError
from configs.schema import MeshConfig, RunConfig
from tests.train.samples import mesh_of, random_state, tiny_run
from train.checkpoint import (
    MANIFEST,
    QUARANTINE,
    Checkpoints,
    Restored,
    check_manifest,
    restore_params,
)
from train.state import TrainState, abstract_state

CONFIG = tiny_run()
PROGRESS = {"cursor": {"next_row": 8, "skipped": [[1, 2]]}, "train_seconds": 0.1 + 0.2}


def state_at(config: RunConfig, step: int) -> TrainState:
    """Every number another one at another step, moments and counts included."""
    state = random_state(config, mesh_of(config), seed=step)

    def moved(leaf: jax.Array) -> jax.Array:
        distance = np.asarray(step if leaf.ndim == 0 else step / 7, leaf.dtype)
        return jax.device_put(np.asarray(leaf) + distance, leaf.sharding)

    return state._replace(step=moved(state.step), opt_state=jax.tree.map(moved, state.opt_state))


def assert_bits_equal(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def abstract(config: RunConfig) -> TrainState:
    return abstract_state(config, mesh_of(config))


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A checkpoints folder with steps 1 and 2."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(state_at(CONFIG, step), PROGRESS | {"step": step})
    checkpoints.close()
    return folder


class Saved(NamedTuple):
    """A run with steps 1 and 2, the folder of the newer, and the events it tells of."""

    checkpoints: Checkpoints
    newest: Path
    events: list[tuple[str, str]]


@pytest.fixture
def saved(two_steps, tmp_path):
    folder, events = tmp_path / "checkpoints", []
    shutil.copytree(two_steps, folder)
    checkpoints = Checkpoints(folder, on_event=lambda *event: events.append(event))
    yield Saved(checkpoints, folder / "2", events)
    checkpoints.close()


@pytest.fixture
def checkpoints(tmp_path):
    """A run without any."""
    opened = Checkpoints(tmp_path / "checkpoints")
    yield opened
    opened.close()


def restore(checkpoints: Checkpoints, target: TrainState | None = None) -> Restored:
    restored = checkpoints.restore_latest(target or abstract(CONFIG))
    assert restored is not None
    return restored


def largest_file(folder: Path) -> Path:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip_bit(path: Path, offset: int, bit: int = 3) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def test_the_newest_state_comes_back_bit_for_bit_with_its_progress(saved):
    checkpoints, _, events = saved
    restored = restore(checkpoints)
    assert_bits_equal(restored.state, state_at(CONFIG, 2))
    assert isinstance(restored.state, TrainState)
    assert restored.progress == PROGRESS | {"step": 2}
    assert checkpoints.steps() == [1, 2]
    assert events == []


def test_nothing_saved_restores_nothing(checkpoints):
    assert checkpoints.restore_latest(abstract(CONFIG)) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (MeshConfig(), MeshConfig(data=2, fsdp=2, tensor=2)),
        (MeshConfig(fsdp=8), MeshConfig(tensor=4, data=2)),
        (MeshConfig(fsdp=8), MeshConfig()),
    ],
    ids=["one to eight", "eight to eight", "eight to one"],
)
def test_a_state_moves_to_another_mesh_bit_for_bit(checkpoints, before, after):
    checkpoints.save(state_at(tiny_run(mesh=before), 3), PROGRESS)
    target = abstract(tiny_run(mesh=after))
    restored = restore(checkpoints, target)
    assert_bits_equal(restored.state, state_at(CONFIG, 3))
    for leaf, expected in zip(
        jax.tree.leaves(restored.state), jax.tree.leaves(target), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(expected.sharding, leaf.ndim)


def test_a_step_killed_before_its_manifest_was_written_does_not_count(saved):
    checkpoints, newest, events = saved
    (newest / MANIFEST).unlink()
    assert_bits_equal(restore(checkpoints).state, state_at(CONFIG, 1))
    assert events == [("checkpoint_quarantined", f"step 2: {MANIFEST} is missing or unreadable")]


def test_one_flipped_bit_puts_the_step_aside_and_restores_the_one_before(saved):
    checkpoints, newest, events = saved
    damaged = largest_file(newest)
    flip_bit(damaged, damaged.stat().st_size // 2)
    restored = restore(checkpoints)
    assert_bits_equal(restored.state, state_at(CONFIG, 1))
    assert restored.progress["step"] == 1
    name = damaged.relative_to(newest)
    assert events == [("checkpoint_quarantined", f"step 2: {name} does not match its checksum")]
    assert not newest.exists()
    assert (newest.parent / QUARANTINE / "2" / name).exists()
    assert checkpoints.steps() == [1]


def test_training_on_saves_the_damaged_step_anew_and_may_put_it_aside_again(saved):
    checkpoints, newest, events = saved
    for _ in range(2):
        flip_bit(largest_file(newest), 0)
        assert int(restore(checkpoints).state.step) == 1
        checkpoints.save(state_at(CONFIG, 2), PROGRESS)
    assert_bits_equal(restore(checkpoints).state, state_at(CONFIG, 2))
    assert len(events) == 2
    quarantined = sorted(path.name for path in (newest.parent / QUARANTINE).iterdir())
    assert quarantined == ["2", "2.1"]


def test_when_every_step_is_damaged_nothing_is_restored(saved):
    checkpoints, newest, events = saved
    for step in (newest, newest.parent / "1"):
        flip_bit(largest_file(step), 0)
    assert checkpoints.restore_latest(abstract(CONFIG)) is None
    assert len(events) == 2


def cut_short(folder: Path) -> None:
    manifest = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(manifest[: len(manifest) // 2])


def truncate(folder: Path) -> None:
    path = largest_file(folder)
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE = {
    "a manifest cut short": cut_short,
    "an empty manifest": lambda folder: (folder / MANIFEST).write_text(""),
    "a manifest that is no object": lambda folder: (folder / MANIFEST).write_text("[]"),
    "a manifest that is no text": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"),
    "a file cut short": truncate,
    "a missing file": lambda folder: largest_file(folder).unlink(),
    "a file too many": lambda folder: (folder / "state" / "extra").write_text("x"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_other_damage_is_noticed(saved, damage):
    assert check_manifest(saved.newest) is None
    DAMAGE[damage](saved.newest)
    assert check_manifest(saved.newest) is not None


def test_a_flip_of_any_bit_anywhere_is_noticed(saved):
    newest = saved.newest
    assert check_manifest(newest) is None
    rng = np.random.default_rng(0)
    # Of the manifest, the part that lists the files; what comes before says nothing of them.
    first = {newest / MANIFEST: (newest / MANIFEST).read_bytes().index(b'"files"')}
    for path in sorted(path for path in newest.rglob("*") if path.is_file()):
        for offset in rng.integers(first.get(path, 0), path.stat().st_size - 1, size=8):
            bit = int(rng.integers(8))
            flip_bit(path, offset, bit)
            assert check_manifest(newest) is not None, (path, offset, bit)
            flip_bit(path, offset, bit)
    assert check_manifest(newest) is None


def test_the_newest_stay_and_every_so_many_besides(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1, keep_every=2)
    for step in range(1, 6):
        checkpoints.save(state_at(CONFIG, step), PROGRESS)
    checkpoints.close()
    assert checkpoints.steps() == [2, 4, 5]
    folders = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert folders == {"2", "4", "5"}


def abstract_on_one_device(config: RunConfig) -> Any:
    sharding = SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract(config).params,
    )


def test_parameters_alone_come_back_from_the_newest_step_of_any_mesh(checkpoints, tmp_path):
    config = tiny_run(mesh=MeshConfig(fsdp=8))
    for step in (9, 10):  # as words, "9" would be the newest
        checkpoints.save(state_at(config, step), PROGRESS)
    target = abstract_on_one_device(config)
    params = restore_params(tmp_path / "checkpoints", target)
    assert_bits_equal(params, state_at(CONFIG, 10).params)
    assert all(
        leaf.sharding == SingleDeviceSharding(jax.devices()[0]) for leaf in jax.tree.leaves(params)
    )


def test_parameters_alone_are_refused_from_a_damaged_step_which_stays_where_it_is(saved):
    newest = saved.newest
    flip_bit(largest_file(newest), 5)
    with pytest.raises(InputError, match="does not match its checksum.*expected an intact"):
        restore_params(newest.parent, abstract_on_one_device(CONFIG))
    assert newest.exists()


@pytest.mark.parametrize("make", [True, False], ids=["empty", "missing"])
def test_a_run_without_checkpoints_is_refused(tmp_path, make):
    folder = tmp_path / "run" / "checkpoints"
    if make:
        folder.mkdir(parents=True)
    with pytest.raises(InputError, match="expected a run with at least one checkpoint"):
        restore_params(folder, abstract_on_one_device(CONFIG))


def test_the_manifest_lists_every_file(saved):
    newest = saved.newest
    manifest = json.loads((newest / MANIFEST).read_text())
    files = {str(p.relative_to(newest)) for p in newest.rglob("*") if p.is_file()} - {MANIFEST}
    assert set(manifest["files"]) == files
    assert manifest["schema_version"] == 1
