"""isoflop prepare: sources -> tokenizer -> corpus on disk."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import Progress, TaskID

from configs.overrides import parse_command, reject_overrides
from data.corpus import Corpus, prepare_corpus
from data.sources import open_source

PROG = "isoflop prepare"


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Tokenizes text into a corpus that training reads.

    A folder that holds the same corpus already is left as it is.
    """

    source: Annotated[str, tyro.conf.Positional] = "stdlib"
    """`stdlib` (Python's standard library), or a file, folder or glob of text or .jsonl; several
    with commas."""
    out: Path = Path("corpora/default")
    """Folder to write."""
    vocab_size: int = 8192
    """Pieces of the SentencePiece BPE tokenizer to train."""
    seed: int = 0
    """Orders the documents."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop prepare`."""
    options, overrides = parse_command(
        PrepareOptions, args, prog=PROG, description=PrepareOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    console = Console(stderr=True, highlight=False)
    start = time.perf_counter()
    corpus = prepare(options.source, options.out, options.vocab_size, options.seed, console)
    print(describe(corpus, time.perf_counter() - start))
    return 0


def prepare(source: str, out: Path, vocab_size: int, seed: int, console: Console) -> Corpus:
    """Opens the source and writes (or reuses) the corpus at `out`, showing how far it is."""
    opened = open_source(source)
    with Progress(console=console, transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, fraction: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0)
            bar.update(tasks[stage], completed=fraction)

        return prepare_corpus(opened, out, vocab_size=vocab_size, seed=seed, progress=show)


def describe(corpus: Corpus, seconds: float) -> str:
    """A few lines for a person."""
    train, held_out = corpus.splits["train"], corpus.splits["held_out"]
    return (
        f"  {corpus.path}: {corpus.tokenizer.vocab_size:,} pieces, "
        f"{corpus.bytes_per_token:.2f} bytes a token, in {seconds:.1f} s\n"
        f"  train {train.documents:,} documents, {train.bytes:,} bytes, {train.tokens:,} tokens\n"
        f"  held out {held_out.documents:,} documents, {held_out.bytes:,} bytes, "
        f"{held_out.tokens:,} tokens"
    )
