"""Checkpoints come back bit for bit, on any mesh, and damage never comes back as weights."""

import ctypes
import errno
import json
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from configs.errors import InputError
from configs.schema import MeshConfig, RunConfig
from tests.train.samples import mesh_of, tiny_run
from tests.train.saved_states import assert_bits_equal, state_at
from train.checkpoint import Checkpoints, Restored, SaveError
from train.checkpoint_folder import QUARANTINE
from train.checkpoint_reading import restore_params
from train.manifest import MANIFEST, check_step, write_manifest
from train.state import TrainState, abstract_state

CONFIG = tiny_run()
SMALL = TrainState(
    step=jnp.int32(1), params={"kernel": jnp.arange(6.0).reshape(2, 3)}, opt_state=(jnp.ones(3),)
)
PROGRESS = {"cursor": {"next_row": 8, "skipped": [[1, 2]]}, "train_seconds": 0.1 + 0.2}


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


@pytest.mark.parametrize("large_bytes", [2**20, 0], ids=["checked before", "while it is read"])
def test_one_flipped_bit_puts_the_step_aside_and_restores_the_one_before(
    saved, monkeypatch, large_bytes
):
    monkeypatch.setattr("train.checkpoint_reading._LARGE_BYTES", large_bytes)
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
        checkpoints.save(state_at(CONFIG, 2), PROGRESS, wait=True)
    assert_bits_equal(restore(checkpoints).state, state_at(CONFIG, 2))
    assert [event for event, _ in events] == ["checkpoint_quarantined", "saving", "saved"] * 2
    quarantined = sorted(path.name for path in (newest.parent / QUARANTINE).iterdir())
    assert quarantined == ["2", "2.1"]


def test_when_every_step_is_damaged_the_run_does_not_begin_anew_and_the_last_stays(saved):
    checkpoints, newest, events = saved
    for step in (newest, newest.parent / "1"):
        flip_bit(largest_file(step), 0)
    for _ in range(2):
        with pytest.raises(InputError, match=r"checkpoints: got .*/1, which is damaged \("):
            checkpoints.restore_latest(abstract(CONFIG))
        assert len(events) == 1
        assert checkpoints.steps() == [1]


def test_a_file_that_may_not_be_read_now_is_no_damage(saved, monkeypatch):
    def refused(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("train.manifest._entry", refused)
        with pytest.raises(PermissionError):
            saved.checkpoints.restore_latest(abstract(CONFIG))
    assert saved.checkpoints.steps() == [1, 2]
    assert saved.events == []


def test_a_loss_measured_after_the_save_is_what_the_best_are_chosen_by(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, keep=1, keep_best=1)
    checkpoints.save(SMALL._replace(step=jnp.int32(1)), PROGRESS, score=3.0)
    checkpoints.save(SMALL._replace(step=jnp.int32(2)), PROGRESS, wait=True)
    checkpoints.rescore(2, 2.0)
    checkpoints.rescore(5, 1.0)  # there is none
    checkpoints.save(SMALL._replace(step=jnp.int32(3)), PROGRESS)
    checkpoints.close()
    assert checkpoints.steps() == [2, 3]
    assert check_step(folder / "2") == []


def test_the_newest_stay_and_every_so_many_and_the_best_besides(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, keep=1, keep_every=3, keep_best=1)
    for step, score in enumerate([2.0, 2.0, 3.0, None, float("nan")], start=1):
        checkpoints.save(SMALL._replace(step=jnp.int32(step)), PROGRESS, score=score)
    checkpoints.close()
    assert checkpoints.steps() == [2, 3, 5]
    assert {path.name for path in folder.iterdir()} == {"2", "3", "5"}


def abstract_on_one_device(config: RunConfig) -> Any:
    sharding = SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract(config).params,
    )


def test_parameters_alone_come_back_from_the_newest_step_of_any_mesh(checkpoints, tmp_path):
    config = tiny_run(mesh=MeshConfig(fsdp=8))
    for step in (9, 10):  # as words, "9" would be the newest
        checkpoints.save(state_at(config, step), PROGRESS, wait=True)
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


