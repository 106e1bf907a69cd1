"""isoflop launch: what it does when processes end, and when it is told to stop or killed itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from train.supervision import EXIT_PREEMPTED, EXIT_RETRY, REPEAT_SECONDS
from workflows import launch as launch_command
from workflows.child_processes import Signals
from workflows.launch import _KILL_SECONDS, LaunchOptions, Outcome

ROOT = Path(__file__).resolve().parents[2]
START = [sys.executable, str(ROOT / "isoflop.py"), "launch"]

# What a process does: `act` is called once in each process of each start.
CHILD = """
import os, pathlib, signal, sys, time
me = int(os.environ.get("ISOFLOP_PROCESS", "0"))
reason = os.environ.get("ISOFLOP_RESTARTED", "")

def note(word):
    with open("notes", "a") as file:
        file.write(f"{me} {word}\\n")

def wait_for(words):
    while not all(word in pathlib.Path("notes").read_text().splitlines() for word in words):
        time.sleep(0.01)

def save_when_told(*_):
    note("saved")
    sys.exit(143)

note("pid " + str(os.getpid()))
"""


class Launched:
    """`isoflop launch` over a script, in a folder where its processes take notes."""

    def __init__(self, folder: Path, *options: str, act: str):
        self.notes = folder / "notes"
        self.notes.touch()
        self.process = subprocess.Popen(
            [*START, *options, "--", sys.executable, "-c", f"{CHILD}\n{act}"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, is_so: Callable[[list[str]], bool]) -> list[str]:
        """The notes, once they are so."""
        end = time.monotonic() + 30
        while not is_so(lines := self.notes.read_text().splitlines()):
            assert time.monotonic() < end, (lines, self.process.poll())
            time.sleep(0.02)
        return lines

    def pids(self, number: int) -> list[int]:
        """Of the first processes, once there are so many."""
        lines = self.wait_for(lambda lines: sum(" pid " in line for line in lines) >= number)
        return [int(line.split()[-1]) for line in lines if " pid " in line]

    def end(self) -> tuple[int, str, str]:
        """(exit code, stdout, stderr), once it has ended and all that it started is gone."""
        out, err = self.process.communicate(timeout=60)
        assert [pid for pid in self.pids(0) if is_alive(pid)] == []
        return self.process.returncode, out, err


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def launch(tmp_path) -> Callable[..., Launched]:
    return lambda *options, act: Launched(tmp_path, *options, act=act)


def test_lines_carry_their_process_and_stdout_is_that_of_process_0(launch):
    act = "print('result', me); print('said', me, file=sys.stderr)"
    code, out, err = launch("--processes", "2", act=act).end()
    assert (code, out) == (0, "result 0\n")
    assert sorted(err.splitlines()) == ["[0] said 0", "[1] result 1", "[1] said 1"]


def test_processes_know_each_other_and_share_the_cores(launch):
    act = """
names = ("ISOFLOP_COORDINATOR", "ISOFLOP_PROCESSES", "JAX_NUM_CPU_DEVICES")
note(" ".join(os.environ[name] for name in names))
note(f"core {sorted(os.sched_getaffinity(0))}")
"""
    launched = launch("--processes", "2", act=act)
    assert launched.end()[0] == 0
    lines = launched.notes.read_text().splitlines()
    told = {line.partition(" ")[2] for line in lines if "127.0.0.1" in line}
    assert len(told) == 1 and told.pop().endswith(" 2 1")
    cores = [line.partition(" ")[2] for line in lines if "core" in line]
    assert len(os.sched_getaffinity(0)) < 2 or len(set(cores)) == 2


def test_a_killed_process_takes_the_others_along_and_all_start_again_with_the_reason(launch):
    act = """
if reason:
    note(reason)
elif me == 1:
    wait_for(["0 up"])
    os.kill(os.getpid(), signal.SIGKILL)
else:
    note("up")
    time.sleep(60)
