"""Real processes over `jax.distributed`, one device each, train as one process does.

The first loss within 1e-6, gradients within 1e-5 (norm per leaf), ten losses within 1e-5, in fp32:
the same bounds as on the devices of one process.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.model.samples import relative_difference

ROOT = Path(__file__).resolve().parents[2]


def trained_by(num_processes: int, axis: str, out: Path) -> dict[str, np.ndarray]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    script = Path(__file__).with_name("train_process.py")
    file = out / f"{axis}_{num_processes}.npz"
    processes = [
        subprocess.Popen(
            [sys.executable, script, file, axis, str(process), str(num_processes), str(port)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(num_processes)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert all(process.returncode == 0 for process in processes), errors
    with np.load(file) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, np.ndarray]:
    return trained_by(1, "data", tmp_path_factory.mktemp("alone"))


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 4])
@pytest.mark.parametrize("axis", ["replica", "data", "fsdp"])
def test_processes_train_as_one_does(alone, tmp_path, num_processes, axis):
    together = trained_by(num_processes, axis, tmp_path)
    assert set(together) == set(alone)
    assert together["losses"][0] == pytest.approx(alone["losses"][0], rel=1e-6)
    np.testing.assert_allclose(together["losses"], alone["losses"], rtol=1e-5)
    for name in set(alone) - {"losses"}:
        assert relative_difference(together[name], alone[name]) <= 1e-5, name