def test_parameters_of_an_older_step_are_there_for_the_asking(saved):
    params = restore_params(saved.newest.parent, abstract_on_one_device(CONFIG), step=1)
    assert_bits_equal(params, state_at(CONFIG, 1).params)
    with pytest.raises(InputError, match="step: got 3, expected one of 1, 2"):
        restore_params(saved.newest.parent, abstract_on_one_device(CONFIG), step=3)


def test_a_save_runs_behind_training_and_counts_once_it_is_committed(
    tmp_path, monkeypatch, checkpoints
):
    may_commit = threading.Event()

    def late(*args: Any, **kwargs: Any) -> Any:
        may_commit.wait()
        return write_manifest(*args, **kwargs)

    monkeypatch.setattr("train.checkpoint.write_manifest", late)
    checkpoints.save(SMALL, PROGRESS)
    assert checkpoints.steps() == []
    may_commit.set()
    checkpoints.wait()
    assert checkpoints.steps() == [1]


def test_what_becomes_of_the_state_after_a_save_is_not_saved(checkpoints):
    """A step to which the state is donated writes into its very memory."""
    state = state_at(CONFIG, 3)
    checkpoints.save(state, PROGRESS)
    for leaf in jax.tree.leaves(state):
        ctypes.memset(leaf.addressable_shards[0].data.unsafe_buffer_pointer(), 0x5A, leaf.nbytes)
    assert int(state.step) == 0x5A5A5A5A
    checkpoints.wait()
    assert_bits_equal(restore(checkpoints).state, state_at(CONFIG, 3))


def test_a_failed_commit_leaves_nothing_of_the_step(saved, monkeypatch):
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("train.checkpoint.write_manifest", full)
        saved.checkpoints.save(state_at(CONFIG, 3), PROGRESS)
        with pytest.raises(SaveError, match="step 4 could not be saved: .*No space left"):
            saved.checkpoints.save(state_at(CONFIG, 4), PROGRESS)
        assert {path.name for path in saved.newest.parent.iterdir()} == {"1", "2"}
        saved.checkpoints.save(state_at(CONFIG, 5), PROGRESS)
        while not saved.checkpoints.has_failed():
            time.sleep(0.01)
    saved.checkpoints.save(state_at(CONFIG, 6), PROGRESS)  # there is room again
    assert saved.checkpoints.steps() == [2, 6]
    assert not saved.checkpoints.has_failed()
    assert [detail for event, detail in saved.events if event == "save_failed"] == [
        f"step {n} could not be saved: [Errno 28] No space left on device; step {n + 1} is saved "
        "instead"
        for n in (3, 5)
    ]


def test_saves_are_told_with_their_seconds_and_bytes(tmp_path):
    events = []
    checkpoints = Checkpoints(tmp_path / "c", on_event=lambda *event: events.append(event))
    checkpoints.save(SMALL, PROGRESS)
    checkpoints.close()
    assert events[0] == ("saving", "step 1")
    event, detail = events[1]
    assert event == "saved"
    assert re.fullmatch(r"step 1: \d+\.\d s, \d+\.\d s of them in the way, 0\.0 MB", detail)


