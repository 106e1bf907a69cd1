"""How likely a text is: log-likelihood, perplexity, bits per byte."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from configs.errors import require
from configs.model_config import ModelConfig
from data.batches import Batch, stack_examples
from data.held_out import document_windows
from data.tokenizer import Tokenizer
from model.build import Params, build_model, forward
from train.losses import cross_entropy_sums

_BATCH_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class Score:
    """A text's log-likelihood (nats, summed over tokens) and what follows from it.

    The text is scored on its own after <s>, in windows of seq_len whose first token sees nothing
    of the window before; </s> is not counted.
    """

    log_likelihood: float
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood a token."""
        return math.exp(-self.log_likelihood / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        return -self.log_likelihood / math.log(2) / self.bytes


def score(
    config: ModelConfig, params: Params, tokenizer: Tokenizer, text: str, *, seq_len: int
) -> Score:
    """Scores one text.

    Raises:
      InputError: no text, or a model that does not predict each token from those before it.
    """
    require(bool(text), "text", text, "some text")
    require(
        config.architecture == "decoder_only",
        "model.architecture",
        config.architecture,
        "decoder_only: other models give no probability to a text as a whole",
    )
    tokens = np.asarray(tokenizer.encode(text), np.int32)
    windows = stack_examples(list(document_windows(tokens, seq_len)))
    model = build_model(config)

    @jax.jit
    def log_likelihood(params: Params, batch: Batch) -> jax.Array:
        b = jax.tree.map(jnp.asarray, batch)
        logits_BLV = forward(
            model, params, b.inputs, positions=b.positions, segment_ids=b.segment_ids
        )
        return -cross_entropy_sums(logits_BLV, b.targets, b.loss_weights).cross_entropy

    total = 0.0
    for first in range(0, len(windows.inputs), _BATCH_SIZE):
        part = jax.tree.map(lambda x, first=first: x[first : first + _BATCH_SIZE], windows)
        total += float(log_likelihood(params, part))
    return Score(log_likelihood=total, tokens=len(tokens), bytes=len(text.encode()))
