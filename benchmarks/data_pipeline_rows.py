"""Serving rows: our packings beside Grain's, on one core. Run by data_pipeline.py.

Everyone serves batches of 32 rows in the same form (inputs, targets, loss weights, positions,
segment ids) from the same corpus, and is timed in turns. Tokens count, padding does not.

Ours: `RowSource.batch` called directly; `train.feed.feed`, which reads ahead by Grain's threads,
without and with putting the arrays on the device; row numbers in training order or uniformly
random, of an epoch far larger than what is cached.

Grain's: documents shuffled by `MapDataset.shuffle`, packed by `ConcatThenSplitIterDataset`,
`FirstFitPackIterDataset` or `BestFitPackIterDataset`, then batched. Its documents come from an
ArrayRecord file made for it (one record a document, group size 1, not compressed) or by random
access to our stream, at offsets computed beforehand. What a row cannot hold is cut for the fitting
ones before the run, outside the timing. Each pipeline gets the fastest of three `ReadOptions`.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import grain
import grain.experimental
import jax
import numpy as np
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from configs.data_config import BestFitConfig, ConcatenateConfig, DataConfig, PackingConfig
from configs.objective_config import CausalLMConfig
from configs.schema import TrainingConfig
from data.batches import Batch, Cursor
from data.best_fit import pack, window_layout, window_pieces
from data.corpus import Corpus
from data.dataset import make_packing
from data.packing import RowShape
from data.rows import RowSource
from data.token_chunks import CHUNK_TOKENS
from data.token_stream import CACHED_CHUNKS, TokenStream
from data.tokenizer import BOS_ID
from train.feed import feed

BATCH_ROWS = 32
ROUNDS = 5
SETTLING = 0.25
QUALITY_BATCHES = 64
PACKING_BINS = (32, 256)
READ_OPTIONS = (
    grain.ReadOptions(num_threads=0, prefetch_buffer_size=0),
    grain.ReadOptions(num_threads=2, prefetch_buffer_size=64),
    grain.ReadOptions(),
)
PEERS = {
    "concatenate": "concatenate, feed without device",
    "best_fit": "best_fit, feed without device",
}

# Seed of a round -> batches without an end.
Start = Callable[[int], Iterator[Batch]]


class Quality(NamedTuple):
    """Share of places that hold a token, and cut segments per token."""

    fill: float
    cuts: float


def rows_tables(
    corpus: Corpus, folder: Path, *, seq_len: int, seconds: float, say: Callable[[str], None]
) -> str:
    """Measures everything; Markdown."""
    stream = corpus.stream("train")
    assert stream.num_tokens > CACHED_CHUNKS * CHUNK_TOKENS, "the corpus fits into the cache"
    say("reading all chunks once, for document offsets and a warm page cache")
    starts = stream.document_starts(0, stream.num_tokens)
    documents = np.stack([starts, np.diff(starts, append=stream.num_tokens)], axis=1)
    ours = {
        f"{name}, {way}": (config, start)
        for name, config in (("concatenate", ConcatenateConfig()), ("best_fit", BestFitConfig()))
        for way, start in our_ways(stream, config, seq_len).items()
    }
    pipelines = {name: start for name, (_, start) in ours.items()}
    chosen = {}
    sources = grain_sources(corpus, documents, folder, seq_len, say)
    for name, start in grain_ways(sources, seq_len).items():
        trials = [rate(start(options), 0, seconds / ROUNDS / 4) for options in READ_OPTIONS]
        best = READ_OPTIONS[int(np.argmax(trials))]
        chosen[name], pipelines[name] = f"{best.num_threads} threads", start(best)
    say("fill and cuts")
    qualities = {name: quality(start(0)) for name, start in pipelines.items()}
    rates: dict[str, list[float]] = {name: [] for name in pipelines}
    for turn in range(ROUNDS):
        say(f"round {turn + 1} of {ROUNDS}")
        for name in [*pipelines][:: 1 if turn % 2 else -1]:
            places = rate(pipelines[name], turn, seconds / ROUNDS)
            rates[name].append(places * qualities[name].fill)
    unavoidable = unavoidable_cuts(documents, seq_len) / stream.num_tokens
    cached = CACHED_CHUNKS * CHUNK_TOKENS / stream.num_tokens
    lines = [
        f"Rows of {seq_len:,} tokens in batches of {BATCH_ROWS}, one process pinned to one core, "
        f"page cache warm; {stream.num_tokens:,} tokens, of which our cache holds {cached:.1%}. "
        f"Cuts are per million tokens beyond the {unavoidable * 1e6:.1f} that documents longer "
        f"than a row need, counted in {QUALITY_BATCHES} batches. Ratio: ours (`feed` without "
        "device) over Grain's, paired by round.\n",
        "| | million tokens/s | full | cuts | ratio |",
        "|---|---|---|---|---|",
    ]
    for name, found in rates.items():
        peer = PEERS["concatenate" if "Concat" in name else "best_fit"]
        ratios = np.array(rates[peer]) / np.array(found)
        lines.append(
            f"| {name}{', ' + chosen[name] if name in chosen else ''} "
            f"| {spread(np.array(found) / 1e6)} | {qualities[name].fill:.2%} "
            f"| {(qualities[name].cuts - unavoidable) * 1e6:.1f} "
            f"| {spread(ratios) if name in chosen else ''} |"
        )
    say("cuts of best_fit, and rows on another number of workers")
    return "\n".join(
        [
            *lines,
            f"\nCuts of best_fit over {CUT_WINDOWS} random windows, counted piece by piece: "
            f"{best_fit_cuts(stream, seq_len):.2f} per million tokens beyond the unavoidable. "
            f"Targets: concatenate ≥ 5, best_fit at random rows ≥ 1 million tokens/s.\n",
            elastic_lines(stream, sources, seq_len),
        ]
    )


def rate(start: Start, turn: int, seconds: float) -> float:
    """Places a second, after settling for a while."""
    batches = start(turn)
    begin = time.perf_counter()
    while time.perf_counter() - begin < SETTLING * seconds:
        next(batches)
    count, begin = 0, time.perf_counter()
    while (took := time.perf_counter() - begin) < seconds or count == 0:
        count += next(batches).inputs.size
    close(batches)
    return count / took


def close(batches: Iterator[Any]) -> None:
    """Ends a pipeline's threads."""
    if callable(end := getattr(batches, "close", None)):
        end()


