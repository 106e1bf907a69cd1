"""Flips bits and cuts files of a finished run's checkpoints and corpus, and counts what is noticed.

    python -m benchmarks.bit_rot [--flips 200] [--truncations 20] [--seed 0]

Prepares a corpus of some of Python's standard library, trains a tiny run of four checkpoints on it,
then damages one copy after another: three fifths of the times the newest checkpoint, else the
corpus; the place drawn from all bytes of all files alike. For a checkpoint, what training restores
must be the step before, its parameters with the hash that they had; then the whole training is gone
through for one flip and one cut, and must end with the same parameters as the undamaged run. For a
corpus, it is read twice: as `--verify full` does, and as training does in quick mode, with the ends
of the files checked when it is opened and every chunk when it is read. A reading must stop with an
error that names the file, or give the very corpus that was written (harmless). Prints the counts;
exits 1 if any damage was silent.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

from configs.errors import InputError
from data import corpus_card
from data.corpus import Corpus, open_corpus, verify_corpus
from tests.integration.conftest import TINY
from train import checkpoint_reading
from train.checkpoint import Checkpoints, Restored
from train.mesh import make_mesh
from train.run_directory import RunDirectory
from train.state import TrainState, abstract_state

ROOT = Path(__file__).resolve().parents[1]
_STEPS = 40
_SAVED_EVERY = 10
_CHECKPOINT_SHARE = 0.6


class Damage(NamedTuple):
    """One place in one file: a bit to flip there, or None: the file ends there."""

    file: str
    offset: int
    bit: int | None

    def __str__(self) -> str:
        what = "cut at" if self.bit is None else f"bit {self.bit} of"
        return f"{self.file}, {what} byte {self.offset}"


def main() -> int:
    """Runs the benchmark; 1 if any damage was silent."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--truncations", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_run(work)
        checkpoints, corpus = CheckpointTrial(work), CorpusTrial(work)
        for count, draw in ((options.flips, flip_of), (options.truncations, cut_of)):
            of_checkpoints = round(count * _CHECKPOINT_SHARE)
            for number in range(count):
                trial = checkpoints if number < of_checkpoints else corpus
                trial.run(draw(trial.folder, rng))
        silent = checkpoints.report() + corpus.report()
        for draw in (flip_of, cut_of):
            silent += train_on(work, draw(checkpoints.folder, rng))
    print(f"silent: {silent}")
    return int(silent > 0)


def make_run(work: Path) -> None:
    """`work/corpus` and `work/run`, through the command line."""
    library = sysconfig.get_paths()["stdlib"]
    texts = ",".join(f"{library}/{package}/*.py" for package in ("asyncio", "email", "json"))
    isoflop("prepare", texts, "--out", work / "corpus", "--vocab-size", 400)
    isoflop(
        "train", "decoder_only/tiny", "--run", work / "run", "--corpus", work / "corpus", *TINY,
        f"--training.num-steps={_STEPS}", f"--training.checkpoint-every={_SAVED_EVERY}",
        "--training.keep-checkpoints=4", "--training.eval-every=0",
    )  # fmt: skip


def isoflop(*args: object) -> None:
    """Runs one command; its output is shown if it fails."""
    command = [sys.executable, ROOT / "isoflop.py", *map(str, args)]
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if process.returncode:
        raise RuntimeError(f"{command} failed:\n{process.stdout}\n{process.stderr}")


class CheckpointTrial:
    """Damage to a run's newest checkpoint."""

    def __init__(self, work: Path):
        self.work, self.checkpoints = work, work / "run" / "checkpoints"
        config = RunDirectory.open(work / "run").config()
        self.abstract = abstract_state(config, make_mesh(config.mesh))
        self.hashes = {}
        for step in (_STEPS - _SAVED_EVERY, _STEPS):
            self.hashes[step] = hash_of(self.restore(self.checkpoints, up_to=step)[0].state)
        self.folder = self.checkpoints / str(_STEPS)
        self.counts: Counter[str] = Counter()

    def run(self, damage: Damage) -> None:
        copy = self.work / "damaged"
        link_tree(self.checkpoints, copy)
        apply(copy / str(_STEPS), damage)
        # By turns as of small files, which are checked before, and of large ones, while they are
        # read.
        large_bytes = checkpoint_reading._LARGE_BYTES * (self.counts.total() % 2)
        with mock.patch.object(checkpoint_reading, "_LARGE_BYTES", large_bytes):
            restored, events = self.restore(copy)
        step = int(restored.state.step)
        same = hash_of(restored.state) == self.hashes.get(step)
        found = any(event == "checkpoint_quarantined" for event, _ in events)
        if step == _STEPS - _SAVED_EVERY and same and found:
            self.counts["detected, the step before restored bit for bit"] += 1
        else:
            self.counts["silent"] += 1
            print(f"  silent: {damage}: restored step {step}, equal: {same}, events {events}")
        shutil.rmtree(copy)

    def restore(
        self, folder: Path, up_to: int | None = None
    ) -> tuple[Restored, list[tuple[str, str]]]:
        """The newest intact step of a copy of the folder, and what was told on the way."""
        events: list[tuple[str, str]] = []
        copy = self.work / "restored"
        link_tree(folder, copy)
        checkpoints = Checkpoints(copy, keep=9, on_event=lambda *event: events.append(event))
        restored = (
            checkpoints.restore_latest(self.abstract)
            if up_to is None
            else checkpoints.restore_before(self.abstract, up_to)
        )
        checkpoints.close()
        shutil.rmtree(copy)
        assert restored is not None
        return restored, events

    def report(self) -> int:
        """Prints the counts and returns the number of silent ones."""
        print(f"newest checkpoint, {size_of(self.folder):,} bytes: {describe(self.counts)}")
        return self.counts["silent"]


