"""Text from a prompt: prefill once, then one token at a time with a key/value cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from configs.errors import require
from configs.model_config import ModelConfig
from data.tokenizer import Tokenizer
from inference.sampling import Sampling, choose
from model.build import Params, build_model, extend
from model.decoder_only import Cache, empty_cache

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
    on_text: Callable[[int, str], None] | None = None,
) -> list[Generation]:
    """Continues every prompt, all of them in one batch.

    Prompts of different lengths are padded on the left and padding is masked, so a prompt gets
    the continuation it gets alone.

    Args:
      max_tokens: at most so many new tokens a prompt.
      on_text: told (row, new text) as soon as characters are complete, for streaming.

    Returns:
      One Generation per prompt, in order.
    """
    require(len(prompts) > 0, "prompt", list(prompts), "at least one prompt")
    require(max_tokens > 0, "max_tokens", max_tokens, "1 or more")
    encoded = [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in prompts]
    prompt_slots = _round_up(max(map(len, encoded)))
    tokens_BL, positions_BL, segments_BL = _left_padded(encoded, prompt_slots)
    cache = empty_cache(config, len(prompts), prompt_slots + _round_up(max_tokens))
    key = jax.random.key(sampling.seed)

    step_function = _compiled(config, sampling)
    token_B, cache = step_function(params, tokens_BL, positions_BL, segments_BL, cache, key)
    positions_B = positions_BL[:, -1]
    rows = [_Row(tokenizer, i, on_text) for i in range(len(prompts))]
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


class _Row:
    """One growing continuation and what of it has been streamed."""

    def __init__(
        self, tokenizer: Tokenizer, index: int, on_text: Callable[[int, str], None] | None
    ):
        self._tokenizer, self._index, self._on_text = tokenizer, index, on_text
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
        text = self._tokenizer.decode(self.tokens)
        # A character of several byte tokens shows as U+FFFD until its last byte is there.
        if self._on_text and not text.endswith("\ufffd"):
            self._stream(text)

    def end(self) -> str:
        text = self._tokenizer.decode(self.tokens)
        if self._on_text:
            self._stream(text)
        return text

    def _stream(self, text: str) -> None:
        assert self._on_text is not None
        if len(text) > self._streamed:
            self._on_text(self._index, text[self._streamed :])
            self._streamed = len(text)


def _compiled(config: ModelConfig, sampling: Sampling) -> Callable[..., tuple[jax.Array, Cache]]:
    """Reads tokens into the cache and chooses the next one; one program a shape of tokens."""
    model = build_model(config)

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
            model, params, tokens_BL, cache, positions=positions_BL, segment_ids=segments_BL
        )
        return choose(logits_BLV[:, -1], sampling, key), cache

    return step


def _left_padded(
    rows: Sequence[Sequence[int]], length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, positions and segment ids, int32 [B, length]; padding is segment 0."""
    tokens, segments = np.zeros((2, len(rows), length), np.int32)
    positions = np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        tokens[i, length - len(row) :] = row
        segments[i, length - len(row) :] = 1
        positions[i, length - len(row) :] = np.arange(len(row))
    return tokens, positions, segments


def _round_up(length: int) -> int:
    return -(-length // _BUCKET) * _BUCKET
