"""What an encoder puts in place of masked tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from configs.errors import require
from configs.model_config import ModelConfig
from configs.objective_config import MASK
from data.tokenizer import Tokenizer
from inference.padding import Padded, prompt_places, round_up
from inference.prompts import (
    PromptFormat,
    decode_with_symbols,
    require_places,
)
from model.build import Params, build_model, forward


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A token for a masked place, and its probability."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class FilledText:
    """A prompt, the likeliest tokens for each of its masks (best first), and it with the best."""

    prompt: str
    candidates: tuple[tuple[Candidate, ...], ...]
    text: str


def fill_mask(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    top: int = 5,
    prompt_format: PromptFormat | None = None,
    context: int | None = None,
) -> list[FilledText]:
    """Candidates for every `<mask>` of every prompt, each mask on its own.

    A second call with the shapes of the first compiles nothing.

    Args:
      top: candidates a mask.
      prompt_format: what stands around texts; None: as in our own training.
      context: prompts of more tokens are refused; None: only where a table of positions ends.

    Raises:
      InputError: no prompt, one without a mask or longer than the context, a tokenizer without
        <mask>, a model that is no encoder or has no head over the vocabulary.
    """
    require(len(prompts) > 0, "prompt", list(prompts), "at least one prompt")
    require(
        config.architecture == "encoder_only",
        "model.architecture",
        config.architecture,
        "an encoder (others continue a prompt)",
    )
    require(
        config.has_vocab_head,
        "model.head.kind",
        config.head.kind,
        "a head that gives logits of tokens",
    )
    require(1 <= top <= config.vocab_size, "top", top, f"1 to {config.vocab_size} candidates")
    f = prompt_format or PromptFormat.of(config, tokenizer)
    rows = []
    for prompt in prompts:
        require(bool(prompt), "prompt", prompt, "some text")
        rows.append([*f.encoder_before, *tokenizer.encode_with_symbols(prompt), *f.encoder_after])
    mask_id = tokenizer.symbols.id_of(MASK)
    for prompt, row in zip(prompts, rows, strict=True):
        require(mask_id in row, "prompt", prompt, f"a text with {MASK} where a token is missing")
        require_places(config, len(row), context)
    filled_up = rows + [rows[0]] * (round_up(len(rows)) - len(rows))
    padded = Padded.of(filled_up, prompt_places(max(map(len, rows))))
    probabilities_BLV = np.asarray(_probabilities(config, params, *padded))
    return [
        _filled(tokenizer, prompt, row, mask_id, probabilities_LV[-len(row) :], top)
        for prompt, row, probabilities_LV in zip(
            prompts, rows, probabilities_BLV[: len(rows)], strict=True
        )
    ]


def _filled(
    tokenizer: Tokenizer,
    prompt: str,
    row: list[int],
    mask_id: int,
    probabilities_LV: np.ndarray,
    top: int,
) -> FilledText:
    best, found = list(row), []
    for place in np.flatnonzero(np.array(row) == mask_id):
        order = np.argsort(-probabilities_LV[place], kind="stable")[:top].tolist()
        candidates = (
            Candidate(
                token=token,
                text=decode_with_symbols(tokenizer, [token]),
                probability=float(probabilities_LV[place, token]),
            )
            for token in order
        )
        found.append(tuple(candidates))
        best[place] = order[0]
    return FilledText(prompt=prompt, candidates=tuple(found), text=tokenizer.decode(best))


@partial(jax.jit, static_argnames="config")
def _probabilities(
    config: ModelConfig,
    params: Params,
    tokens_BL: jax.Array,
    positions_BL: jax.Array,
    segments_BL: jax.Array,
) -> jax.Array:
    model = build_model(config)
    logits_BLV = forward(model, params, tokens_BL, positions=positions_BL, segment_ids=segments_BL)
    return jax.nn.softmax(logits_BLV, axis=-1)
