"""In-context learning without a task: does a model predict better what it has read before?

Repeats (Olsson et al. 2022, arXiv 2209.11895, section 2): rows x x, a sequence and the same again.
The loss on the second copy is set against the first, and against the same tokens after another
sequence, rows y x: that leaves out what any context of that length is worth.

Place: the loss at the token with 98% of the context before it, less that at 10% (the paper's 500th
and 50th token of 512), on running text. Below 0: later tokens are easier.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from configs.errors import require
from configs.model_config import ModelConfig
from inference.score_rows import continuation_row, score_rows
from model.build import Params

_EARLY, _LATE, _AROUND = 0.1, 0.98, 1 / 32  # of the context


@dataclass(frozen=True, kw_only=True)
class RepeatedLoss:
    """Nats a token, means over rows and places, each with its standard error over rows.

    kind: what was repeated. first, second: on the first copy and the second. after_other: on the
    same tokens after another sequence. gain: after_other − second. by_place: of each place of a row
    x x, [2n]; other_by_place: of each place of x after another sequence, [n].
    """

    kind: str
    first: tuple[float, float]
    second: tuple[float, float]
    after_other: tuple[float, float]
    gain: tuple[float, float]
    by_place: tuple[float, ...]
    other_by_place: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PlaceLoss:
    """Loss on running text by a token's place in the context: nats, mean over rows [seq_len].

    score: late − early, with its standard error; early and late: means around 10% and 98%.
    """

    early: float
    late: float
    score: tuple[float, float]
    by_place: tuple[float, ...]


class PlacewiseLoss:
    """Losses of a decoder-only model token by token, compiled once for a length of rows."""

    def __init__(self, config: ModelConfig, params: Params, *, seq_len: int, bos_id: int):
        """Raises InputError for a model that is not decoder-only, or rows shorter than 32."""
        require(
            config.architecture == "decoder_only",
            "model.architecture",
            config.architecture,
            "decoder_only: the loss by place is that of a text's next token",
        )
        require(seq_len >= 32, "data.seq_len", seq_len, "32 tokens or more to repeat a sequence in")
        self.seq_len = seq_len
        self._params, self._bos_id = jax.device_put(params), bos_id
        self._config = config

    def of(self, tokens_BL: np.ndarray) -> np.ndarray:
        """Nats of every token after <s> and those before it.

        Args:
          tokens_BL: int [B, L], L at most seq_len.

        Returns:
          float64 [B, L].
        """
        rows = [
            continuation_row([self._bos_id], tokens) for tokens in np.asarray(tokens_BL).tolist()
        ]
        scores = score_rows(self._config, self._params, rows)
        return -np.stack([score.log_probabilities for score in scores]).astype(np.float64)


def repeated_loss(model: PlacewiseLoss, kind: str, sequences_BL: np.ndarray) -> RepeatedLoss:
    """What a first copy is worth to a second.

    Args:
      sequences_BL: int [B, n], B of 2 or more, 2n at most seq_len; each row also follows the next.
    """
    length = sequences_BL.shape[1]
    same_BL = model.of(np.concatenate([sequences_BL, sequences_BL], axis=1))
    others = np.roll(sequences_BL, -1, axis=0)
    other_BL = model.of(np.concatenate([others, sequences_BL], axis=1))[:, length:]
    second_BL = same_BL[:, length:]
    return RepeatedLoss(
        kind=kind,
        first=_mean(same_BL[:, :length]),
        second=_mean(second_BL),
        after_other=_mean(other_BL),
        gain=_mean(other_BL - second_BL),
        by_place=tuple(same_BL.mean(0).tolist()),
        other_by_place=tuple(other_BL.mean(0).tolist()),
    )


def place_loss(model: PlacewiseLoss, text_BL: np.ndarray) -> PlaceLoss:
    """Loss by place on rows of running text, int [B, seq_len]."""
    losses_BL = model.of(text_BL)
    length = losses_BL.shape[1]
    half = max(1, round(length * _AROUND))

    def around(part: float) -> np.ndarray:
        middle = round(length * part)
        return losses_BL[:, max(0, middle - half) : middle + half].mean(1)

    early_B, late_B = around(_EARLY), around(_LATE)
    return PlaceLoss(
        early=float(early_B.mean()),
        late=float(late_B.mean()),
        score=_mean((late_B - early_B)[:, None]),
        by_place=tuple(losses_BL.mean(0).tolist()),
    )


def repeated_sequences(
    text_tokens: np.ndarray, *, seq_len: int, rows: int, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """What `repeated_loss` is measured on: (kind, int [rows, seq_len // 2]).

    "random tokens": of those the text has, each as likely. "shuffled text": the text's tokens out
    of order, frequent ones frequent. "text": pieces of the text as it is.
    """
    rng = np.random.default_rng(seed)
    length = seq_len // 2
    yield "random tokens", rng.choice(np.unique(text_tokens), (rows, length))
    yield "shuffled text", rng.choice(text_tokens, (rows, length))
    yield "text", running_text(text_tokens, length, rows=rows, seed=seed)


def running_text(text_tokens: np.ndarray, length: int, *, rows: int, seed: int) -> np.ndarray:
    """Pieces of a text from random places, int [rows, length].

    Raises:
      InputError: a text shorter than a piece.
    """
    require(len(text_tokens) > length, "text", f"{len(text_tokens)} tokens", f"over {length}")
    starts = np.random.default_rng([seed, 1]).integers(len(text_tokens) - length, size=rows)
    return np.stack([text_tokens[start : start + length] for start in starts])


def _mean(losses_BL: np.ndarray) -> tuple[float, float]:
    """Mean, and its standard error over rows: tokens of a row are not independent."""
    rows = losses_BL.mean(1)
    error = rows.std(ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else 0.0
    return float(rows.mean()), float(error)
