"""Text from a prompt: read it once, then one token at a time with a key/value cache.

A decoder-only model continues the prompt. An encoder-decoder reads the prompt in its encoder; its
decoder begins with start-of-sequence and writes until end-of-sequence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from configs.errors import require
from configs.model_config import ModelConfig
from data.tokenizer import Tokenizer
from inference.prompts import (
    decode_with_symbols,
    encode_with_symbols,
    num_places,
    require_places,
)
from inference.sampling import Sampling, choose
from model.build import Params, build_model, extend, start
from model.cache import Cache, empty_cache
from model.decoder_only import DecoderOnly
from model.encoder_decoder import EncoderDecoder

_BUCKET = 32  # prompt and cache lengths are rounded up to it, so that few programs are compiled


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What followed a prompt.

    tokens: chosen ids, the end-of-sequence token not among them. finished: whether the model
    ended the text itself; False when max_tokens cut it off.
    """

    prompt: str
    tokens: tuple[int, ...]
    text: str
    finished: bool


def generate(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    sampling: Sampling,
    prompt_is_prefix: bool = False,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Generation]:
    """Continues every prompt, or answers it where there is an encoder; all of them in one batch.

    Prompts of different lengths are padded on the left and padding is masked, so a prompt gets
    the continuation it gets alone. An encoder's prompts may spell control symbols (sentinels).

    Args:
      max_tokens: at most so many new tokens a prompt; fewer where a learned table of positions
        ends.
      prompt_is_prefix: a prompt's tokens see one another both ways, as in training a decoder-only
        model with the prefix_lm objective.
      on_text: told (row, new text) as soon as characters are complete, for streaming.

    Returns:
      One Generation per prompt, in order.

    Raises:
      InputError: no prompt, no tokens asked for, a model without a decoder or without a head, or
        a prompt longer than a learned table of positions.
    """
    require(len(prompts) > 0, "prompt", list(prompts), "at least one prompt")
    require(max_tokens > 0, "max_tokens", max_tokens, "1 or more")
    require(
        config.architecture != "encoder_only",
        "model.architecture",
        config.architecture,
        "a model with a decoder (an encoder fills in what is masked)",
    )
    require(config.head.kind != "none", "model.head.kind", "none", "a head that gives logits")
    has_encoder = config.architecture == "encoder_decoder"
    decode = partial(decode_with_symbols, tokenizer) if has_encoder else tokenizer.decode
    key = jax.random.key(sampling.seed)
    if has_encoder:
        encoded = [[*encode_with_symbols(tokenizer, p), tokenizer.eos_id] for p in prompts]
        max_tokens = _affordable(config, max_tokens, encoded, written=1)
        begun = [[tokenizer.bos_id]] * len(prompts)
        first, prompt_slots = Padded.of(begun, 1), _round_up(max(map(len, encoded)))
        memory = Padded.of(encoded, prompt_slots)
        cache = empty_cache(
            config, len(prompts), 1 + _round_up(max_tokens), memory_slots=prompt_slots
        )
        token_B, cache = _compiled_start(config, sampling)(params, *first, *memory, cache, key)
    else:
        encoded = [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in prompts]
        max_tokens = _affordable(config, max_tokens, encoded, written=max(map(len, encoded)))
        prompt_slots = _round_up(max(map(len, encoded)))
        first = Padded.of(encoded, prompt_slots)
        cache = empty_cache(config, len(prompts), prompt_slots + _round_up(max_tokens))
        read_prompt = _compiled(config, sampling, is_prefix=prompt_is_prefix)
        token_B, cache = read_prompt(params, *first, cache, key)
    step_function = _compiled(config, sampling)
    positions_B = first.positions_BL[:, -1]
    rows = [_Row(tokenizer, decode, i, on_text) for i in range(len(prompts))]
    for step in range(1, max_tokens + 1):
        for row, token in zip(rows, np.asarray(token_B).tolist(), strict=True):
            row.add(token)
        if step == max_tokens or all(row.finished for row in rows):
            break
        positions_B = positions_B + 1
        token_B, cache = step_function(
            params,
            token_B[:, None],
            positions_B[:, None],
            np.ones((len(prompts), 1), np.int32),
            cache,
            jax.random.fold_in(key, step),
        )
    return [
        Generation(prompt=prompt, tokens=tuple(row.tokens), text=row.end(), finished=row.finished)
        for prompt, row in zip(prompts, rows, strict=True)
    ]


