"""Programs from the cache compute what compiled ones do, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from configs.errors import InputError
from train import compilation_cache
from train.compilation_cache import keep_programs

ROOT = Path(__file__).resolve().parents[2]

# A process of its own each: within one, JAX would not compile twice.
STEPS = """
import hashlib, json, sys, warnings
warnings.simplefilter("error")
from train.compilation_cache import keep_programs
folder = keep_programs(sys.argv[1], "cpu")
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
import numpy as np
from tests.train.samples import mesh_of, random_batch, random_state, tiny_run
from tests.model.samples import tiny_model
from train.programs import compile_steps
from train.feed import put_batch
from train.step import batch_sharding
config = tiny_run(model=tiny_model(num_layers=1))
mesh = mesh_of(config)
compiled = compile_steps(config, mesh)
state = random_state(config, mesh)
batch = put_batch(random_batch(config), batch_sharding(config, mesh))
for _ in range(3):
    state, metrics = compiled.train_step(state, batch)
scored = compiled.eval_step(state.params, batch)
arrays = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((state, metrics, scored))]
print(json.dumps([hashlib.sha256(b"".join(arrays)).hexdigest(), compiled.num_cached,
                  compiled.peak_bytes, compiled.describe()]))
"""


def steps(folder: Path | str) -> tuple[list, str]:
    result = subprocess.run(
        [sys.executable, "-c", STEPS, str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout), result.stderr


@pytest.mark.slow
def test_a_warm_start_compiles_nothing_and_gives_the_same_bits(tmp_path):
    (cold, cold_errors), (warm, warm_errors) = steps(tmp_path), steps(tmp_path)
    assert (cold[1], warm[1]) == (0, 2)
    assert warm[0] == cold[0]
    assert warm[2] == cold[2] > 0, "the compiler's count of memory is kept too"
    assert warm[3].endswith("(2 of them from the cache)")
    assert (cold_errors, warm_errors) == ("", "")


def setting(name: str) -> Any:
    return getattr(jax.config, name)


@pytest.fixture(autouse=True)
def restore_settings(monkeypatch):
    """The cache settings of this process as they were; none of the user's."""
    monkeypatch.delenv("ISOFLOP_CACHE", raising=False)
    names = (
        "jax_compilation_cache_dir",
        "jax_enable_compilation_cache",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: setting(name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_another_cpu_or_number_of_cores_gets_another_folder(tmp_path, monkeypatch):
    first = keep_programs(str(tmp_path), "cpu")
    assert first == keep_programs(str(tmp_path), "cpu")
    monkeypatch.setattr(compilation_cache, "_num_cores", lambda: 977)
    more_cores = keep_programs(str(tmp_path), "cpu")
    monkeypatch.setattr(compilation_cache, "_cpu_features", lambda: ["another model"])
    another = keep_programs(str(tmp_path), "cpu")
    assert len({first, more_cores, another}) == 3


def test_an_accelerators_programs_do_not_depend_on_the_hosts_cores(tmp_path, monkeypatch):
    first = keep_programs(str(tmp_path), "tpu")
    monkeypatch.setattr(compilation_cache, "_num_cores", lambda: 977)
    assert keep_programs(str(tmp_path), "tpu") == first


def test_the_folder_is_the_users_alone_and_where_it_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "cache"))
    folder = keep_programs("", "cpu")
    assert folder is not None and folder.parent == tmp_path / "cache" / "xla"
    assert folder.stat().st_mode & 0o077 == 0
    assert setting("jax_compilation_cache_dir") == str(folder)


def test_none_turns_it_off(tmp_path):
    keep_programs(str(tmp_path), "cpu")
    assert keep_programs("none", "cpu") is None
    assert not setting("jax_enable_compilation_cache")


def test_the_environment_may_turn_it_off_and_the_option_on_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", "none")
    assert keep_programs("", "cpu") is None
    assert keep_programs(str(tmp_path), "cpu") is not None
    assert setting("jax_enable_compilation_cache")


def test_a_folder_of_the_users_in_jaxs_own_setting_is_kept(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    assert keep_programs("", "cpu") == tmp_path
    assert keep_programs(str(tmp_path / "option"), "cpu") != tmp_path


def test_a_folder_that_cannot_be_made_is_refused_if_it_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="compilation_cache: got .*, expected a folder"):
        keep_programs(str(tmp_path / "file"), "cpu")
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "file"))
    assert keep_programs("", "cpu") is None


def test_the_oldest_programs_go_when_the_folder_is_full(tmp_path):
    folder = keep_programs(str(tmp_path), "cpu")
    assert folder is not None
    for age in range(4):
        file = folder / f"{age}-cache"
        file.write_bytes(bytes(100))
        os.utime(file, (1000 - age, 1000 - age))
    keep_programs(str(tmp_path), "cpu", max_bytes=250)
    assert sorted(path.name for path in folder.iterdir()) == ["0-cache", "1-cache"]