def quality(batches: Iterator[Batch]) -> Quality:
    """Fill and cuts of the first batches: a segment is cut whose first token is not <s>."""
    places = tokens = cuts = 0
    for batch in itertools.islice(batches, QUALITY_BATCHES):
        held = batch.segment_ids > 0
        places, tokens = places + held.size, tokens + np.count_nonzero(held)
        cuts += np.count_nonzero(held & (batch.positions == 0) & (batch.inputs != BOS_ID))
    close(batches)
    return Quality(tokens / places, cuts / tokens)


# Ours.


def row_source(
    stream: TokenStream, config: PackingConfig, seq_len: int, seed: int = 0
) -> RowSource:
    """The rows of a stream, as a run reads them."""
    objective = CausalLMConfig()
    data = DataConfig(packing=config, seq_len=seq_len, seed=seed)
    packing = make_packing(data, stream, objective)
    return RowSource({"corpus": packing}, seed=seed, objective=objective)


def our_ways(stream: TokenStream, config: PackingConfig, seq_len: int) -> dict[str, Start]:
    """Every way to our rows."""
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    training = TrainingConfig(num_steps=10**9, batch_size=BATCH_ROWS)

    def in_order(turn: int) -> Iterator[Batch]:
        source = row_source(stream, config, seq_len, turn)
        for first in itertools.count(0, BATCH_ROWS):
            yield source.batch(range(first, first + BATCH_ROWS)).batch

    def at_random(turn: int) -> Iterator[Batch]:
        source = row_source(stream, config, seq_len, turn)
        rng = np.random.default_rng(turn)
        while True:
            yield source.batch(rng.integers(source.facts[0].rows_per_epoch, size=BATCH_ROWS)).batch

    def fed(turn: int) -> Iterator[Batch]:
        source = row_source(stream, config, seq_len, turn)
        for fed in feed(source, Cursor(), training, first_step=0, sharding=sharding):
            yield jax.block_until_ready(fed.batch)

    def fed_on_host(turn: int) -> Iterator[Batch]:
        with mock.patch("train.feed._to_devices", lambda host, share, sharding: host):
            yield from fed(turn)

    return {
        "direct": in_order,
        "direct, random rows": at_random,
        "feed without device": fed_on_host,
        "feed": fed,
    }