def test_an_array_that_the_disk_gives_back_changed_is_noticed_though_its_file_was_intact(
    saved, monkeypatch
):
    checkpoints, newest, events = saved
    damaged = largest_file(newest)
    flip_bit(damaged, damaged.stat().st_size // 2)
    monkeypatch.setattr("train.checkpoint_reading.check_contents", lambda *args, **kwargs: [])
    assert_bits_equal(restore(checkpoints).state, state_at(CONFIG, 1))
    [(event, detail)] = events
    assert event == "checkpoint_quarantined"
    assert re.fullmatch(r"step 2: (params|opt_state)/\S+ does not match its checksum", detail)


def as_version_1(step_folder: Path) -> None:
    """Makes the manifest what it was before arrays were listed."""
    record = json.loads((step_folder / MANIFEST).read_text())
    files = {name: entry["checksum"] for name, entry in record["files"].items()}
    text = json.dumps({"schema_version": 1, "files": files})
    (step_folder / MANIFEST).write_text(text)


def test_steps_of_the_first_manifests_still_come_back(saved):
    as_version_1(saved.newest)
    assert_bits_equal(restore(saved.checkpoints).state, state_at(CONFIG, 2))
    flip_bit(largest_file(saved.newest), 100)
    assert_bits_equal(restore(saved.checkpoints).state, state_at(CONFIG, 1))


@pytest.mark.parametrize("prepare", [lambda folder: None, as_version_1], ids=["now", "version 1"])
def test_arrays_other_than_the_config_asks_for_are_all_named_and_the_step_stays(saved, prepare):
    prepare(saved.newest)
    target = abstract(CONFIG)
    params = dict(target.params)
    params["head"] = {"kernel": target.step}
    embedding = params["token_embedding"]["embedding"]
    params["token_embedding"] = {"embedding": embedding.update(shape=(65, 32))}
    final = params["decoder"]["final_norm"]["scale"]
    params["decoder"] = params["decoder"] | {
        "final_norm": {"scale": final.update(dtype="bfloat16")}
    }
    opt_state = (target.opt_state[0], target.opt_state[1][:1])
    with pytest.raises(InputError) as caught:
        restore(saved.checkpoints, TrainState(target.step, params, opt_state))
    assert str(caught.value) == (
        f"checkpoint: got {saved.newest} with no params/head/kernel (expected int32[]), "
        "opt_state/1/2/count int32[] (not expected), "
        "params/decoder/final_norm/scale float32[32] (expected bfloat16[32]), "
        "params/token_embedding/embedding float32[64,32] (expected float32[65,32]); "
        "expected the arrays of the run's config"
    )
    assert saved.newest.exists()
    assert saved.events == []


def test_parameters_of_another_model_are_refused_by_name(saved):
    params = abstract_on_one_device(CONFIG)
    del params["token_embedding"]
    with pytest.raises(InputError, match=r"params/token_embedding/embedding \S+ \(not expected\)"):
        restore_params(saved.newest.parent, params)


def test_training_that_goes_back_gives_up_the_newer_steps(saved):
    checkpoints, newest, events = saved
    restored = checkpoints.restore_before(abstract(CONFIG), 1)
    assert restored is not None and int(restored.state.step) == 1
    assert checkpoints.steps() == [1]
    assert events == [("checkpoint_discarded", "step 2: training went back to 1")]
    assert checkpoints.restore_before(abstract(CONFIG), 0) is None
    assert checkpoints.steps() == [1]


def test_a_save_cut_short_is_cleared_and_one_that_lacked_its_rename_is_committed(saved):
    folder, events = saved.newest.parent, []
    saved.newest.rename(folder / "saving-2")
    (folder / "saving-3.orbax-checkpoint-tmp").mkdir()
    shutil.copytree(folder / "1", folder / "saving-4")
    (folder / "saving-4" / MANIFEST).unlink()
    shutil.copytree(folder / "1", folder / "removing-5")
    checkpoints = Checkpoints(folder, on_event=lambda *event: events.append(event))
    assert {path.name for path in folder.iterdir()} == {"1", "2"}
    assert_bits_equal(restore(checkpoints).state, state_at(CONFIG, 2))
    assert events == [
        ("checkpoint_incomplete", "step 3: its save was cut short"),
        ("checkpoint_incomplete", "step 4: its save was cut short"),
    ]
    checkpoints.close()


def test_what_is_no_checkpoint_is_put_aside(saved):
    folder = saved.newest.parent
    (folder / "7").mkdir()
    (folder / "8").write_text("a file")
    (folder / "notes").mkdir()
    assert int(restore(saved.checkpoints).state.step) == 2
    missing = f"{MANIFEST} is missing or unreadable"
    assert saved.events == [
        ("checkpoint_quarantined", f"step 8: {missing}"),
        ("checkpoint_quarantined", f"step 7: {missing}"),
    ]
    assert (folder / "notes").exists()
