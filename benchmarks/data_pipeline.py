"""The data pipeline against its peers: preparing a corpus, and serving rows from it.

    .venv/bin/python benchmarks/data_pipeline.py

Everything is measured in one run on one machine and printed as Markdown for RESULTS.md.

Preparation: `prepare_corpus` on JSON lines, in megabytes a second and core, against what
SentencePiece alone does on one thread with the same documents and model; memory; opening.
Rows (data_pipeline_rows.py): ours against Grain's packings of the same corpus, on one core.

The text is the standard library's, made as long as asked for: every copy of it has its paragraphs
shuffled and each of its rarer names replaced by another about as common, and documents of
log-normal length are taken from that. What was made stays in --folder, the text as well as the
corpus with the figures of its preparation: remove `corpus-*` there to prepare anew.
"""

import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sentencepiece
import tyro

from data.corpus import open_corpus
from data.corpus_card import CARD_NAME
from data.prepare import Preparation, prepare_corpus
from data.sources import documents_of, open_source
from data.tokenizer import Tokenizer, train_tokenizer

TEXT_VERSION = 1
SHARD_BYTES = 200_000_000
HUGE_LINE_BYTES = 500_000_000
MEDIAN_BYTES, LENGTH_SIGMA, LONGEST_BYTES = 1500, 1.3, 4_000_000
COMMON_WORDS = 300
NEIGHBOURS = 50
ROUNDS = 5
TOGETHER = ", on all cores at once"
VERSIONS_OF = ("numpy", "sentencepiece", "array-record", "tensorflow-datasets", "grain", "jax")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Prepares and reads a corpus beside SentencePiece and Grain; prints Markdown tables."""

    megabytes: int = 2000
    """Of text to prepare."""
    vocab_size: int = 8192
    """Pieces of the tokenizer, trained once on the standard library."""
    seq_len: int = 2048
    """Of rows."""
    folder: Path = Path("corpora/data_pipeline")
    """Holds the text and the corpora between runs."""
    seconds: float = 20
    """Of measuring for each thing that is compared, over all rounds."""
    only: Literal["prepare", "rows"] | None = None
    """Print one part; rows need the corpus, which is prepared where it is missing."""
    huge_line: bool = False
    """Add a file with a single line, a document of 500 MB."""


def main(options: Options) -> None:
    """Makes what is missing, measures, and prints."""
    start = time.time()
    name = f"{options.megabytes}MB" + ("-huge" if options.huge_line else "")
    text = options.folder / f"text-{name}"
    model = options.folder / f"tokenizer-{options.vocab_size}.model"
    corpus = options.folder / f"corpus-{name}-{options.vocab_size}"
    options.folder.mkdir(parents=True, exist_ok=True)
    if not model.exists():
        say("training the tokenizer")
        texts = [document.text for document in documents_of(open_source("stdlib"))]
        model.write_bytes(train_tokenizer(texts, options.vocab_size).model_bytes)
    made = text / ".made.json"
    if not made.exists():
        say(f"writing {text}")
        write_text(text, options.megabytes * 10**6, options.huge_line)
        made.write_text(json.dumps({"version": TEXT_VERSION}))
    assert json.loads(made.read_text())["version"] == TEXT_VERSION, f"remove {text}"
    record = options.folder / f"{corpus.name}.json"
    if not (record.exists() and (corpus / CARD_NAME).exists()):
        record.write_text(json.dumps(measure_preparation(options, text, model, corpus)))
    print(heading(options, start), end="\n\n")
    if options.only != "rows":
        opening = [fresh(seconds_to_open, corpus) for _ in range(ROUNDS)]
        print(preparation_table(json.loads(record.read_text()), opening), end="\n\n")
    if options.only != "prepare":
        print(fresh(rows_on_one_core, corpus, options.folder, options.seq_len, options.seconds))
    say(f"{time.time() - start:.0f} s in all; load average {os.getloadavg()[0]:.1f}")


def say(message: str) -> None:
    """Tells a waiting person, on stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


def fresh(function: Callable[..., Any], *args: Any, processes: int = 1) -> Any:
    """What `function(*args)` returns in a new process, or in several at once: the list of it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        found = [f.result() for f in [pool.submit(function, *args) for _ in range(processes)]]
    return found[0] if processes == 1 else found


def heading(options: Options, start: float) -> str:
    """When, on what, with which versions and by which command."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS_OF)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"## {datetime.date.fromtimestamp(start)}: the data pipeline beside its peers\n\n"
        f"{len(os.sched_getaffinity(0))} cores of {cpu[1] if cpu else 'an unknown CPU'}, "
        f"{memory / 2**30:.0f} GiB, load average {os.getloadavg()[0]:.1f} at the start; Python "
        f"{platform.python_version()}, {versions}; commit {commit or 'unknown'}; "
        f"{options.megabytes} MB of text, {options.vocab_size:,} pieces. Medians; least and most "
        "in brackets.\n\n"
        f"    python {' '.join(sys.argv)}"
    )


# The text.


