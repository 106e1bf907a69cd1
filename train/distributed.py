"""Joining the processes of a run, by jax.distributed, and leaving when one of them is lost.

What a survivor sees when a peer dies (jax 0.10, CPU; docs/reliability.md):

- a collective fails at once (gloo), or after the heartbeat timeout: an exception that
  `is_lost_peer` knows, and status 42;
- process 0 is gone, or a peer's heart has stopped while this process computes nothing: the
  runtime's C++ ends the process by SIGABRT (134 in a shell), and no exception is seen.
"""

import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

import jax

from configs.errors import InputError, require
from train.preemption import StopRequest
from train.supervision import (
    COORDINATOR,
    EXIT_PREEMPTED,
    EXIT_RETRY,
    PROCESS,
    PROCESSES,
)

START_TIMEOUT = 300
# Heartbeats come from a thread of C++ that neither a compile nor Python's lock holds up: a minute
# without one is a dead machine or network, and no more than a minute is lost to it.
HEARTBEAT_TIMEOUT = 60

_MARGIN_SECONDS = 60  # by which jax's own time limit, which aborts, lies behind ours
# At the end all wait for the slowest: process 0 may write an export and a report meanwhile.
_SHUTDOWN_TIMEOUT = 3600
_HERE = ("localhost", "127.0.0.1", "[::1]")
_ADDRESS = re.compile(r"(\S+):(\d{1,5})")

_LOST_PEER = re.compile(
    r"Gloo .*(failed|timed out)|connection (closed|reset) by peer|heartbeat timeout"
    r"|coordination ?service|stopped sending heartbeats|barrier (failed|timed out|has failed)"
    r"|NCCL.*(remote|peer|unhandled system error|abort)",
    re.IGNORECASE | re.DOTALL,
)