class CorpusTrial:
    """Damage to a corpus."""

    def __init__(self, work: Path):
        self.work, self.folder = work, work / "corpus"
        self.content = content_of(open_corpus(self.folder))
        self.counts = {name: Counter() for name in ("full", "quick")}

    def run(self, damage: Damage) -> None:
        copy = self.work / "damaged"
        link_tree(self.folder, copy)
        apply(copy, damage)
        self.read("full", damage, lambda: verify_corpus(copy))
        # As of a corpus too large to be read whole when it is opened.
        with mock.patch.object(corpus_card, "_WHOLE_CHECK_BYTES", -1):
            self.read("quick", damage, lambda: open_corpus(copy))
        shutil.rmtree(copy)

    def read(self, way: str, damage: Damage, opened: Callable[[], Corpus]) -> None:
        try:
            same = content_of(opened()) == self.content
        except InputError as error:
            outcome = "detected"
            if Path(damage.file).name not in str(error):
                outcome = "detected, the file not named"
                print(f"  not named ({way}): {damage}: {error}")
        else:
            outcome = f"harmless ({damage.file})" if same else "silent"
            if not same:
                print(f"  silent ({way}): {damage}")
        self.counts[way][outcome] += 1

    def report(self) -> int:
        """Prints the counts and returns the number of silent ones."""
        size = size_of(self.folder)
        for way, counts in self.counts.items():
            print(f"corpus, {size:,} bytes, read in {way} mode: {describe(counts)}")
        return sum(counts["silent"] for counts in self.counts.values())


def train_on(work: Path, damage: Damage) -> int:
    """Trains a copy of the run on, whose newest checkpoint is damaged; 1 if it ends otherwise."""
    run, trial = work / "trained_on", CheckpointTrial(work)
    shutil.copytree(work / "run", run)
    apply(run / "checkpoints" / str(_STEPS), damage)
    isoflop("train", run, "--corpus", work / "corpus")
    restored, _ = trial.restore(run / "checkpoints")
    same = hash_of(restored.state) == trial.hashes[_STEPS]
    told = [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]
    is_told = "checkpoint_quarantined" in told
    print(f"trained on after {damage}: same parameters at the end: {same}, told: {is_told}")
    shutil.rmtree(run)
    return int(not (same and is_told))


def flip_of(folder: Path, rng: np.random.Generator) -> Damage:
    """A bit of any byte of any file, each as likely."""
    paths, ends = files_of(folder)
    place = int(rng.integers(ends[-1]))
    index = int(np.searchsorted(ends, place, side="right"))
    begin = int(ends[index - 1]) if index else 0
    return Damage(paths[index].relative_to(folder).as_posix(), place - begin, int(rng.integers(8)))


def cut_of(folder: Path, rng: np.random.Generator) -> Damage:
    """The end of a file moved to any byte before it."""
    return flip_of(folder, rng)._replace(bit=None)


def apply(folder: Path, damage: Damage) -> None:
    """Damages a file of a linked copy, and not the one it is a link to."""
    path = folder / damage.file
    content = bytearray(path.read_bytes())
    if damage.bit is None:
        del content[damage.offset :]
    else:
        content[damage.offset] ^= 1 << damage.bit
    path.unlink()
    path.write_bytes(content)


def files_of(folder: Path) -> tuple[list[Path], np.ndarray]:
    """Files that hold anything, and the running sum of their bytes."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size]
    return paths, np.cumsum([path.stat().st_size for path in paths])


def size_of(folder: Path) -> int:
    return int(files_of(folder)[1][-1])


def link_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=os.link)


def hash_of(state: TrainState) -> str:
    """Of every bit of the state."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def content_of(corpus: Corpus) -> dict[str, Any]:
    """All that training takes from a corpus: identity, counts, tokenizer, every document."""
    digest = hashlib.sha256()
    for split in corpus.splits:
        for document in corpus.documents(split):
            digest.update(document.tokens.tobytes() + document.num_bytes.to_bytes(8, "little"))
    return {
        "sha": corpus.sha,
        "splits": corpus.splits,
        "tokenizer": corpus.tokenizer.sha,
        "documents": digest.hexdigest(),
    }


def describe(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return f"{sum(counts.values())} damaged: " + ", ".join(f"{n} {name}" for name, n in ordered)


if __name__ == "__main__":
    sys.exit(main())
