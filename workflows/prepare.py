"""isoflop prepare: sources -> tokenizer -> corpus on disk."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from configs.errors import InputError, require
from configs.overrides import parse_command, reject_overrides
from data.control_symbols import parse_symbols
from data.corpus import TOKENIZER_NAME, Corpus, verify_corpus
from data.prepare import Preparation, prepare_corpus
from data.sources import TextSource, open_source
from data.tokenizer import Tokenizer

PROG = "isoflop prepare"

Runner = Literal["local", "direct", "flink", "spark", "dataflow"]


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Tokenizes text into a corpus that training reads.

    A folder that holds the same corpus already is left as it is; an interrupted preparation goes
    on where it was.
    """

    source: Annotated[str, tyro.conf.Positional] = "stdlib"
    """`stdlib` (Python's standard library); files, folders, globs or URLs of text, .jsonl or
    .parquet, also .gz and .zst; tfds:NAME/CONFIG:SPLIT; hf:NAME@CONFIG:SPLIT; several with
    commas."""
    out: Path = Path("corpora/default")
    """Folder to write."""
    vocab_size: int = 8192
    """Pieces of the SentencePiece BPE tokenizer to train."""
    tokenizer: Path | None = None
    """A tokenizer.model, or a corpus or run that has one, to use instead of training one: corpora
    of one mixture share theirs."""
    symbols: tuple[str, ...] = ()
    """Control symbols of the tokenizer, for the objectives that need them: mask, fim, ul2,
    sentinels:NUMBER (such as sentinels:100). They count as pieces."""
    text_field: str = "text"
    """Field, column or feature that holds the text, where documents are records."""
    skip_problems: bool = False
    """Count documents that cannot be read (invalid UTF-8, malformed JSON, no text field) and go
    on, rather than stop at the first."""
    keep_duplicates: bool = False
    """Keep texts that occur more than once; else the first of each is kept."""
    sample_bytes: int = 0
    """Text to train the tokenizer on; 0: a kilobyte a piece, 4 MB at least."""
    seed: int = 0
    """Shuffles the documents and samples the tokenizer's text."""
    workers: int = 0
    """Processes that read and tokenize; 0: one a core."""
    runner: Runner = "local"
    """local: processes of this machine; else an Apache Beam runner (extra `beam`), whose own
    options follow after --beam-options."""
    beam_options: tuple[str, ...] = ()
    """Options of the Beam runner as NAME=VALUE, such as region=europe-west4."""
    verify: Literal["quick", "full"] = "quick"
    """full: read the finished corpus back, every byte of it."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop prepare`."""
    options, overrides = parse_command(
        PrepareOptions, args, prog=PROG, description=PrepareOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    console = Console(stderr=True, highlight=False)
    start = time.perf_counter()
    preparation = Preparation(
        vocab_size=options.vocab_size,
        tokenizer=load_tokenizer(options.tokenizer) if options.tokenizer else None,
        symbols=parse_symbols(options.symbols),
        seed=options.seed,
        sample_bytes=options.sample_bytes,
        keep_duplicates=options.keep_duplicates,
        skip_problems=options.skip_problems,
        workers=options.workers,
    )
    source = open_source(options.source, text_field=options.text_field)
    if options.runner == "local":
        require(
            not options.beam_options, "beam_options", options.beam_options, "none without --runner"
        )
        corpus = prepare(source, options.out, preparation, console)
    else:
        from data.beam_prepare import prepare_with_beam

        with console.status(f"preparing with Beam's {options.runner} runner"):
            corpus = prepare_with_beam(
                source, options.out, preparation, options.runner, options.beam_options
            )
    if options.verify == "full":
        with console.status("verifying"):
            verify_corpus(corpus.path)
    print(describe(corpus, time.perf_counter() - start))
    return 0


def prepare(source: TextSource, out: Path, preparation: Preparation, console: Console) -> Corpus:
    """Writes (or reuses) the corpus at `out`, showing how far it is."""
    with Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        tasks: dict[str, tuple[TaskID, float]] = {}

        def show(stage: str, fraction: float, *, documents: int = 0, num_bytes: int = 0) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0, speed=""), time.perf_counter()
            task, start = tasks[stage]
            seconds = max(time.perf_counter() - start, 1e-9)
            speed = ""
            if num_bytes:
                speed = (
                    f"{documents / seconds:,.0f} documents/s {num_bytes / 1e6 / seconds:.1f} MB/s"
                )
            bar.update(task, completed=fraction, speed=speed)

        return prepare_corpus(source, out, preparation, show)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a file, or in a corpus or run directory.

    Raises:
      InputError: there is none, or it is damaged.
    """
    return Tokenizer.load(path / TOKENIZER_NAME if path.is_dir() else path)


def corpus_name(source: str) -> str:
    """A folder's name for the corpus of a source: letters, digits, dots, dashes and underscores.

    Raises:
      InputError: nothing of the source's name is left.
    """
    name = re.sub(r"[^\w.-]+", "-", Path(source).stem if ":" not in source else source)
    name = name.strip(".-")
    if not name:
        raise InputError(f"source: got {source!r}, expected a name with letters or digits")
    return name


def describe(corpus: Corpus, seconds: float) -> str:
    """A few lines for a person."""
    train, held_out = corpus.splits["train"], corpus.splits["held_out"]
    duplicates, skipped = corpus.card["duplicates"], corpus.card["skipped"]
    left_out = [f"{duplicates['documents']:,} duplicates"] if duplicates["documents"] else []
    left_out += [f"{count:,} {reason}" for reason, count in skipped.items() if count]
    return (
        f"  {corpus.path}: {corpus.tokenizer.vocab_size:,} pieces, "
        f"{corpus.bytes_per_token:.2f} bytes a token, in {seconds:.1f} s\n"
        f"  train {train.documents:,} documents, {train.bytes:,} bytes, {train.tokens:,} tokens\n"
        f"  held out {held_out.documents:,} documents, {held_out.bytes:,} bytes, "
        f"{held_out.tokens:,} tokens" + (f"\n  left out: {', '.join(left_out)}" if left_out else "")
    )
