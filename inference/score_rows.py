"""Log-probabilities of the tokens of rows, batched and padded so that few programs are compiled.

Legend: B rows of a batch, L length of a row, M length of an encoder's row, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from configs.model_config import ModelConfig
from model.build import Params, build_model, forward

# Row lengths and numbers are rounded up to powers of two: a program for each pair that occurs.
_SHORTEST_ROW = 32
_MAX_ROWS = 16
_MAX_LOGITS = 2**26  # fp32 numbers of one batch: a quarter of a gigabyte


class ScoredRow(NamedTuple):
    """What a model reads, and what should be at some of its places.

    inputs, targets: token ids, of one length: a decoder's targets are the next tokens, a masked
    encoder's the tokens themselves. Places first to stop − 1 count. prefix: so many of the first
    inputs see one another both ways (decoder-only). encoder_tokens: of an encoder-decoder.

    Example: log p("c d" | "a b") of a decoder-only model has inputs [<s>, a, b, c], targets
    [a, b, c, d], first 2, stop 4.
    """

    inputs: Sequence[int]
    targets: Sequence[int]
    first: int
    stop: int
    prefix: int = 0
    encoder_tokens: Sequence[int] | None = None


class RowScore(NamedTuple):
    """log_probabilities: of the n targets that count, nats, fp32. is_greedy: whether the likeliest
    token of each of their places is the target."""

    log_probabilities: Float[np.ndarray, " n"]
    is_greedy: bool

    @property
    def log_likelihood(self) -> float:
        """Their sum, in double precision: an fp32 running sum loses the last digits."""
        return float(self.log_probabilities.sum(dtype=np.float64))


def continuation_row(
    context: Sequence[int], continuation: Sequence[int], *, context_is_prefix: bool = False
) -> ScoredRow:
    """What a decoder reads for log p(continuation | context), neither of them empty.

    Args:
      context_is_prefix: its tokens see one another both ways.
    """
    tokens = [*context, *continuation]
    return ScoredRow(
        inputs=tokens[:-1],
        targets=tokens[1:],
        first=len(context) - 1,
        stop=len(tokens) - 1,
        prefix=len(context) if context_is_prefix else 0,
    )


def score_rows(
    config: ModelConfig,
    params: Params,
    rows: Sequence[ScoredRow],
    *,
    advance: Callable[[int], None] | None = None,
) -> list[RowScore]:
    """Scores rows of any lengths, in order.

    Args:
      params: on the device; arrays of the host are copied there for every batch.
      advance: told how many more rows are scored.
    """
    scores: dict[int, RowScore] = {}
    for batch in _batches(config.vocab_size, rows):
        fields = _padded([rows[index] for index in batch])
        log_p_BL, is_best_BL = map(np.asarray, _score_tokens(config, params, fields))
        for index, log_p_L, is_best_L in zip(batch, log_p_BL, is_best_BL, strict=False):
            counted = slice(rows[index].first, rows[index].stop)
            scores[index] = RowScore(log_p_L[counted], bool(is_best_L[counted].all()))
        if advance:
            advance(len(batch))
    return [scores[index] for index in range(len(rows))]


class _Fields(NamedTuple):
    """A batch; segment 0 is padding. Encoder fields are None without an encoder and a decoder."""

    tokens: Int[np.ndarray, "B L"]
    targets: Int[np.ndarray, "B L"]
    positions: Int[np.ndarray, "B L"]
    segment_ids: Int[np.ndarray, "B L"]
    prefix: Int[np.ndarray, "B L"] | None
    encoder_tokens: Int[np.ndarray, "B M"] | None
    encoder_positions: Int[np.ndarray, "B M"] | None
    encoder_segment_ids: Int[np.ndarray, "B M"] | None


@partial(jax.jit, static_argnums=0)
def _score_tokens(
    config: ModelConfig, params: Params, fields: _Fields
) -> tuple[Float[Array, "B L"], Bool[Array, "B L"]]:
    """Log-probability of every target (nats, fp32), and whether no token is likelier."""
    given = fields._asdict()
    tokens_BL, targets_BL = given.pop("tokens"), given.pop("targets")
    logits_BLV = forward(build_model(config), params, tokens_BL, **given)
    target_logit_BL = jnp.take_along_axis(logits_BLV, targets_BL[:, :, None], axis=-1)[:, :, 0]
    log_p_BL = target_logit_BL - jax.nn.logsumexp(logits_BLV, axis=-1)
    return log_p_BL, jnp.argmax(logits_BLV, axis=-1) == targets_BL


def _batches(vocab_size: int, rows: Sequence[ScoredRow]) -> Iterator[list[int]]:
    """Row numbers of each batch: rows of about one length, the longest first, so that too little
    memory shows at once."""

    def lengths(index: int) -> tuple[int, int]:
        row = rows[index]
        return _round_up(len(row.inputs)), _round_up(len(row.encoder_tokens or ()))

    waiting = sorted(range(len(rows)), key=lengths, reverse=True)
    while waiting:
        shape = lengths(waiting[0])
        limit = min(_MAX_ROWS, max(1, _MAX_LOGITS // (shape[0] * vocab_size)))
        batch = [index for index in waiting[:limit] if lengths(index) == shape]
        yield batch
        waiting = waiting[len(batch) :]


def _padded(rows: Sequence[ScoredRow]) -> _Fields:
    """A batch of rows of about one length; rows of padding fill it up to a power of two."""
    B = 1 << (len(rows) - 1).bit_length()
    tokens_BL, positions_BL, segments_BL = _pad([row.inputs for row in rows], B)
    targets_BL, _, _ = _pad([row.targets for row in rows], B)
    prefix_BL = None
    if any(row.prefix for row in rows):
        prefix_BL = np.zeros_like(tokens_BL)
        for at, row in enumerate(rows):
            prefix_BL[at, : row.prefix] = 1
    encoder: tuple[np.ndarray | None, ...] = (None, None, None)
    if rows[0].encoder_tokens is not None:
        encoder = _pad([row.encoder_tokens or () for row in rows], B)
    return _Fields(tokens_BL, targets_BL, positions_BL, segments_BL, prefix_BL, *encoder)


def _pad(rows: Sequence[Sequence[int]], B: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, positions and segments, int32 [B, L] each, padded on the right."""
    L = _round_up(max(map(len, rows)))
    tokens_BL, positions_BL, segments_BL = np.zeros((3, B, L), np.int32)
    for at, row in enumerate(rows):
        tokens_BL[at, : len(row)] = row
        positions_BL[at, : len(row)] = np.arange(len(row))
        segments_BL[at, : len(row)] = 1
    return tokens_BL, positions_BL, segments_BL


def _round_up(length: int) -> int:
    return max(_SHORTEST_ROW, 1 << (length - 1).bit_length()) if length else 0
