"""Held-out text for evaluation: windows that score every token once, and what xz makes of it.

Bits per byte is the sum of -log2 p over the tokens of held-out documents over their UTF-8 bytes.
Each document stands alone: it is read after <s>, in windows of seq_len tokens that do not see one
another, and its </s> is not counted.
"""

import lzma
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from configs.errors import require
from data.batches import Batch, stack_examples
from data.corpus import Corpus, EncodedDocument
from data.objectives import Example
from data.tokenizer import BOS_ID, PAD_ID


class HeldOutWindows(NamedTuple):
    """Windows to score, and how much text their weighted targets are.

    batch: fields [W, L], one row a window. num_tokens, num_bytes, num_documents: of the documents
    the windows cover; num_tokens is the sum of the loss weights.
    """

    batch: Batch
    num_tokens: int
    num_bytes: int
    num_documents: int


class CompressionBaselines(NamedTuple):
    """Bits per byte `xz -9e` needs for the held-out text: alone, and after the training text."""

    xz_bits_per_byte: float
    xz_primed_bits_per_byte: float


def held_out_windows(corpus: Corpus, seq_len: int, *, max_tokens: int = 0) -> HeldOutWindows:
    """Windows over the held-out documents.

    Args:
        corpus: the corpus; documents come in the order of its held-out stream.
        seq_len: tokens in a window, L.
        max_tokens: 0 for all documents; else the longest run of whole documents from the first on
            with at most this many tokens, and at least one document.

    Returns:
        All windows, and the tokens, UTF-8 bytes and documents they score.

    Raises:
        InputError: seq_len below 1 or max_tokens below 0.
    """
    require(seq_len >= 1, "data.seq_len", seq_len, "1 or more tokens")
    require(max_tokens >= 0, "training.eval_tokens", max_tokens, "0 or more tokens")
    documents = list(_first_documents(corpus, max_tokens))
    windows = [w for document in documents for w in document_windows(document.tokens, seq_len)]
    return HeldOutWindows(
        batch=stack_examples(windows),
        num_tokens=sum(len(document.tokens) for document in documents),
        num_bytes=sum(document.num_bytes for document in documents),
        num_documents=len(documents),
    )


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
