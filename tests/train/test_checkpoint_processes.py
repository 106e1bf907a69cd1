"""Real processes over `jax.distributed`, one device each, share checkpoints with one alone."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, num_processes: int, *, restored: int, saved: int) -> list[list[str]]:
    """What each process told of."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    script = Path(__file__).with_name("checkpoint_process.py")
    numbers = [restored, saved]
    processes = [
        subprocess.Popen(
            [sys.executable, script, folder, *map(str, [*numbers, process, num_processes, port])],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(num_processes)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    lines = [output.splitlines() for output, _ in outputs]
    return [[line[6:] for line in own if line.startswith("told: ")] for own in lines]


def flip_bit_of_largest(step: Path) -> None:
    path = max((p for p in step.rglob("*") if p.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.slow
def test_one_process_then_two_then_one_restore_each_other_s_steps_and_agree_on_damage(tmp_path):
    folder = tmp_path / "checkpoints"
    run(folder, 1, restored=0, saved=1)
    first, second = run(folder, 2, restored=1, saved=2)
    assert [line.split()[0] for line in first] == ["saving", "saved"]
    assert second == []
    run(folder, 1, restored=2, saved=3)
    flip_bit_of_largest(folder / "3")
    first, second = run(folder, 2, restored=2, saved=3)
    assert first[0].startswith("checkpoint_quarantined step 3: ")
    assert second == []
    run(folder, 1, restored=3, saved=0)
    assert {path.name for path in folder.iterdir()} == {"2", "3", "quarantine"}


FULL_DISK = """
import resource, sys
from pathlib import Path
import pytest
from tests.train.samples import mesh_of, tiny_run
from tests.train.saved_states import assert_bits_equal, state_at
from train.checkpoint import Checkpoints, SaveError
from train.state import abstract_state

folder, config = Path(sys.argv[1]), tiny_run()
checkpoints = Checkpoints(folder)
checkpoints.save(state_at(config, 1), {}, wait=True)
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
checkpoints.save(state_at(config, 2), {})
with pytest.raises(SaveError, match="step 2 could not be saved: .*File too large"):
    checkpoints.wait()
assert [path.name for path in folder.iterdir()] == ["1"]
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
checkpoints.save(state_at(config, 2), {}, wait=True)
restored = checkpoints.restore_latest(abstract_state(config, mesh_of(config)))
assert_bits_equal(restored.state, state_at(config, 2))
assert checkpoints.steps() == [1, 2]
checkpoints.close()
"""


@pytest.mark.slow
def test_writes_that_fail_half_way_are_told_and_leave_the_earlier_step(tmp_path):
    """A limit on the size of files, which Orbax meets as it does a full disk: its writes fail."""
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "checkpoints"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
