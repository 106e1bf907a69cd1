"""A signal is noted once, wherever the main thread is; where nothing can be saved it is the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from train import agreement
from train.preemption import EXIT_PREEMPTED, REPEAT_SECONDS, StopRequest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import ctypes, time
import train.preemption as module
from train.preemption import StopRequest

def stuck_in_c():
    print("stuck", flush=True)
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # the second never returns, and no signal ends it
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

def on_exit():
    print("event", flush=True)
"""


class Stuck:
    """A process of which a line was read: "stuck"."""

    def __init__(self, body: str):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{SCRIPT}\n{body}"],
            env=environment,
            stdout=subprocess.PIPE,
            bufsize=0,  # so that a line read here takes no more than itself
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"stuck\n"

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """(exit code, what it wrote after "stuck")."""
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out.decode()


def test_the_first_signal_is_noted_and_the_handlers_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopRequest() as stop:
        assert not stop.poll()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # at once again: the same request
        assert stop.poll() and stop.requested
        time.sleep(0.05)
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert after == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_after_what_cannot_be_saved_is_only_noted():
    with StopRequest() as stop:
        with stop.nothing_to_save():
            assert not stop.poll()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)  # the reading thread sees it too
        assert stop.poll()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_nothing_can_be_saved_a_signal_ends_a_long_call_of_c(number):
    stuck = Stuck("with StopRequest() as stop, stop.nothing_to_save(on_exit): stuck_in_c()")
    stuck.send(number)
    assert stuck.end() == (EXIT_PREEMPTED, "event\n")


def test_last_words_that_do_not_end_keep_nothing_alive():
    stuck = Stuck(
        "module._ON_EXIT_SECONDS = 0.1\n"
        "with StopRequest() as stop, stop.nothing_to_save(lambda: time.sleep(60)): stuck_in_c()"
    )
    stuck.send(signal.SIGTERM)
    assert stuck.end() == (EXIT_PREEMPTED, "")


def test_only_a_second_signal_ends_what_may_be_saving():
    stuck = Stuck("with StopRequest() as stop: stuck_in_c()")
    stuck.send(signal.SIGTERM)
    time.sleep(REPEAT_SECONDS + 0.2)
    assert stuck.process.poll() is None
    stuck.send(signal.SIGINT)
    assert stuck.end() == (EXIT_PREEMPTED, "")


def test_a_request_from_before_is_heard_where_nothing_can_be_saved():
    body = """
import os, signal
with StopRequest() as stop:
    print("stuck", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    with stop.nothing_to_save(on_exit):
        print("went on")
"""
    assert Stuck(body).end() == (EXIT_PREEMPTED, "event\n")


@pytest.mark.slow
def test_a_signal_ends_a_long_compile():
    body = """
import jax, jax.numpy as jnp
def long(x):
    for i in range(300):
        x = jnp.sin(x @ x) + i
    return x
lowered = jax.jit(long).lower(jnp.ones((64, 64)))
with StopRequest() as stop, stop.nothing_to_save(on_exit):
    print("stuck", flush=True)
    lowered.compile()
    print("compiled", flush=True)
"""
    stuck = Stuck(body)
    time.sleep(0.5)
    stuck.send(signal.SIGTERM)
    assert stuck.end() == (EXIT_PREEMPTED, "event\n")


@pytest.mark.parametrize("is_late", [False, True])
def test_what_one_device_says_all_hear_at_once_or_one_poll_later(monkeypatch, is_late):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    agreed = agreement.Agreement()
    agreed._is_late = is_late  # as on devices with a queue
    answers = [agreed.any(said) for said in (False, True, False, False)]
    expected = [False, True, False, False]
    assert answers == ([False, *expected[:-1]] if is_late else expected)
