"""Tasks spread over processes, counting bytes and documents as they go."""

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_TICK_SECONDS = 0.2


class Tally:
    """Documents and bytes done so far, added up over processes."""

    def __init__(self, context: Any = None):
        self._values = context.Array("q", 2) if context else None
        self._own = [0, 0]

    def add(self, documents: int, num_bytes: int) -> None:
        """Counts work that was done."""
        if self._values is None:
            self._own[0] += documents
            self._own[1] += num_bytes
        else:
            with self._values.get_lock():
                self._values[0] += documents
                self._values[1] += num_bytes

    def read(self) -> tuple[int, int]:
        """(documents, bytes)."""
        counts = self._own if self._values is None else self._values[:]
        return counts[0], counts[1]


def run_tasks(
    function: Callable[[Any, Tally], T],
    tasks: Sequence[Any],
    *,
    workers: int,
    on_tick: Callable[[int, int], None] = lambda documents, num_bytes: None,
) -> Iterator[T]:
    """Results of `function(task, tally)` in the order of the tasks, as they become available.

    Args:
        function: importable by name, as its tasks and results travel between processes.
        workers: processes; with 1, tasks run in this one, each when its result is asked for.
        on_tick: called with the tally's documents and bytes, several times a second.

    Raises:
        What a task raises; tasks that were not begun are given up.
    """
    if workers <= 1 or len(tasks) <= 1:
        tally = Tally()
        for task in tasks:
            yield function(task, _Ticking(tally, on_tick))  # type: ignore[arg-type]
            on_tick(*tally.read())
        return
    # A fresh interpreter: forking one in which JAX has started threads may deadlock.
    context = multiprocessing.get_context("spawn")
    tally = Tally(context)
    with ProcessPoolExecutor(
        min(workers, len(tasks)),
        mp_context=context,
        initializer=_begin_worker,
        initargs=(tally, os.getpid()),
    ) as pool:
        futures = deque(pool.submit(_run, function, task) for task in tasks)
        try:
            while futures:  # a result that was given is kept no longer
                future = futures.popleft()
                _wait(future, tally, on_tick)
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    on_tick(*tally.read())


class _Ticking:
    """A tally that reports each addition, for tasks that run in this process."""

    def __init__(self, tally: Tally, on_tick: Callable[[int, int], None]):
        self._tally, self._on_tick = tally, on_tick
        self._last = 0.0

    def add(self, documents: int, num_bytes: int) -> None:
        self._tally.add(documents, num_bytes)
        if time.monotonic() - self._last > _TICK_SECONDS:
            self._last = time.monotonic()
            self._on_tick(*self._tally.read())


def _wait(future: Future, tally: Tally, on_tick: Callable[[int, int], None]) -> None:
    while not future.done():
        on_tick(*tally.read())
        try:
            future.exception(timeout=_TICK_SECONDS)
        except TimeoutError:
            continue


_worker_tally: Tally | None = None


def _begin_worker(tally: Tally, parent: int) -> None:
    global _worker_tally
    _worker_tally = tally
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: int) -> None:
    """Ends this process soon after its parent was killed; it would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _run(function: Callable[[Any, Tally], T], task: Any) -> T:
    assert _worker_tally is not None
    return function(task, _worker_tally)
