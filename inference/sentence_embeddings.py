"""One vector a text: the last layer's activations, pooled over its tokens.

Legend: B batch, L length, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from configs.errors import require
from configs.model_config import ModelConfig, NoHeadConfig
from data.tokenizer import Tokenizer
from inference.embedding_space import normalised
from inference.prompts import PromptFormat, require_places
from model.build import Params, build_model, forward
from model.encoder_decoder import EncoderDecoder

Pooling = Literal["mean", "first", "last"]

_BATCH_SIZE = 16
_BUCKET = 32  # lengths are rounded up to it, so that few programs are compiled


def sentence_embeddings(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    pooling: Pooling = "mean",
    prompt_format: PromptFormat | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> Float[np.ndarray, "n D"]:
    """Vectors of length 1, one a text; those of an encoder-decoder come from its encoder.

    A decoder's place has seen what comes before it only, so there `last` is the place that has
    seen all of the text, and its start of sequence, the same for all texts, is not in the mean.

    Args:
      pooling: "mean" over the tokens (in an encoder those put around the text too, as
        sentence-transformers do), "first" (an encoder's <s>, BERT's [CLS]) or "last".
      prompt_format: what stands around a text; None: as in our own training.
      progress: told how many texts are done.

    Raises:
      InputError: no text, an empty one, one longer than a learned table of positions, or the first
        place of a decoder.
    """
    require(len(texts) > 0, "texts", "none", "at least one")
    around = prompt_format or PromptFormat.of(config, tokenizer)
    rows = [read_text(config, tokenizer, text, around) for text in texts]
    is_decoder = config.architecture == "decoder_only"
    require(
        not (is_decoder and pooling == "first"),
        "pooling",
        pooling,
        "mean or last: a decoder's first place has seen nothing",
    )
    skip = len(around.before) if is_decoder else 0
    return pooled_rows(config, params, rows, pooling=pooling, skip=skip, progress=progress)


def read_text(
    config: ModelConfig, tokenizer: Tokenizer, text: str, around: PromptFormat
) -> list[int]:
    """A text's tokens with what stands around it, in the encoder where there is one.

    Raises:
      InputError: a text without tokens, or longer than a learned table of positions.
    """
    tokens = tokenizer.encode_with_symbols(text)
    require(bool(tokens), "text", text, "some text")
    if config.architecture == "decoder_only":
        tokens = [*around.before, *tokens, *around.after]
    else:
        tokens = [*around.encoder_before, *tokens, *around.encoder_after]
    require_places(config, len(tokens))
    return tokens


def pooled_rows(
    config: ModelConfig,
    params: Params,
    rows: Sequence[Sequence[int]],
    *,
    pooling: Pooling,
    skip: int = 0,
    progress: Callable[[int], Any] = lambda done: None,
) -> Float[np.ndarray, "n D"]:
    """`sentence_embeddings` of rows of tokens.

    Args:
      skip: so many first tokens are not in the mean.
    """
    pool = _compiled(config)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    pooled_ND = np.zeros((len(rows), config.emb_dim), np.float32)
    for begin in range(0, len(rows), _BATCH_SIZE):
        chosen = order[begin : begin + _BATCH_SIZE]
        length = -(-max(len(rows[i]) for i in chosen) // _BUCKET) * _BUCKET
        fields = np.zeros((3, _BATCH_SIZE, length), np.int32)
        weights_BL = np.zeros((_BATCH_SIZE, length), np.float32)
        for at, i in enumerate(chosen):
            size = len(rows[i])
            fields[0, at, :size] = rows[i]
            fields[1, at, :size] = np.arange(size)
            fields[2, at, :size] = 1
            pooled = {"mean": slice(skip, size), "first": slice(1), "last": slice(size - 1, size)}
            weights_BL[at, pooled[pooling]] = 1
        # Rows that only fill the last batch have no token to divide by.
        weights_BL /= np.maximum(weights_BL.sum(1, keepdims=True), 1)
        pooled_ND[chosen] = np.asarray(pool(params, *fields, weights_BL))[: len(chosen)]
        progress(begin + len(chosen))
    return normalised(pooled_ND)


@lru_cache(maxsize=4)
def _compiled(config: ModelConfig) -> Callable[..., Float[Array, "B D"]]:
    """Tokens, positions and segments of padded rows, and a weight a place, to weighted sums of the
    last activations."""
    model = build_model(replace(config, head=NoHeadConfig()))

    @jax.jit
    def pool(
        params: Params,
        tokens_BL: Int[Array, "B L"],
        positions_BL: Int[Array, "B L"],
        segments_BL: Int[Array, "B L"],
        weights_BL: Float[Array, "B L"],
    ) -> Float[Array, "B D"]:
        if isinstance(model, EncoderDecoder):
            encode: Any = partial(model.apply, method=EncoderDecoder.encode)
            states_BLD = encode({"params": params}, tokens_BL, positions_BL, segments_BL).x_BLD
        else:
            states_BLD = forward(
                model, params, tokens_BL, positions=positions_BL, segment_ids=segments_BL
            )
        return jnp.einsum("BLD,BL->BD", states_BLD.astype(jnp.float32), weights_BL)

    return pool