def write_text(folder: Path, num_bytes: int, huge_line: bool) -> None:
    """Writes JSON lines of so many bytes of text, in shards of about `SHARD_BYTES`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cores = len(os.sched_getaffinity(0))
    num_shards = max(cores, round(num_bytes / SHARD_BYTES))
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        paths = [folder / f"shard-{shard:03}.jsonl" for shard in range(num_shards)]
        tasks = [
            pool.submit(write_shard, path, shard, num_bytes // num_shards)
            for shard, path in enumerate(paths)
        ]
        if huge_line:
            tasks.append(pool.submit(write_huge_line, folder / "huge.jsonl", num_shards))
        for task in tasks:
            task.result()


def write_shard(path: Path, seed: int, num_bytes: int) -> None:
    """A document a line."""
    with path.open("w", encoding="utf-8") as file:
        for text in _up_to(_documents(seed), num_bytes):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def write_huge_line(path: Path, seed: int) -> None:
    """One line, one document."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"text": "')
        for text in _up_to(_documents(seed), HUGE_LINE_BYTES):
            file.write(json.dumps(text, ensure_ascii=False)[1:-1])
        file.write('"}\n')


def _paragraphs() -> list[list[str]]:
    """The standard library's paragraphs, each as words and what is between them."""
    texts = [document.text for document in documents_of(open_source("stdlib"))]
    return [re.split(r"(\w+)", part + "\n\n") for text in texts for part in text.split("\n\n")]


def _documents(seed: int) -> Iterator[str]:
    """Documents without an end; no two are alike, and words are about as common as they were."""
    rng, paragraphs = random.Random(seed), _paragraphs()
    counts = Counter(part for paragraph in paragraphs for part in paragraph)
    ranked = [part for part, _ in counts.most_common() if re.fullmatch(r"\w+", part)]
    rare = ranked[COMMON_WORDS:]
    kinds = [[w for w in rare if w.isdigit()], [w for w in rare if not w.isdigit()]]
    while True:
        words = dict(zip(counts, counts, strict=True))
        for kind in kinds:
            near = sorted(range(len(kind)), key=lambda rank: rank + rng.uniform(0, NEIGHBOURS))
            words.update({word: kind[other] for word, other in zip(kind, near, strict=True)})
        order = rng.sample(paragraphs, len(paragraphs))
        parts: list[str] = []
        size, wanted = 0, 0.0
        for paragraph in order:
            part = "".join(map(words.__getitem__, paragraph))
            parts.append(part)
            size += len(part)
            if size >= wanted:
                yield "".join(parts)
                parts, size = [], 0
                wanted = min(MEDIAN_BYTES * rng.lognormvariate(0, LENGTH_SIGMA), LONGEST_BYTES)


def _up_to(texts: Iterable[str], num_bytes: int) -> Iterator[str]:
    for text in texts:
        yield text
        num_bytes -= len(text.encode())
        if num_bytes <= 0:
            return


# Preparation.


def measure_preparation(options: Options, text: Path, model: Path, corpus: Path) -> dict[str, Any]:
    """SentencePiece before and after, the preparation between; what the table says of them."""
    workers = len(os.sched_getaffinity(0))
    sample = (text, model, min(100, max(2, int(5 * options.seconds))) * 10**6)
    say("SentencePiece alone")
    before = fresh(encoding_rates, *sample)
    say(f"preparing {corpus}")
    shutil.rmtree(corpus, ignore_errors=True)
    prepared = fresh(timed_preparation, text, corpus, model, workers)
    say("SentencePiece alone, again")
    after = fresh(encoding_rates, *sample)
    rates = {way: before[way] + after[way] for way in before}
    if workers > 1:
        say("SentencePiece alone, on every core")
        together = fresh(encoding_rates, *sample, processes=workers)
        for way in before:
            rates[f"{way}{TOGETHER}"] = [r for found in together for r in found[way]]
    return prepared | {"rates": rates, "date": str(datetime.date.today())}


def encoding_rates(text: Path, model: Path, sample_bytes: int) -> dict[str, list[list[float]]]:
    """Way to encode whole documents -> for every round, megabytes a second and a CPU second."""
    tokenizer = Tokenizer.load(model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.read_bytes())
    ways: dict[str, Callable[[str], object]] = {
        "SentencePiece, lists": lambda text: processor.encode(text, num_threads=1),
        "SentencePiece, arrays": lambda text: processor.encode(
            text, num_threads=1, return_type="numpy"
        ),
        "Tokenizer.encode_parts": lambda text: deque(tokenizer.encode_parts(text.encode())),
    }
    documents = _sample(sorted(text.glob("shard-*.jsonl")), sample_bytes)
    rates: dict[str, list[list[float]]] = {way: [] for way in ways}
    for turn in range(ROUNDS):
        part = documents[turn::ROUNDS]
        megabytes = sum(len(document.encode()) for document in part) / 1e6
        for way in [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]:
            start = np.array([time.perf_counter(), time.process_time()])
            for document in part:
                ways[way](document)
            took = [time.perf_counter(), time.process_time()] - start
            rates[way].append((megabytes / took).tolist())
    return rates


