"""Held-out text for evaluation: examples of a run's objective, and what xz makes of the text.

Each document stands alone. Under causal language modelling it is read after <s>, in windows of
seq_len tokens that do not see one another, and every token is a target once, </s> not counted: the
sum of -log2 p over the documents' UTF-8 bytes is bits per byte.

Under the other objectives a document is <s>, its tokens and </s>, cut into rows as long as those of
training, each padded and made an example. The noise of example i is drawn from (data.seed, i), on
another branch of the seed than training's: every evaluation meets the same examples.
"""

import lzma
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from configs.errors import require
from configs.schema import RunConfig
from data.batches import Batch, stack_examples
from data.corpus import Corpus, EncodedDocument
from data.dataset import require_objective_symbols
from data.objectives import OBJECTIVES
from data.objectives.example import Context, Example
from data.packing import Row, RowCounts, RowShape
from data.tokenizer import BOS_ID, EOS_ID, PAD_ID


class HeldOut(NamedTuple):
    """Held-out examples of an objective.

    batch: one row an example. num_targets: loss weights above 0. num_bytes, num_documents: UTF-8
    bytes and number of the documents they are made of; bits per byte are defined where every token
    is a target once (`Objective.scores_text`).
    """

    batch: Batch
    num_targets: int
    num_bytes: int
    num_documents: int


class CompressionBaselines(NamedTuple):
    """Bits per byte `xz -9e` needs for the held-out text: alone, and after the training text."""

    xz_bits_per_byte: float
    xz_primed_bits_per_byte: float


def held_out_examples(config: RunConfig, corpus: Corpus, *, max_tokens: int = 0) -> HeldOut:
    """The held-out documents as examples of the run's objective, all of full row length.

    Args:
        config: objective, data.seq_len and data.seed count; the corpus need not be its own.
        corpus: documents come in the order of its held-out stream.
        max_tokens: 0 for all documents; else the longest run of whole documents from the first on
            with at most this many tokens, and at least one document.

    Raises:
        InputError: max_tokens below 0, a tokenizer without the objective's control symbols, or
            text so short that nothing of it is a target.
    """
    require(max_tokens >= 0, "training.eval_tokens", max_tokens, "0 or more tokens")
    require_objective_symbols(config, corpus.tokenizer.symbols)
    documents = list(_first_documents(corpus, max_tokens))
    if OBJECTIVES[type(config.objective)].scores_text:
        seq_len = config.data.seq_len
        examples = [w for document in documents for w in document_windows(document.tokens, seq_len)]
    else:
        context = Context(corpus.tokenizer.symbols, config.lengths)
        shape = RowShape.of(context.lengths)
        rows = (row for document in documents for row in document_rows(document.tokens, shape))
        examples = list(_transformed(config, rows, context))
    require(bool(examples), "data.corpus", "too little held-out text", "a target in it")
    batch = stack_examples(examples)
    return HeldOut(
        batch=batch,
        num_targets=int(np.count_nonzero(batch.loss_weights)),
        num_bytes=sum(document.num_bytes for document in documents),
        num_documents=len(documents),
    )


def document_rows(tokens: np.ndarray, shape: RowShape) -> Iterator[Row]:
    """Cuts one document, with <s> and </s>, into rows as an objective wants them.

    Example: tokens [7, 8, 9] in rows of 4 tokens without overlap:
        tokens       [2, 7, 8, 9]   [3, 0, 0, 0]
        segment_ids  [1, 1, 1, 1]   [1, 0, 0, 0]
        positions    [0, 1, 2, 3]   [0, 0, 0, 0]

    Args:
        tokens: int32 [n], without <s> and </s>.
        shape: of the rows.
    """
    sequence = np.concatenate([[BOS_ID], tokens, [EOS_ID]]).astype(np.int32)
    for begin in range(0, len(sequence) - shape.overlap, shape.stride):
        piece = sequence[begin : begin + shape.tokens]
        size, repeated = len(piece), shape.overlap if begin else 0
        index = np.arange(shape.tokens, dtype=np.int32)
        is_token = index < size
        yield Row(
            tokens=_padded(piece, shape.tokens),
            segment_ids=is_token.astype(np.int32),
            positions=np.where(is_token, index, 0).astype(np.int32),
            counts=RowCounts(size - repeated, repeated, shape.tokens - size, 0, int(begin > 0)),
            epoch=0,
        )


def _transformed(config: RunConfig, rows: Iterator[Row], context: Context) -> Iterator[Example]:
    """Examples of the rows of which something is a target."""
    transform = OBJECTIVES[type(config.objective)].transform

    def generator(number: int) -> np.random.Generator:
        # A spawned seed, so that it is that of no training row, whose are [data.seed, row number].
        seed = np.random.SeedSequence(config.data.seed, spawn_key=(number,))
        return np.random.default_rng(seed)

    for number, row in enumerate(rows):
        example = transform(config.objective, row, partial(generator, number), context)
        if np.any(example.loss_weights):
            yield example


def document_windows(tokens: np.ndarray, seq_len: int) -> Iterator[Example]:
    """Cuts one document into windows in which every token is a target exactly once.

    Example: tokens [7, 8, 9] with seq_len 2, where 2 is <s> and 0 is padding:
        inputs        [2, 7]   [8, 0]
        targets       [7, 8]   [9, 0]
        loss_weights  [1, 1]   [1, 0]
        positions     [0, 1]   [0, 0]
        segment_ids   [1, 1]   [1, 0]

    Args:
        tokens: int32 [n], without <s> and </s>.
        seq_len: tokens in a window.
    """
    sequence = np.concatenate([[BOS_ID], tokens]).astype(np.int32)
    for begin in range(0, len(tokens), seq_len):
        targets = sequence[begin + 1 : begin + 1 + seq_len]
        size = len(targets)
        index = np.arange(seq_len, dtype=np.int32)
        is_token = index < size
        yield Example(
            inputs=_padded(sequence[begin : begin + size], seq_len),
            targets=_padded(targets, seq_len),
            loss_weights=is_token.astype(np.float32),
            positions=np.where(is_token, index, 0).astype(np.int32),
            segment_ids=is_token.astype(np.int32),
        )


def compression_baselines(train_text: bytes, held_out_text: bytes) -> CompressionBaselines:
    """What `xz -9e` reaches on the held-out documents concatenated.

    Primed: how much larger the training text's archive grows when the held-out text follows it.
    Takes about a second a megabyte on each of two cores.

    Raises:
        InputError: no held-out text.
    """
    require(bool(held_out_text), "data.corpus", "no held-out text", "at least one byte")
    with ThreadPoolExecutor() as threads:  # lzma releases the interpreter's lock
        together, train, alone = threads.map(
            _xz_bytes, (train_text + held_out_text, train_text, held_out_text)
        )
    num_bytes = len(held_out_text)
    return CompressionBaselines(8 * alone / num_bytes, 8 * (together - train) / num_bytes)


def _xz_bytes(text: bytes) -> int:
    preset = 9 | lzma.PRESET_EXTREME
    return len(lzma.compress(text, format=lzma.FORMAT_XZ, preset=preset))


def _first_documents(corpus: Corpus, max_tokens: int) -> Iterator[EncodedDocument]:
    num_tokens = 0
    for number, document in enumerate(corpus.documents("held_out")):
        num_tokens += len(document.tokens)
        if number > 0 and 0 < max_tokens < num_tokens:
            return
        yield document


def _padded(tokens: np.ndarray, length: int) -> np.ndarray:
    return np.pad(tokens, (0, length - len(tokens)), constant_values=PAD_ID)