# Grain's.


class StreamDocuments:
    """Random access to documents of our stream, as Grain wants its sources."""

    def __init__(self, stream: TokenStream, spans: np.ndarray):
        self._stream, self._spans = stream, spans

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        return {"tokens": self._stream.read(*self._spans[index].tolist())[0]}


class Sources(NamedTuple):
    """Documents, and pieces of them that fit a row, each from our stream and from records."""

    stream_documents: grain.MapDataset
    stream_pieces: grain.MapDataset
    record_documents: grain.MapDataset
    record_pieces: grain.MapDataset


def grain_sources(
    corpus: Corpus, documents: np.ndarray, folder: Path, seq_len: int, say: Callable[[str], None]
) -> Sources:
    """Grain's documents; writes the files of records unless they are there."""
    stream = corpus.stream("train")
    assert corpus.tokenizer.vocab_size <= 2**16, "records hold 16 bits a token"
    sources = {}
    for name, spans in (("documents", documents), ("pieces", cut(documents, seq_len + 1))):
        path = folder / f"{corpus.sha[:16]}-{name}-{seq_len}.array_record"
        if not path.exists():
            say(f"writing {path}")
            unfinished = path.with_suffix(".partial")
            writer = array_record_module.ArrayRecordWriter(
                str(unfinished), "group_size:1,uncompressed"
            )
            for start, length in spans.tolist():
                writer.write(stream.read(start, length)[0].astype(np.uint16).tobytes())
            writer.close()
            unfinished.rename(path)
        records: Any = grain.sources.ArrayRecordDataSource(str(path))
        sources[f"record_{name}"] = grain.MapDataset.source(records).map(
            lambda record: {"tokens": np.frombuffer(record, np.uint16)}
        )
        sources[f"stream_{name}"] = grain.MapDataset.source(StreamDocuments(stream, spans))
        assert len(records) == len(spans)
    return Sources(**sources)