def _sample(paths: Sequence[Path], num_bytes: int) -> list[str]:
    """The first documents of every file."""
    documents = []
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            texts = (json.loads(line)["text"] for line in lines)
            documents += _up_to(texts, num_bytes // len(paths))
    return documents


def timed_preparation(text: Path, out: Path, model: Path, workers: int) -> dict[str, Any]:
    """Prepares in this process, which should be a fresh one: seconds and memory."""
    seen: dict[str, list[float]] = {}

    def progress(stage: str, fraction: float, *, documents: int = 0, num_bytes: int = 0) -> None:
        now = time.perf_counter() - start
        seen.setdefault(stage, [now, now])[1] = now

    tokenizer = Tokenizer.load(model)
    preparation = Preparation(vocab_size=tokenizer.vocab_size, tokenizer=tokenizer, workers=workers)
    cpu_before, start = time.process_time(), time.perf_counter()
    corpus = prepare_corpus(open_source(str(text)), out, preparation, progress)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    own, workers_use = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    used = [use.ru_utime + use.ru_stime for use in (own, workers_use)]
    return {
        "seconds": seconds,
        "cpu_seconds": sum(used) - cpu_before,
        "workers": workers,
        "stages": {
            "read": seen["reading"][1],
            "order": seen["encoding"][0] - seen["reading"][1],
            "encode": seen["encoding"][1] - seen["encoding"][0],
            "write, after encoding": seen["writing"][1] - seen["encoding"][1],
            "card": seconds - seen["writing"][1],
        },
        "bytes": sum(s.bytes for s in corpus.splits.values()) + corpus.card["duplicates"]["bytes"],
        "documents": sum(s.documents for s in corpus.splits.values()),
        "duplicates": corpus.card["duplicates"]["documents"],
        "tokens": sum(split.tokens for split in corpus.splits.values()),
        # A process's ru_maxrss begins with that of the process it was started from: for the
        # workers that is an upper bound, for this one the kernel has an exact figure.
        "parent_bytes": 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]),
        "worker_bytes": 1024 * workers_use.ru_maxrss,
        "disk_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
    }


def seconds_to_open(corpus: Path) -> float:
    """Of `open_corpus`, its modules imported."""
    start = time.perf_counter()
    open_corpus(corpus)
    return time.perf_counter() - start


def preparation_table(record: dict[str, Any], opening: list[float]) -> str:
    """Markdown."""
    rates = {way: np.array(found).T for way, found in record["rates"].items()}
    alone = ("SentencePiece, lists", "SentencePiece, arrays")
    best = max(alone, key=lambda way: np.median(rates[way][0]))
    megabytes = record["bytes"] / 1e6
    ours = (megabytes / record["seconds"] / record["workers"], megabytes / record["cpu_seconds"])
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in record["stages"].items())

    def share(way: str) -> str:
        return " | ".join(spread(own / rates[way][clock]) for clock, own in enumerate(ours))

    lines = [
        f"Preparation ({record['date']}): {megabytes:,.0f} MB in {record['documents']:,} documents "
        f"({record['duplicates']:,} duplicates), {record['tokens']:,} tokens, "
        f"{record['workers']} workers, {record['seconds']:.1f} s ({stages}). SentencePiece before "
        "and after, ways in turns.\n",
        "| MB/s a core | by the clock | by CPU time | target |",
        "|---|---|---|---|",
        *(f"| {way} | {spread(wall)} | {spread(cpu)} | |" for way, (wall, cpu) in rates.items()),
        f"| `prepare_corpus` | **{ours[0]:.2f}** | {ours[1]:.2f} | |",
        f"| its share of {best}, one process | {share(best)} | ≥ 0.85 |",
    ]
    if record["workers"] > 1:
        lines.append(f"| its share of that on all cores at once | {share(f'{best}{TOGETHER}')} | |")
    return "\n".join(
        [
            *lines,
            "\n| | figure | target |",
            "|---|---|---|",
            f"| most memory, parent | {record['parent_bytes'] / 2**30:.2f} GiB | |",
            f"| most memory, largest worker | {record['worker_bytes'] / 2**30:.2f} GiB | < 3 GiB |",
            f"| corpus on disk | {record['disk_bytes'] / 1e6:,.0f} MB | |",
            "| `open_corpus` in a fresh process, imports aside, page cache as it was | "
            f"{spread(opening)} s | < 1 s |",
        ]
    )


def rows_on_one_core(corpus: Path, folder: Path, seq_len: int, seconds: float) -> str:
    """Pins this process, every thread of it, before JAX or Grain start any; then Markdown."""
    cpu = min(os.sched_getaffinity(0))
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {cpu})
    from data_pipeline_rows import rows_tables

    return rows_tables(open_corpus(corpus), folder, seq_len=seq_len, seconds=seconds, say=say)


def spread(values: Sequence[float] | np.ndarray) -> str:
    """Median, and the least and the most of several measurements."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main(tyro.cli(Options))