"""
    launched = launch("--processes", "2", "--backoff", "0.1", act=act)
    code, _, err = launched.end()
    assert code == 0
    lines = launched.notes.read_text().splitlines()
    assert {f"{i} process 1 was killed by SIGKILL" for i in range(2)} <= set(lines)
    assert "isoflop launch: restart 1 of 10 in 0.1 s\n" in err


@pytest.mark.parametrize("code", [1, EXIT_RETRY])
def test_restarts_end_at_their_limit_and_name_the_last_reason(launch, code):
    act = f"sys.exit({code})"
    ended, _, err = launch(
        "--processes", "1", "--restarts", "2", "--backoff", "0.05", act=act
    ).end()
    assert ended == 1
    assert "restart 1 of 2 in 0.05 s\n" in err and "restart 2 of 2 in 0.1 s\n" in err
    last = f"isoflop launch: error: giving up after 2 restarts: process 0 exited with {code}"
    assert err.splitlines()[-1] == last


def test_a_start_that_lasted_counts_as_healthy(launch):
    act = """
if pathlib.Path("notes").read_text().count("pid") < 4:
    time.sleep(0.4)
    sys.exit(1)
"""
    options = ["--processes", "1", "--restarts", "1", "--backoff", "0", "--reset-after", "0.3"]
    code, _, err = launch(*options, act=act).end()
    assert code == 0
    assert err.count("restart 1 of 1") == 3


def test_bad_input_is_not_tried_again(launch):
    launched = launch("--processes", "2", act="sys.exit(2 if me else time.sleep(60))")
    code, _, err = launched.end()
    assert code == 2
    assert "restart" not in err


@pytest.mark.parametrize("status", [143, 42], ids=["by agreement", "lost a peer"])
def test_one_that_was_told_to_stop_ends_all_without_a_restart(launch, status):
    act = """
signal.signal(signal.SIGTERM, save_when_told)
note("up")
if me == 1:
    wait_for(["0 up"])
    sys.exit(143)  # process 0 is still at it
wait_for(["1 up"])
time.sleep(0.3)
note("saved")
sys.exit(STATUS)
"""
    launched = launch("--processes", "2", act=act.replace("STATUS", str(status)))
    assert launched.end()[0] == EXIT_PREEMPTED
    assert "0 saved" in launched.notes.read_text().splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_all_which_save_and_leave(launch, number):
    act = "signal.signal(signal.SIGTERM, save_when_told); note('up'); time.sleep(60)"
    launched = launch("--processes", "2", act=act)
    launched.wait_for(lambda lines: {"0 up", "1 up"} <= set(lines))
    launched.process.send_signal(number)
    assert launched.end()[0] == EXIT_PREEMPTED
    assert {"0 saved", "1 saved"} <= set(launched.notes.read_text().splitlines())


@pytest.mark.parametrize("process, code", [(0, EXIT_RETRY), (1, EXIT_PREEMPTED)])
def test_a_stop_is_what_process_0_which_saves_makes_of_it(launch, process, code):
    act = """
signal.signal(signal.SIGTERM, lambda *_: os.abort() if me == PROCESS else save_when_told())
note("up")
time.sleep(60)
"""
    launched = launch("--processes", "2", act=act.replace("PROCESS", str(process)))
    launched.wait_for(lambda lines: {"0 up", "1 up"} <= set(lines))
    launched.process.send_signal(signal.SIGTERM)
    assert launched.end()[0] == code


def test_what_does_not_stop_in_its_grace_is_killed_and_may_be_tried_again(launch):
    act = "signal.signal(signal.SIGTERM, signal.SIG_IGN); note('up'); time.sleep(60)"
    launched = launch("--processes", "2", "--grace", "0.3", act=act)
    launched.wait_for(lambda lines: {"0 up", "1 up"} <= set(lines))
    launched.process.send_signal(signal.SIGTERM)
    code, _, err = launched.end()
    assert code == EXIT_RETRY
    assert "killed what did not stop in 0.3 s" in err


def test_a_second_signal_does_not_wait_for_the_grace(launch):
    act = """
signal.signal(signal.SIGTERM, lambda *_: note("told"))
note("up")
while pathlib.Path("notes").read_text().count("told") < 2:
    time.sleep(0.01)
