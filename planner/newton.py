"""Damped Newton on exact derivatives: every start at once, in chunks over threads.

Legend: S starts (or resamples), R runs, P coordinates, as in planner.huber.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from planner.huber import Problem

Progress = Callable[[int, int], None]  # (done, total)
_Part = TypeVar("_Part")

_CHUNK = 32_000  # starts × runs that go together: their arrays stay in the cache


def minimise(
    problem: Problem,
    start_SP: np.ndarray,
    counts_SR: np.ndarray | None,
    iterations: int,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Damped Newton from every start at once.

    Args:
      start_SP: [S, P], centred.
      counts_SR: how often each run counts, [S, R]; None once each.
      tolerance: a start rests after five steps that each gained less than this share.

    Returns:
      The points [S, P] and objectives [S].
    """
    low_P, high_P = problem.bounds()
    theta_SP = np.clip(start_SP, low_P, high_P)
    value_S = np.full(len(theta_SP), np.inf)
    damping_S, rest_S = np.ones(len(theta_SP)), np.zeros(len(theta_SP), dtype=int)
    diagonal = np.arange(theta_SP.shape[1])
    once_1R = np.ones((1, len(problem.x_R)))
    moving = np.arange(len(theta_SP))
    for _ in range(iterations):
        counts = once_1R if counts_SR is None else counts_SR[moving]
        here_SP = theta_SP[moving]
        value, gradient_SP, hessian_SPP, above_SPP = problem.derivatives(here_SP, counts)
        # A coordinate at its bound that wants further out stays; so does a fixed E.
        held_SP = ((here_SP <= low_P) & (gradient_SP >= 0)) | (
            (here_SP >= high_P) & (gradient_SP <= 0)
        )
        gradient_SP[held_SP] = 0
        damping = damping_S[moving]
        matrix_SPP = hessian_SPP + damping[:, None, None] * above_SPP
        scale_SP = above_SPP[:, diagonal, diagonal]
        matrix_SPP[:, diagonal, diagonal] += (
            1e-3 * damping[:, None] * scale_SP + 1e-14 * scale_SP.max(axis=1, keepdims=True)
        ) + 1e-300
        matrix_SPP *= ~held_SP[:, :, None] & ~held_SP[:, None, :]
        matrix_SPP[:, diagonal, diagonal] += held_SP
        step_SP = np.linalg.solve(matrix_SPP, -gradient_SP[:, :, None])[:, :, 0]
        # The model of the objective holds nearby only: no coordinate moves by more than 2.
        step_SP /= np.maximum(1, np.abs(step_SP).max(axis=1, keepdims=True) / 2)
        there_SP = np.clip(here_SP + step_SP, low_P, high_P)
        new_value = problem.value(problem.residuals(there_SP)[0], counts)
        better = new_value < value
        theta_SP[moving] = np.where(better[:, None], there_SP, here_SP)
        value_S[moving] = np.minimum(value, new_value)
        damping_S[moving] = np.clip(damping * np.where(better, 0.25, 5.0), 1e-9, 1e12)
        small = value - new_value <= tolerance * value
        rest_S[moving] = np.where(better & ~small, 0, rest_S[moving] + (better | (damping > 1e6)))
        moving = moving[(rest_S[moving] < 5) & (value_S[moving] > 1e-26)]
        if not len(moving):
            break
    return theta_SP, value_S


def minimise_all(
    problem: Problem,
    start_SP: np.ndarray,
    *,
    iterations: int,
    tolerance: float,
    progress: Progress | None = None,
    workers: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """minimise over threads."""

    def work(chunk: slice) -> tuple[np.ndarray, np.ndarray]:
        return minimise(problem, start_SP[chunk], None, iterations, tolerance)

    parts = _in_chunks(problem, work, len(start_SP), progress, workers)
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def refit(
    problem: Problem,
    start_P: np.ndarray,
    counts_SR: np.ndarray,
    generator: np.random.Generator,
    progress: Progress | None = None,
    workers: int | None = None,
) -> np.ndarray:
    """Optima [S, P] of the runs counted as given, from the fit and from each other's optima."""
    others = [generator.random(len(counts_SR)) for _ in range(2)]

    def work(chunk: slice) -> np.ndarray:
        counts = counts_SR[chunk]
        theta_SP, value_S = minimise(
            problem, np.repeat(start_P[None], len(counts), axis=0), counts, 300, 1e-11
        )
        # Another resample's optimum is as far away as optima lie from each other.
        for keys_S in others:
            other_SP, other_S = minimise(
                problem, theta_SP[np.argsort(keys_S[chunk])], counts, 300, 1e-11
            )
            better_S = other_S < value_S
            theta_SP[better_S], value_S[better_S] = other_SP[better_S], other_S[better_S]
        return theta_SP

    return np.concatenate(_in_chunks(problem, work, len(counts_SR), progress, workers))


def _in_chunks(
    problem: Problem,
    work: Callable[[slice], _Part],
    total: int,
    progress: Progress | None,
    workers: int | None,
) -> list[_Part]:
    """Over threads: NumPy works outside the interpreter's lock."""
    size = max(1, _CHUNK // len(problem.x_R))
    chunks = [slice(i, min(i + size, total)) for i in range(0, total, size)]
    parts = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for chunk, part in zip(chunks, pool.map(work, chunks), strict=True):
            parts.append(part)
            if progress is not None:
                progress(chunk.stop, total)
    return parts
