"""What hangs leaves with 42 and its stacks on disk; what takes its own time does not."""

import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from train import watchdog as module
from train.supervision import EXIT_RETRY
from train.watchdog import Watchdog

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import ctypes, sys, time
from pathlib import Path
import train.watchdog as module
from train.watchdog import Watchdog

def beats(watchdog, number=6):
    for _ in range(number):
        time.sleep(0.02)
        watchdog.beat()

def stuck_in_python():
    time.sleep(60)

def stuck_in_c():
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # the second never returns, and no signal ends it
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

def on_hang(detail):
    print("event:", detail, flush=True)

options = dict(multiple=5.0, floor_seconds=0.4, on_hang=on_hang)
"""


def start(body: str, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", f"{SCRIPT}\n{body}"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # so that a line read here takes no more than itself
    )


def finish(body: str, folder: Path) -> tuple[int, str, str]:
    process = start(body, folder)
    out, err = process.communicate(timeout=30)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("where", ["stuck_in_python", "stuck_in_c"])
def test_a_hang_ends_with_its_stacks_and_an_event(tmp_path, where):
    body = f"with Watchdog(Path('stacks.txt'), **options) as w: beats(w); {where}()"
    code, out, err = finish(body, tmp_path)
    assert code == EXIT_RETRY, err
    assert out.startswith("event: nothing completed for 0."), out
    for text in ((tmp_path / "stacks.txt").read_text(), err):
        assert f"in {where}" in text, text


def test_an_event_that_hangs_too_keeps_nothing_alive(tmp_path):
    body = (
        "module._ON_HANG_SECONDS = 0.1\n"
        "options['on_hang'] = lambda detail: time.sleep(60)\n"
        "with Watchdog(Path('stacks.txt'), **options) as w: beats(w); stuck_in_python()"
    )
    assert finish(body, tmp_path)[0] == EXIT_RETRY


def test_a_file_that_cannot_be_written_keeps_no_event_back(tmp_path):
    body = "with Watchdog(Path('no/such/folder'), **options) as w: beats(w); stuck_in_python()"
    code, out, _ = finish(body, tmp_path)
    assert code == EXIT_RETRY
    assert out.startswith("event: nothing completed")


QUIET = {
    "beats": "with Watchdog(p, **options) as w: beats(w, 40)",
    "too few beats": "with Watchdog(p, **options) as w: beats(w, 2); time.sleep(0.8)",
    "a pause": "with Watchdog(p, **options) as w:\n beats(w)\n with w.paused(): time.sleep(0.8)",
    "what is switched off": "with Watchdog(p, **options | {'multiple': 0}) as w:\n"
    " beats(w); time.sleep(0.8)",
    "less than so many times the usual": "with Watchdog(p, **options | {'multiple': 100.0}) as w:\n"
    " beats(w); time.sleep(0.8)",
    "what comes after it was left": "with Watchdog(p, **options) as w: beats(w)\ntime.sleep(0.8)",
}


def test_no_hang_is_seen_where_there_is_none(tmp_path):
    started = {
        name: start(f"p = Path('stacks.txt')\n{body}\nprint('done')", tmp_path)
        for name, body in QUIET.items()
    }
    for name, process in started.items():
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, b"done\n"), (name, err)


def test_time_in_which_the_whole_process_was_stopped_does_not_count(tmp_path):
    body = (
        "with Watchdog(Path('stacks.txt'), **options) as w:\n"
        "    beats(w); print('up', flush=True); beats(w, 20)"
    )
    process = start(body, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


class Slept(threading.Condition):
    """What a watchdog waits by, in a test's own time: it notes for how long it was to sleep, and
    lets `happen` say what went on meanwhile."""

    def __init__(self, happen: Callable[[float], None]):
        super().__init__()
        self.ticks: list[float] = []
        self._happen = happen

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.ticks.append(timeout)
        self._happen(timeout)
        return False


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_beat_that_came_before_a_frozen_time_was_noticed_stays_in_the_past(clock, tmp_path):
    def freeze(tick: float) -> None:
        clock[0] += tick + 50.0
        watchdog.beat()
        watchdog._is_over = True

    watchdog = Watchdog(tmp_path / "stacks.txt", multiple=5.0, floor_seconds=0.4)
    for _ in range(6):
        clock[0] += 0.1
        watchdog.beat()
    watchdog._changed = Slept(freeze)
    watchdog._watch()
    assert watchdog._last == clock[0]
    clock[0] += 0.1
    watchdog.beat()
    assert min(watchdog._intervals) > 0


def test_no_floor_is_no_reason_to_be_busy(clock, tmp_path):
    def pass_by(tick: float) -> None:
        clock[0] += tick
        watchdog._is_over = len(slept.ticks) == 3

    watchdog = Watchdog(tmp_path / "stacks.txt", floor_seconds=0.0)
    watchdog._changed = slept = Slept(pass_by)
    watchdog._watch()
    assert slept.ticks == [0.05] * 3


def test_a_lost_stderr_keeps_no_event_back(monkeypatch, tmp_path):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    events: list[str] = []
    monkeypatch.setattr(sys, "stderr", Gone())
    Watchdog(tmp_path / "stacks.txt", on_hang=events.append)._report("it hangs")
    assert events == ["it hangs"]
