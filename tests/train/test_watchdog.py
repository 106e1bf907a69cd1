"""What hangs leaves with 42 and its stacks on disk; what takes its own time does not."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train.supervision import EXIT_RETRY

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