os._exit(143)
"""
    launched = launch("--processes", "1", act=act)
    launched.wait_for(lambda lines: "0 up" in lines)
    launched.process.send_signal(signal.SIGINT)
    launched.wait_for(lambda lines: "0 told" in lines)
    time.sleep(REPEAT_SECONDS + 0.1)
    launched.process.send_signal(signal.SIGINT)
    assert launched.end()[0] == EXIT_PREEMPTED


@pytest.mark.slow
def test_two_signals_at_once_are_one_request_and_leave_the_grace_to_save(launch):
    act = """
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(KILL_SECONDS + 1), save_when_told()))
note("up")
time.sleep(60)
"""
    launched = launch("--processes", "1", act=act.replace("KILL_SECONDS", str(_KILL_SECONDS)))
    launched.wait_for(lambda lines: "0 up" in lines)
    launched.process.send_signal(signal.SIGINT)
    time.sleep(REPEAT_SECONDS / 5)
    launched.process.send_signal(signal.SIGINT)
    assert launched.end()[0] == EXIT_PREEMPTED
    assert "0 saved" in launched.notes.read_text().splitlines()


@pytest.mark.slow
def test_processes_too_can_tell_a_second_signal_from_the_first(launch):
    act = """
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(time.monotonic()))
note("up")
while len(told) < 2:
    time.sleep(0.001)