def cut(spans: np.ndarray, size: int) -> np.ndarray:
    """Spans (start, length) of at most `size` tokens that together are `spans`."""
    counts = -(-spans[:, 1] // size)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts, lengths = np.repeat(spans, counts, axis=0).T
    return np.stack([starts + number * size, np.minimum(size, lengths - number * size)], axis=1)


Packer = Callable[[grain.IterDataset], grain.IterDataset]


def grain_packers(seq_len: int) -> dict[str, Packer]:
    """Grain's packings, with rows one longer than the inputs as ours have."""
    length = {"tokens": seq_len + 1}
    concatenate = grain.experimental.ConcatThenSplitIterDataset
    fits = {
        "FirstFit": grain.experimental.FirstFitPackIterDataset,
        "BestFit": grain.experimental.BestFitPackIterDataset,
    }
    packers: dict[str, Packer] = {"ConcatThenSplit": partial(concatenate, length_struct=length)}
    for bins, (name, fit) in itertools.product(PACKING_BINS, fits.items()):
        packers[f"{name}, {bins} bins"] = partial(fit, length_struct=length, num_packing_bins=bins)
    return packers


def grain_ways(sources: Sources, seq_len: int) -> dict[str, Callable[[grain.ReadOptions], Start]]:
    """Grain's packings of records, and two of them of our stream; how to read is to be chosen."""
    ways = {}
    for name, packer in grain_packers(seq_len).items():
        whole = "Concat" in name
        records = sources.record_documents if whole else sources.record_pieces
        ways[f"Grain {name}, records"] = _grain_way(records, packer)
        if whole or name == f"BestFit, {PACKING_BINS[0]} bins":
            stream = sources.stream_documents if whole else sources.stream_pieces
            ways[f"Grain {name}, our stream"] = _grain_way(stream, packer)
    return ways


def _grain_way(documents: grain.MapDataset, packer: Packer) -> Callable[[grain.ReadOptions], Start]:
    def with_options(options: grain.ReadOptions) -> Start:
        def start(turn: int) -> Iterator[Batch]:
            shuffled = documents.seed(turn).shuffle().repeat().to_iter_dataset(options)
            return iter(packer(shuffled).batch(BATCH_ROWS).map(as_batch))

        return start

    return with_options


def as_batch(packed: dict[str, np.ndarray]) -> Batch:
    """Grain's rows as ours are: shifted by one, the same targets counting."""
    tokens, segment_ids = packed["tokens"].astype(np.int32), packed["tokens_segment_ids"]
    same = (segment_ids[:, 1:] == segment_ids[:, :-1]) & (segment_ids[:, 1:] > 0)
    return Batch(
        inputs=tokens[:, :-1],
        targets=tokens[:, 1:],
        loss_weights=same.astype(np.float32),
        positions=packed["tokens_positions"][:, :-1],
        segment_ids=segment_ids[:, :-1],
    )


# Cuts, and other numbers of workers.

CUT_WINDOWS = 100
ELASTIC_ROWS = 256


def unavoidable_cuts(documents: np.ndarray, seq_len: int) -> int:
    """Cuts that documents need which are longer than a row of our shape."""
    shape = RowShape.of(CausalLMConfig().lengths(seq_len))
    pieces = -(-(documents[:, 1] - shape.overlap) // shape.stride)
    return int(np.maximum(pieces - 1, 0).sum())


def best_fit_cuts(stream: TokenStream, seq_len: int) -> float:
    """Pieces that found no room whole, per million tokens, in random windows of the stream."""
    shape = RowShape.of(CausalLMConfig().lengths(seq_len))
    num_windows, window_rows = window_layout(stream.num_tokens, shape)
    windows = np.random.default_rng(0).permutation(num_windows)[:CUT_WINDOWS]
    cuts = tokens = 0
    for window in windows.tolist():
        start = stream.num_tokens * window // num_windows
        stop = stream.num_tokens * (window + 1) // num_windows
        pieces = window_pieces(stream, start, stop, shape)
        rows = pack(pieces, num_rows=window_rows, shape=shape)
        cuts += sum(p.is_cut for row in rows for p in row) - sum(p.is_cut for p in pieces)
        tokens += stop - start
    return cuts / tokens * 1e6


def elastic_lines(stream: TokenStream, sources: Sources, seq_len: int) -> str:
    """How many of the first rows are the same when two readers share the work of one.

    Rows of a single document are passed over: those no packing could make differ.
    """
    lines = [
        f"Of the first {ELASTIC_ROWS} rows of one reader, those of several documents, two readers "
        "that share the work make:"
    ]
    packers = grain_packers(seq_len)
    for name in ("ConcatThenSplit", *(f"{kind}, 32 bins" for kind in ("FirstFit", "BestFit"))):
        documents = sources.record_documents if "Concat" in name else sources.record_pieces
        shuffled = documents.seed(0).shuffle()
        readers = [shuffled, shuffled[::2], shuffled[1::2]]
        one, *two = (_rows(packers[name](reader.to_iter_dataset())) for reader in readers)
        lines.append(f"Grain {name} {len(one & (two[0] | two[1])) / len(one):.0%},")
    for name, config in (("concatenate", ConcatenateConfig()), ("best_fit", BestFitConfig())):
        numbers = range(ELASTIC_ROWS)
        one, *two = (
            {
                example.inputs.tobytes()
                for example in (source.row(number).example for number in reader)
                if example.segment_ids.max() > 1
            }
            for source, reader in (
                (row_source(stream, config, seq_len), part)
                for part in (numbers, numbers[::2], numbers[1::2])
            )
        )
        lines.append(f"our {name} {len(one & (two[0] | two[1])) / len(one):.0%},")
    return " ".join(lines).removesuffix(",") + "."


def _rows(packed: grain.IterDataset) -> set[bytes]:
    rows = iter(packed)
    found = {
        row["tokens"].tobytes()
        for row in itertools.islice(rows, ELASTIC_ROWS)
        if row["tokens_segment_ids"].max() > 1
    }
    close(rows)
    return found


def spread(values: Sequence[float] | np.ndarray) -> str:
    """Median, and the least and the most."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