def start_processes(
    *,
    coordinator: str = "",
    num_processes: int | None = None,
    process_id: int | None = None,
    detect: bool = False,
    start_timeout: int = START_TIMEOUT,
    heartbeat_timeout: int = HEARTBEAT_TIMEOUT,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Joins the other processes of the run, if there are to be any; before JAX makes a device.

    From then on an exception that nobody catches ends this process at once, with 42 where a peer
    was lost and 1 otherwise, rather than wait at exit for processes that wait for this one.

    Args:
      coordinator: HOST:PORT of process 0, where it listens; "" for what `isoflop launch` says in
        the environment, if anything.
      num_processes: how many there are; with `coordinator`, and so is `process_id`, from 0.
      detect: have JAX ask SLURM, Open MPI, Kubernetes or the TPU pod instead.
      start_timeout: seconds to wait for the others; then one line on stderr, and exit with 42.
      heartbeat_timeout: seconds of silence after which a process counts as dead.
      environment: of this process if None.

    Raises:
      InputError: options or variables that make no sense, or nothing found by `detect`.
    """
    require(start_timeout > 0, "start_timeout", start_timeout, "1 second or more")
    require(heartbeat_timeout >= 5, "heartbeat_timeout", heartbeat_timeout, "5 seconds or more")
    place = _place(coordinator, num_processes, process_id, detect=detect)
    if place is None and not detect:
        place = _launched(os.environ if environment is None else environment)
    if place is None and not detect:
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
    address, number, process = place or (None, None, None)
    timer = threading.Timer(start_timeout, _give_up, args=(address, number, start_timeout))
    timer.daemon = True
    timer.start()
    try:
        with StopRequest() as stop, stop.nothing_to_save():
            jax.distributed.initialize(
                address,
                number,
                process,
                cluster_detection_method="deactivate" if place else None,
                initialization_timeout=start_timeout + _MARGIN_SECONDS,
                heartbeat_timeout_seconds=heartbeat_timeout,
                shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT,
                coordinator_bind_address=address if _is_here(address) else None,
            )
    except ValueError as error:
        if not detect:
            raise
        raise InputError(
            "distributed: got an environment that names no processes, expected SLURM, Open MPI, "
            f"Kubernetes or a TPU pod; elsewhere give --coordinator ({error})"
        ) from None
    except jax.errors.JaxRuntimeError as error:
        _say(f"cannot join the processes of {address or 'this job'}: {error}")
        os._exit(EXIT_RETRY)
    finally:
        timer.cancel()
    sys.excepthook = _end_on_error


def is_lost_peer(error: BaseException) -> bool:
    """Whether an exception, or what led to it, means that another process is gone."""
    return any(_LOST_PEER.search(str(seen)) for seen in _chain(error))


def leave(status: int) -> NoReturn:
    """Ends this process: after the others, or at once where they may wait for it in vain.

    Args:
      status: what to exit with; 0 and 143 (after a save) are what all processes agree on.
    """
    if status not in (0, EXIT_PREEMPTED):
        leave_others(status)
    sys.exit(status)


def leave_others(status: int) -> None:
    """Ends this process at once if it has joined others: for a status that was not agreed on.

    At its exit JAX would wait for them, who may be waiting for this process elsewhere.
    """
    if jax.distributed.is_initialized():
        _flush()
        os._exit(status)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, what it was raised from, and what was being handled, and so on of each."""
    rest, seen = [error], set[int]()
    while rest:
        one = rest.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            rest += filter(None, (one.__cause__, one.__context__))


def _place(
    coordinator: str, num_processes: int | None, process_id: int | None, *, detect: bool
) -> tuple[str, int, int] | None:
    """(address, number of processes, this one) as the options say; None without them."""
    if not coordinator:
        for name, value in (("num_processes", num_processes), ("process_id", process_id)):
            require(value is None, name, value, "--coordinator HOST:PORT beside it")
        return None
    require(not detect, "distributed", True, "either this or --coordinator, not both")
    if num_processes is None or process_id is None:
        raise InputError(
            f"coordinator: got {coordinator!r} alone, expected --num-processes and --process-id "
            "beside it"
        )
    return _checked(
        coordinator, num_processes, process_id, ("coordinator", "num_processes", "process_id")
    )


def _launched(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """What `isoflop launch` says; None where this process is not its child, or the only one."""
    if COORDINATOR not in environment:
        return None
    number, process = (environment.get(name, "") for name in (PROCESSES, PROCESS))
    for name, value in ((PROCESSES, number), (PROCESS, process)):
        require(value.isdecimal(), name, value, f"a whole number, as {COORDINATOR} is set")
    names = (COORDINATOR, PROCESSES, PROCESS)
    return _checked(environment[COORDINATOR], int(number), int(process), names)


def _checked(
    address: str, number: int, process: int, names: tuple[str, str, str]
) -> tuple[str, int, int]:
    match = _ADDRESS.fullmatch(address)
    is_address = match is not None and 0 < int(match[2]) < 2**16
    require(is_address, names[0], address, "HOST:PORT, such as 10.0.0.1:1234")
    require(number > 0, names[1], number, "1 or more")
    require(0 <= process < number, names[2], process, f"0 to {number - 1}, of {number} processes")
    return address, number, process


def _is_here(address: str | None) -> bool:
    """Whether all processes are on this machine: nobody else need reach the coordinator."""
    return address is not None and address.rpartition(":")[0] in _HERE


def _give_up(address: str | None, number: int | None, start_timeout: int) -> None:
    whom = f"all {number} processes at {address}" if number else "all processes of the job"
    _say(f"{whom} did not meet within {start_timeout} s; look into the logs of those missing")
    os._exit(EXIT_RETRY)


def _end_on_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    sys.__excepthook__(kind, error, traceback)
    is_lost = is_lost_peer(error)
    if is_lost:
        _say("a process of this run is gone; the same command goes on from the last checkpoint")
    _flush()
    os._exit(EXIT_RETRY if is_lost else 1)


def _say(line: str) -> None:
    with suppress(OSError):  # whoever read our stderr has gone: the status still counts
        print(f"isoflop: error: {' '.join(line.split())}", file=sys.stderr, flush=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # its reader has gone
            continue
