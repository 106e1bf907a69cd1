"""Preparing a corpus: any amount of text to token chunks, in memory that does not grow with it.

1. read: the source's shards are spooled to disk in parallel, each document under a hash of its
   text (spool.py).
2. order: buckets of the spool are sorted; that is the shuffle, and it shows exact duplicates.
3. tokenizer: trained on a sample of the training text, or taken from elsewhere.
4. encode: buckets become tokens, in parallel (encode.py).
5. write: their tokens become chunks in ArrayRecord files, as they come; the card comes last.

What is read and encoded lies under OUT/.preparing until the corpus is whole. A preparation that
was interrupted goes on from there, if the source's files have not changed since.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import InputError, require
from configs.folders import make_folder, remove_folders
from configs.serialize import write_json
from data.corpus import TOKENIZER_NAME, Corpus, intact_corpus, open_corpus
from data.corpus_card import CARD_NAME, CARD_PAGE, SPLITS, SplitTotals, write_card
from data.encode import EncodedSplit, EncodeTask, ReadTask, encode_bucket, read_part
from data.order import Ordered, order_documents
from data.parallel import run_tasks
from data.preparation import RECIPE_VERSION, Preparation, Progress, silent
from data.sources import TextSource
from data.spool import PartRecord, read_part_record
from data.token_chunks import Chunk, TokenChunks, cut_chunks, num_chunks, token_dtype
from data.tokenizer import Tokenizer, train_tokenizer
from data.tokenizer_sample import sample_texts

WORK_NAME = ".preparing"
_BYTES_WORTH_KEEPING = 64 * 2**20  # read in some ten seconds
_BUCKET_BYTES = 16 * 2**20
_MAX_BUCKETS = 4096
_PARTS_PER_WORKER = 4
# Starting processes takes longer than a few megabytes of text do.
_MIN_BYTES_PER_WORKER = 4 * 2**20


class OtherCorpusError(InputError):
    """The folder to write into holds another corpus, which is left as it is."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where a preparation's work is done; the corpus is the same whatever it is.

    Attributes:
        workers: tasks that are expected to run side by side.
        run: runs tasks as `run_tasks` does.
        chunks: what writes the chunks of the encoded buckets, called as `chunks_of_buckets` is.
    """

    workers: int
    run: Callable[..., Iterator[Any]]
    chunks: Callable[..., TokenChunks]


def prepare_corpus(
    source: TextSource,
    out_dir: str | os.PathLike,
    preparation: Preparation,
    progress: Progress = silent,
    execution: Execution | None = None,
) -> Corpus:
    """Writes the corpus of a source into a folder.

    The card is written last, so a folder left by a killed run is not taken for a corpus; what it
    had read and encoded is used. A folder that already holds this corpus (same documents and
    recipe) is opened and returned as it is; one that holds another intact corpus is refused,
    since runs may need it. Other files in the folder are left alone.

    Args:
        execution: None: processes of this machine.

    Raises:
        OtherCorpusError: the folder holds another corpus.
        InputError: a source without text or that cannot be split, a document that cannot be read,
            a vocabulary that does not fit the text, a folder that cannot be written or is full.
    """
    out = Path(out_dir)
    require(not (out / "run.json").exists(), "out", os.fspath(out), "a folder that is no run's")
    with locked(out):
        try:
            execution = execution or _on_this_machine(source, preparation)
            return _prepare(source, out, preparation, progress, execution)
        except OSError as error:
            if error.filename is not None and not Path(error.filename).is_relative_to(out):
                raise
            raise InputError(
                f"out: got {os.fspath(out)!r} ({error.strerror}), expected a folder with room to "
                "write into"
            ) from error


def _on_this_machine(source: TextSource, preparation: Preparation) -> Execution:
    workers = preparation.workers or len(os.sched_getaffinity(0))
    if source.size_bytes() is not None:
        workers = max(1, min(workers, (source.size_bytes() or 0) // _MIN_BYTES_PER_WORKER))
    return Execution(workers=workers, run=run_tasks, chunks=chunks_of_buckets)


def _prepare(
    source: TextSource,
    out: Path,
    preparation: Preparation,
    progress: Progress,
    execution: Execution,
) -> Corpus:
    work = out / WORK_NAME
    parts = _read(source, work, preparation, execution, progress)
    ordered = order_documents(
        [work / f"part-{part:05}" for part in range(len(parts))],
        work,
        source=" ".join(source.describe().values()),
        is_pinned=source.pinned_held_out is not None,
        keep_duplicates=preparation.keep_duplicates,
        seed=preparation.seed,
    )
    recipe = preparation.recipe | {"documents_sha": ordered.sha}
    if (corpus := intact_corpus(out)) is not None:
        shutil.rmtree(work)
        if corpus.card["recipe"] == recipe:
            return corpus
        raise OtherCorpusError(
            f"out: got {os.fspath(out)!r}, which holds a corpus of other text, vocabulary, "
            "symbols or seed; expected another folder, or remove it"
        )
    _clear(out)
    tokenizer = _tokenizer(ordered, work, preparation, progress)
    write_bytes(out / TOKENIZER_NAME, tokenizer.model_bytes)
    buckets = _encode(ordered, work, tokenizer, execution, progress)
    totals = {split: SplitTotals() for split in SPLITS}
    chunks = execution.chunks(
        out,
        buckets,
        totals,
        num_buckets=len(ordered.buckets),
        dtype=token_dtype(tokenizer.vocab_size),
        progress=progress,
    )
    paths = _write(out, chunks, totals, progress)
    write_card(
        out,
        source=source.describe() | ({"held_out": ordered.held_out} if ordered.held_out else {}),
        recipe=recipe,
        tokenizer=tokenizer,
        totals=totals,
        duplicates=ordered.duplicates,
        skipped=dict(sum((Counter(part.skipped) for part in parts), Counter())),
        paths=paths,
    )
    shutil.rmtree(work)
    return open_corpus(out)


def _read(
    source: TextSource,
    work: Path,
    preparation: Preparation,
    execution: Execution,
    progress: Progress,
) -> list[PartRecord]:
    """Spools the source, or goes on with a spool that an interrupted preparation left."""
    shards = source.shards()
    size = source.size_bytes() or 0
    num_buckets = 1
    while num_buckets < _MAX_BUCKETS and num_buckets * _BUCKET_BYTES < size:
        num_buckets *= 2
    workers = execution.workers
    num_parts = min(len(shards), workers * _PARTS_PER_WORKER if workers > 1 else 1)
    signature = {
        "source": source.signature(),
        "shards": len(shards),
        "parts": num_parts,
        "buckets": num_buckets,
        "seed": preparation.seed,
        "skip_problems": preparation.skip_problems,
        "version": RECIPE_VERSION,
    }
    if signature["source"] is None or _signature(work) != signature:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        write_json(work / "signature.json", signature)
    bounds = [len(shards) * part // num_parts for part in range(num_parts + 1)]
    tasks = [
        ReadTask(
            folder=work / f"part-{part:05}",
            part=part,
            shards=tuple(shards[first:last]),
            num_buckets=num_buckets,
            seed=preparation.seed,
            skip=preparation.skip_problems,
            pinned_held_out=source.pinned_held_out,
        )
        for part, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False))
    ]

    def tick(documents: int, num_bytes: int) -> None:
        # The size is an estimate where files are compressed or hold more than text.
        fraction = min(num_bytes / size, 0.99) if size else 0.0
        progress("reading", fraction, documents=documents, num_bytes=num_bytes)

    tick(0, 0)
    records = list(execution.run(read_part, tasks, workers=workers, on_tick=tick))
    totals = [sum(record.documents for record in records), sum(record.bytes for record in records)]
    progress("reading", 1.0, documents=totals[0], num_bytes=totals[1])
    return records


def _signature(work: Path) -> object:
    try:
        return json.loads((work / "signature.json").read_text())
    except (OSError, ValueError):
        return None


def _tokenizer(
    ordered: Ordered,
    work: Path,
    preparation: Preparation,
    progress: Progress,
) -> Tokenizer:
    if preparation.tokenizer is not None:
        return preparation.tokenizer
    recipe = preparation.recipe | {"documents_sha": ordered.sha}
    kept = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    path = work / f"tokenizer-{kept}.model"
    progress("tokenizer", 0.0)
    if not path.exists():
        texts = sample_texts(
            ordered, sample_bytes=preparation.tokenizer_bytes, seed=preparation.seed
        )
        tokenizer = train_tokenizer(
            texts,
            preparation.vocab_size,
            seed=preparation.seed,
            sample_bytes=preparation.tokenizer_bytes,
            symbols=preparation.symbols,
        )
        write_bytes(path, tokenizer.model_bytes)
    progress("tokenizer", 1.0)
    return Tokenizer.load(path)


def _encode(
    ordered: Ordered,
    work: Path,
    tokenizer: Tokenizer,
    execution: Execution,
    progress: Progress,
) -> Iterator[dict[str, EncodedSplit]]:
    """Encoded buckets in order, as they become available."""
    out = work / f"tokens-{ordered.sha[:16]}-{tokenizer.sha[:16]}"
    out.mkdir(exist_ok=True)
    model = out / TOKENIZER_NAME
    write_bytes(model, tokenizer.model_bytes)
    parts = out / "parts.json"
    write_json(parts, [str(folder) for folder in ordered.folders])

    def tick(documents: int, num_bytes: int) -> None:
        progress("encoding", num_bytes / ordered.bytes, documents=documents, num_bytes=num_bytes)

    tick(0, 0)
    tasks = [
        EncodeTask(parts, bucket, order, model, out) for bucket, order in enumerate(ordered.buckets)
    ]
    yield from execution.run(encode_bucket, tasks, workers=execution.workers, on_tick=tick)


def chunks_of_buckets(
    out: Path,
    buckets: Iterator[dict[str, EncodedSplit]],
    totals: dict[str, SplitTotals],
    *,
    num_buckets: int,
    dtype: np.dtype,
    progress: Progress,
) -> TokenChunks:
    """The training chunks, to be written while buckets are encoded, then the held-out ones.

    Args:
        out: the corpus's folder.
        buckets: encoded, in order.
        totals: split -> counts; the documents are added as they are encoded.
        num_buckets: in all.
        dtype: of the token ids.
    """
    held_out: list[EncodedSplit] = []

    def documents_of(encoded: EncodedSplit, split: str) -> tuple[np.ndarray, np.ndarray]:
        totals[split].add(encoded.lengths, encoded.bytes)
        return np.fromfile(encoded.path, dtype), encoded.lengths

    def train_parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, encoded in enumerate(buckets, start=1):
            held_out.append(encoded["held_out"])
            yield documents_of(encoded["train"], "train")
            progress("writing", 0.9 * number / num_buckets)

    def chunks(split: str) -> Iterator[Chunk]:
        parts = train_parts() if split == "train" else (documents_of(e, split) for e in held_out)
        yield from cut_chunks(parts)

    return TokenChunks({split: chunks(split) for split in SPLITS}, dtype=dtype, data_dir=out)


def _write(
    out: Path, chunks: TokenChunks, totals: dict[str, SplitTotals], progress: Progress
) -> list[Path]:
    """Writes the chunks and returns their files."""
    paths = chunks.write()
    shutil.rmtree(out / "downloads", ignore_errors=True)  # TFDS makes it, and nothing is there
    for split in SPLITS:
        found, expected = chunks.written(split), num_chunks(totals[split].tokens)
        assert found == expected, f"TFDS wrote {found} of {expected} chunks of {split}"
    progress("writing", 1.0)
    return paths


def _clear(out: Path) -> None:
    """Removes what an earlier or unfinished corpus left, the card first."""
    for name in (CARD_NAME, CARD_PAGE, TOKENIZER_NAME):
        (out / name).unlink(missing_ok=True)
    for name in (TokenChunks.name, "downloads"):
        shutil.rmtree(out / name, ignore_errors=True)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Makes the folder and holds its lock, waiting for another preparation to finish.

    Where the input proves bad, a folder that was made for it goes again, unless it would take
    long to read again what has been read.
    """
    try:
        made = make_folder(out)
        lock = (out / ".lock").open("a")
    except OSError as error:
        raise InputError(
            f"out: got {os.fspath(out)!r} ({error.strerror}), expected a folder to write into"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        except InputError:
            if _bytes_read(out / WORK_NAME) < _BYTES_WORTH_KEEPING:
                remove_folders(made)
            raise


def _bytes_read(work: Path) -> int:
    """UTF-8 bytes of the parts that were read whole."""
    records = (read_part_record(path.parent) for path in work.glob("*/done.json"))
    return sum(record.bytes for record in records if record is not None)


def write_bytes(path: Path, contents: bytes) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