note(f"gap {told[1] - told[0]}")
sys.exit(143)
"""
    launched = launch("--processes", "1", act=act)
    launched.wait_for(lambda lines: "0 up" in lines)
    launched.process.send_signal(signal.SIGINT)
    time.sleep(REPEAT_SECONDS + 0.05)
    launched.process.send_signal(signal.SIGINT)
    assert launched.end()[0] == EXIT_PREEMPTED
    [gap] = [line.split()[-1] for line in launched.notes.read_text().splitlines() if "gap" in line]
    assert float(gap) > REPEAT_SECONDS + 0.2, "room for a process that is slow to notice the first"


# What a shell starts without `exec`: the shell dies of the signal, while this one begins to save.
UNDER_A_SHELL = """
import subprocess
if "under" not in sys.argv:
    note("up")
    shell = '"$@"; true'  # with something left to do it does not become the command
    os.execvp("sh", ["sh", "-c", shell, "sh", *sys.orig_argv, "under"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_saves_under_a_shell_that_has_died_is_waited_for(launch, processes):
    act = f"""
{UNDER_A_SHELL}
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), save_when_told()))
note("under a shell")
time.sleep(60)
"""
    launched = launch("--processes", processes, act=act)
    launched.wait_for(lambda lines: lines_of(lines, "under a shell") == int(processes))
    launched.process.send_signal(signal.SIGTERM)
    assert launched.end()[0] == EXIT_PREEMPTED
    lines = launched.notes.read_text().splitlines()
    assert lines_of(lines, "saved") == int(processes)


@pytest.mark.slow
def test_what_is_killed_under_a_shell_that_has_died_has_not_saved(launch):
    act = f"""
{UNDER_A_SHELL}
signal.signal(signal.SIGTERM, signal.SIG_IGN)
note("under a shell")
time.sleep(60)
"""
    launched = launch("--processes", "1", "--grace", "0.3", act=act)
    launched.wait_for(lambda lines: "0 under a shell" in lines)
    launched.process.send_signal(signal.SIGTERM)
    code, _, err = launched.end()
    assert code == EXIT_RETRY
    assert "killed what did not stop in 0.3 s" in err


def lines_of(lines: list[str], word: str) -> int:
    return sum(word in line for line in lines)


@pytest.mark.slow
def test_restarts_go_on_when_nobody_reads_about_them_any_more(launch):
    act = "note('again') if reason else sys.exit(1)"
    launched = launch("--processes", "1", "--backoff", "0.05", act=act)
    assert launched.process.stderr is not None
    launched.process.stderr.close()
    launched.process.stderr = None
    assert launched.end()[0] == 0
    assert "0 again" in launched.notes.read_text().splitlines()


def test_the_wait_before_a_restart_has_a_bound_however_many_there_were(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(launch_command, "run_once", lambda *_: Outcome(EXIT_RETRY, "it fails"))
    with Signals(()) as signals:
        monkeypatch.setattr(signals, "wait", waits.append)
        options = LaunchOptions(processes=1, restarts=2_000, backoff=0.001)
        assert launch_command.supervise(["true"], options, signals) == 1
    assert len(waits) == 2_000
    assert waits[:3] == [0.001, 0.002, 0.004] and max(waits) == waits[-1] == 60


CLOSE = """
import os, signal
from contextlib import closing
from workflows.child_processes import Children, End, Signals

killed, killpg = [], os.killpg

def note(group, number):
    if number == signal.SIGKILL:
        killed.append(group)
    killpg(group, number)

os.killpg = note
with Signals((signal.SIGTERM,)) as signals:
    command = ["sh", "-c", COMMAND]
    with closing(Children(command, [dict(os.environ)], [None], signals)) as children:
        while not (ends := children.ended()):
            children.wait(1.0)
assert ends == [End(0, 7)]
print(len(killed))
"""


@pytest.mark.slow
@pytest.mark.parametrize("command, kills", [("exit 7", 0), ("sleep 60 & exit 7", 1)])
def test_only_what_is_left_is_killed_as_a_number_may_be_given_away(command, kills):
    result = subprocess.run(
        [sys.executable, "-c", CLOSE.replace("COMMAND", repr(command))],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, f"{kills}\n"), result.stderr


def test_a_signal_between_two_starts_ends_the_wait(launch):
    launched = launch("--processes", "1", "--backoff", "50", act="sys.exit(1)")
    assert launched.process.stderr is not None
    while "restart" not in launched.process.stderr.readline():
        continue
    launched.process.send_signal(signal.SIGTERM)
    assert launched.end()[0] == EXIT_PREEMPTED


def test_processes_die_with_their_supervisor(launch):
    launched = launch("--processes", "2", act="time.sleep(60)")
    pids = launched.pids(2)
    launched.process.kill()
    launched.process.communicate(timeout=30)
    end = time.monotonic() + 10
    while any(map(is_alive, pids)):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    "args, expected",
    [
        (["--processes", "2"], "command: got '', expected -- COMMAND"),
        (["--processes", "2", "--"], "command: got '', expected -- COMMAND"),
        (["--processes", "2", "--", "no-such-program"], "command: got 'no-such-program'"),
        (["--processes", "0", "--", "true"], "processes: got 0, expected 1 or more"),
        (["--processes", "1", "--grace", "-1", "--", "true"], "launch.grace: got -1"),
        (["--processes", "1", "--backoff", "nan", "--", "true"], "launch.backoff: got nan"),
        (["--processes", "1", "--training.seed", "1", "--", "true"], "--training.seed: got an"),
    ],
)
def test_what_makes_no_sense_is_refused(args, expected, capsys):
    import isoflop

    assert isoflop.run(["launch", *args]) == 2
    assert capsys.readouterr().err.startswith(f"isoflop: error: {expected}")


SUM = """
import os, pathlib, signal
import jax, numpy as np
from train.distributed import leave, start_processes
from train.preemption import StopRequest

start_processes()
note(f"{jax.process_index()} of {jax.process_count()} with {len(jax.devices())}")
with StopRequest() as stop:
    for step in range(20):
        assert not stop.poll()  # an all-reduce over both
        if step == 10 and me == VICTIM and not reason:
            os.kill(os.getpid(), signal.SIGKILL)
note("done" + " after " * bool(reason) + reason)
leave(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1], ids=["coordinator", "worker"])
def test_real_processes_finish_after_one_was_killed(launch, monkeypatch, victim):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    act = SUM.replace("VICTIM", str(victim))
    launched = launch("--processes", "2", "--backoff", "0.1", act=act)
    code, _, err = launched.end()
    assert code == 0, err
    lines = launched.notes.read_text().splitlines()
    assert {"0 0 of 2 with 2", "1 1 of 2 with 2"} <= set(lines)
    done = f"done after process {victim} was killed by SIGKILL"
    assert {line for line in lines if "done" in line} == {f"0 {done}", f"1 {done}"}


@pytest.mark.slow
def test_real_processes_all_stop_when_one_is_told_to(launch, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    act = """
import jax
from train.distributed import leave, start_processes
from train.preemption import StopRequest

start_processes()
with StopRequest() as stop:
    for step in range(10_000):
        if step == 10:
            note("up")
        if stop.poll():
            note(f"stops at {step}")
            leave(143)
leave(1)
"""
    launched = launch("--processes", "2", act=act)
    launched.wait_for(lambda lines: {"0 up", "1 up"} <= set(lines))
    os.kill(launched.pids(2)[1], signal.SIGTERM)
    assert launched.end()[0] == EXIT_PREEMPTED
    stops = [line for line in launched.notes.read_text().splitlines() if "stops" in line]
    assert len(stops) == 2 and len({line.split()[-1] for line in stops}) == 1
