"""`isoflop prepare` killed again and again: the same command makes the corpus it would have made.

A part of benchmarks/reliability/chaos.py.
"""

import argparse
import hashlib
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.processes import MOST_SECONDS, Life, ends_well
from benchmarks.reliability.promises import Promise
from benchmarks.reliability.small_run import ISOFLOP, Job, environment
from data.corpus import verify_corpus


def preparations(folder: Path, options: argparse.Namespace) -> tuple[list[Promise], dict[str, Any]]:
    """Kills of `isoflop prepare`, two for each of several corpora, all of the same text."""
    whole = preparation_job(folder, "whole")
    with Life(whole) as life:
        began = time.monotonic()
        if (status := life.wait(MOST_SECONDS)) != 0:
            raise RuntimeError(f"the undisturbed preparation exited {status}: {life.last_lines()}")
        seconds = time.monotonic() - began
    print(f"the undisturbed preparation took {seconds:.1f} s", flush=True)
    rng = np.random.default_rng(options.seed)
    kills: list[dict[str, Any]] = []
    promises: list[Promise] = []
    for number in itertools.count():
        if len(kills) == options.prepare_kills:
            break
        job = preparation_job(folder, f"killed_{number}")
        for _ in range(min(2, options.prepare_kills - len(kills))):
            with Life(job) as life:
                if (status := life.wait(float(rng.uniform(0, seconds)))) is not None:
                    break
                life.kill_group()
                after = round(time.time() - life.started, 3)
                there = sorted(path.name for path in job.run.glob("*"))
                kills.append({"corpus": job.run.name, "seconds": after, "left": there})
                print(f"kill {len(kills)}: after {after:.1f} s, there is {there}", flush=True)
        with Life(job) as life:
            status = life.wait(MOST_SECONDS)
            promises += [
                ends_well(status, life)._replace(what=f"{job.run.name} ends by itself"),
                same_corpus(whole.run, job.run),
            ]
    delivered = Promise(
        "kills delivered",
        str(options.prepare_kills),
        str(len(kills)),
        len(kills) == options.prepare_kills,
    )
    return [delivered, *promises], {"seconds": round(seconds, 1), "kills": kills}


def preparation_job(folder: Path, name: str) -> Job:
    """The corpus of Python's standard library, by two workers; `run` is its folder."""
    corpus = folder / name
    size = ("--vocab-size", "1024", "--workers", "2")
    return Job(
        run=corpus,
        command=(*ISOFLOP, "prepare", "stdlib", "--out", str(corpus), *size),
        environment=environment(folder / "cache", mark=str(corpus)),
        log=folder / f"{name}.log",
    )


def same_corpus(whole: Path, other: Path) -> Promise:
    """Whether two folders hold the same rows: hash of the card, every token and its document. Both
    are read whole."""
    seen = []
    for folder in (whole, other):
        corpus = verify_corpus(folder)
        digest = hashlib.sha256(corpus.sha.encode())
        for split in corpus.splits:
            stream = corpus.stream(split)
            for part in stream.read(0, stream.num_tokens):
                digest.update(np.ascontiguousarray(part).tobytes())
        names = sorted(path.name for path in folder.iterdir())
        seen.append(f"{digest.hexdigest()[:16]}, {', '.join(names)}")
    return Promise(f"{other.name} is the undisturbed one's", *seen, kept=seen[0] == seen[1])