def _affordable(
    config: ModelConfig, max_tokens: int, prompts: Sequence[Sequence[int]], *, written: int
) -> int:
    """`max_tokens`, or as many as positions are left for after `written` tokens; the last token
    chosen needs none, since it is not read again."""
    require_places(config, max(map(len, prompts)))
    places = num_places(config)
    return max_tokens if places is None else min(max_tokens, places - written + 1)


class Padded(NamedTuple):
    """Rows of tokens of different lengths, int32 [B, L] each, padded on the left with segment 0."""

    tokens_BL: np.ndarray
    positions_BL: np.ndarray
    segments_BL: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], length: int) -> "Padded":
        padded = cls(*np.zeros((3, len(rows), length), np.int32))
        for i, row in enumerate(rows):
            padded.tokens_BL[i, length - len(row) :] = row
            padded.positions_BL[i, length - len(row) :] = np.arange(len(row))
            padded.segments_BL[i, length - len(row) :] = 1
        return padded


class _Row:
    """One growing continuation and what of it has been streamed."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        decode: Callable[[Sequence[int]], str],
        index: int,
        on_text: Callable[[int, str], None] | None,
    ):
        self._tokenizer, self._decode = tokenizer, decode
        self._index, self._on_text = index, on_text
        self._streamed = 0
        self.tokens: list[int] = []
        self.finished = False

    def add(self, token: int) -> None:
        if self.finished:
            return
        if token == self._tokenizer.eos_id:
            self.finished = True
            return
        self.tokens.append(token)
        text = self._decode(self.tokens)
        # A character of several byte tokens shows as U+FFFD until its last byte is there.
        if self._on_text and not text.endswith("\ufffd"):
            self._stream(text)

    def end(self) -> str:
        text = self._decode(self.tokens)
        if self._on_text:
            self._stream(text)
        return text

    def _stream(self, text: str) -> None:
        assert self._on_text is not None
        if len(text) > self._streamed:
            self._on_text(self._index, text[self._streamed :])
            self._streamed = len(text)


def _compiled(
    config: ModelConfig, sampling: Sampling, *, is_prefix: bool = False
) -> Callable[..., tuple[jax.Array, Cache]]:
    """Reads tokens into the cache and chooses the next one; one program a shape of tokens."""
    model = build_model(config)
    assert isinstance(model, DecoderOnly | EncoderDecoder)

    @partial(jax.jit, donate_argnums=4)
    def step(
        params: Params,
        tokens_BL: jax.Array,
        positions_BL: jax.Array,
        segments_BL: jax.Array,
        cache: Cache,
        key: jax.Array,
    ) -> tuple[jax.Array, Cache]:
        logits_BLV, cache = extend(
            model,
            params,
            tokens_BL,
            cache,
            positions=positions_BL,
            segment_ids=segments_BL,
            prefix=segments_BL if is_prefix else None,
        )
        return choose(logits_BLV[:, -1], sampling, key), cache

    return step


def _compiled_start(
    config: ModelConfig, sampling: Sampling
) -> Callable[..., tuple[jax.Array, Cache]]:
    """Encodes the prompts, begins the decoder and chooses its first token."""
    model = build_model(config)
    assert isinstance(model, EncoderDecoder)

    @partial(jax.jit, donate_argnums=7)
    def begin(
        params: Params,
        tokens_BL: jax.Array,
        positions_BL: jax.Array,
        segments_BL: jax.Array,
        encoder_tokens_BM: jax.Array,
        encoder_positions_BM: jax.Array,
        encoder_segments_BM: jax.Array,
        cache: Cache,
        key: jax.Array,
    ) -> tuple[jax.Array, Cache]:
        logits_BLV, cache = start(
            model,
            params,
            tokens_BL,
            cache,
            positions=positions_BL,
            segment_ids=segments_BL,
            encoder_tokens=encoder_tokens_BM,
            encoder_positions=encoder_positions_BM,
            encoder_segment_ids=encoder_segments_BM,
        )
        return choose(logits_BLV[:, -1], sampling, key), cache

    return begin


def _round_up(length: int) -> int:
    return -(-length // _BUCKET) * _BUCKET
