"""How a process joins the others, what it refuses, and how it leaves when one of them is lost."""

import io
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from configs.errors import InputError
from train import distributed
from train.distributed import is_lost_peer, start_processes
from train.supervision import EXIT_PREEMPTED, EXIT_RETRY

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed.initialize` would have been called with."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *args, **named: calls.append((args, named))
    )
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield calls
    jax.config.update("jax_enable_preemption_service", True)


def launched(**changes: str) -> dict[str, str]:
    names = {
        "ISOFLOP_COORDINATOR": "127.0.0.1:1234",
        "ISOFLOP_PROCESSES": "4",
        "ISOFLOP_PROCESS": "3",
    }
    return names | changes


def test_a_process_by_itself_joins_nothing(joined):
    start_processes(environment={})
    assert joined == []
    assert sys.excepthook is not distributed._end_on_error


def test_what_launch_says_is_joined_and_only_this_machine_reaches_the_coordinator(joined):
    start_processes(environment=launched(), start_timeout=100, heartbeat_timeout=20)
    [(args, named)] = joined
    assert args == ("127.0.0.1:1234", 4, 3)
    assert named["coordinator_bind_address"] == "127.0.0.1:1234"
    assert named["heartbeat_timeout_seconds"] == 20
    assert named["initialization_timeout"] > 100, "ours ends first, with a line and 42"
    assert jax.config.jax_enable_preemption_service is False  # pyright: ignore[reportAttributeAccessIssue]


def test_options_come_before_the_environment(joined):
    start_processes(
        coordinator="10.0.0.7:99", num_processes=2, process_id=0, environment=launched()
    )
    [(args, named)] = joined
    assert args == ("10.0.0.7:99", 2, 0)
    assert named["coordinator_bind_address"] is None
    assert named["cluster_detection_method"] == "deactivate"


def test_detection_is_left_to_jax(joined):
    start_processes(detect=True, environment={})
    [(args, named)] = joined
    assert args == (None, None, None)
    assert named["cluster_detection_method"] is None


def test_nothing_detected_is_bad_input(monkeypatch):
    def initialize(*_: object, **__: object) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(InputError, match=r"^distributed: got .*, expected SLURM"):
        start_processes(detect=True, environment={})


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"coordinator": "host"}, "coordinator: got 'host' alone, expected --num-processes"),
        ({"num_processes": 2}, "num_processes: got 2, expected --coordinator"),
        ({"process_id": 0}, "process_id: got 0, expected --coordinator"),
        ({"coordinator": "host", "num_processes": 2, "process_id": 0}, "coordinator: got 'host'"),
        ({"coordinator": "h:0", "num_processes": 2, "process_id": 0}, "coordinator: got 'h:0'"),
        ({"coordinator": "h:70000", "num_processes": 2, "process_id": 0}, "coordinator: got"),
        ({"coordinator": "h:1", "num_processes": 0, "process_id": 0}, "num_processes: got 0"),
        ({"coordinator": "h:1", "num_processes": 2, "process_id": 2}, "process_id: got 2"),
        ({"coordinator": "h:1", "num_processes": 2, "process_id": -1}, "process_id: got -1"),
        ({"coordinator": "h:1", "detect": True}, "distributed: got True, expected either"),
        ({"start_timeout": 0}, "start_timeout: got 0, expected 1 second or more"),
        ({"heartbeat_timeout": 1}, "heartbeat_timeout: got 1, expected 5 seconds or more"),
        ({"environment": launched(ISOFLOP_PROCESSES="two")}, "ISOFLOP_PROCESSES: got 'two'"),
        ({"environment": launched(ISOFLOP_PROCESS="")}, "ISOFLOP_PROCESS: got ''"),
        ({"environment": launched(ISOFLOP_PROCESS="4")}, "ISOFLOP_PROCESS: got 4, expected 0 to 3"),
        ({"environment": launched(ISOFLOP_COORDINATOR="x")}, "ISOFLOP_COORDINATOR: got 'x'"),
    ],
)
def test_what_makes_no_sense_is_refused(joined, options, expected):
    with pytest.raises(InputError) as caught:
        start_processes(**{"environment": {}} | options)
    assert str(caught.value).startswith(expected)
    assert joined == []


# As jax 0.10 worded them, of two processes of which one was killed.
LOST = [
    "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection "
    "closed by peer [127.0.0.1]:5042",
    "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error "
    "[127.0.0.1]:14524: Connection reset by peer",
    "INTERNAL: Barrier failed because: task is set to ERROR: UNAVAILABLE: Task 1 heartbeat "
    "timeout.",
    "UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task was preempted",
]


@pytest.mark.parametrize("message", LOST)
def test_a_lost_peer_is_told_from_the_message_wherever_it_lies_in_the_chain(message):
    assert is_lost_peer(ValueError(message))
    try:
        try:
            raise jax.errors.JaxRuntimeError(message)
        except jax.errors.JaxRuntimeError as error:
            raise RuntimeError("the step failed") from error
    except RuntimeError as error:
        assert is_lost_peer(error)


def test_a_lost_peer_is_found_beside_the_cause_too():
    try:
        try:
            raise ValueError(LOST[0])
        except ValueError:
            raise RuntimeError("the save failed") from OSError("the disk is slow")
    except RuntimeError as error:
        assert is_lost_peer(error)


@pytest.mark.parametrize(
    "message", ["RESOURCE_EXHAUSTED: out of memory", "loss is nan", "No space left on device"]
)
def test_other_failures_are_no_lost_peers(message):
    assert not is_lost_peer(ValueError(message))


def test_what_cannot_be_said_changes_no_status(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    statuses: list[int] = []
    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setattr(os, "_exit", statuses.append)
    distributed._give_up("10.0.0.1:1", 2, 300)
    assert statuses == [EXIT_RETRY]


@pytest.mark.slow
def test_an_interrupt_before_training_does_not_wait_for_the_others(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time, types\n"
        "import isoflop\n"
        "from train.distributed import start_processes\n"
        "def main(rest):\n"
        f"    start_processes(coordinator={address!r}, num_processes=2, process_id=int(rest[0]))\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"
        "sys.modules['workflows.train'] = types.ModuleType('workflows.train')\n"
        "sys.modules['workflows.train'].main = main\n"
        "isoflop.main()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ISOFLOP_NO_REEXEC": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), "train", str(i)], env=environment, stdout=subprocess.PIPE
        )
        for i in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == b"up\n"
        processes[1].send_signal(signal.SIGINT)
        assert processes[1].wait(timeout=10) == EXIT_PREEMPTED
        assert processes[0].poll() is None, "which waits for the one that has left"
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_peers_that_never_arrive_cost_the_start_timeout_one_line_and_42(process):
    address = f"127.0.0.1:{free_port()}"
    script = (
        "from train.distributed import start_processes\n"
        f"start_processes(coordinator={address!r}, num_processes=2, process_id={process},\n"
        "                start_timeout=2)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == EXIT_RETRY
    line = f"isoflop: error: all 2 processes at {address} did not meet within 2 s"
    assert [line in text for text in result.stderr.splitlines()] == [True]


@pytest.mark.slow
def test_processes_of_a_slurm_job_find_each_other():
    with socket.socket() as free:  # jax derives the port from the job's number
        port = 65535
        while free.connect_ex(("127.0.0.1", port)) == 0:
            port -= 1
    script = (
        "import jax\n"
        "from train.distributed import start_processes\n"
        "start_processes(detect=True)\n"
        "print(jax.process_index(), jax.process_count(), len(jax.devices()))"
    )
    job = {
        "SLURM_JOB_ID": str(port - 61440),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "PYTHONPATH": str(ROOT),
        "JAX_NUM_CPU_DEVICES": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=os.environ | job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["0 2 2\n", "1 2 2\n"]
