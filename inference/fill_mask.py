"""What an encoder puts in place of masked tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from configs.errors import require
from configs.model_config import ModelConfig
from configs.objective_config import MASK
from data.tokenizer import Tokenizer
from inference.prompts import decode_with_symbols, encode_with_symbols, require_places
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
) -> list[FilledText]:
    """Candidates for every `<mask>` of every prompt, each mask on its own.

    Raises:
      InputError: no prompt, one without a mask or longer than a learned table of positions, a
        tokenizer without <mask>, a model that is no encoder or has no head.
    """
    require(len(prompts) > 0, "prompt", list(prompts), "at least one prompt")
    require(
        config.architecture == "encoder_only",
        "model.architecture",
        config.architecture,
        "an encoder (others continue a prompt)",
    )
    require(config.head.kind != "none", "model.head.kind", "none", "a head that gives logits")
    require(1 <= top <= config.vocab_size, "top", top, f"1 to {config.vocab_size} candidates")
    rows = [
        [tokenizer.bos_id, *encode_with_symbols(tokenizer, prompt), tokenizer.eos_id]
        for prompt in prompts
    ]
    mask_id = tokenizer.symbols.id_of(MASK)
    for prompt, row in zip(prompts, rows, strict=True):
        require(mask_id in row, "prompt", prompt, f"a text with {MASK} where a token is missing")
    length = max(map(len, rows))
    require_places(config, length)
    tokens_BL = np.array([row + [tokenizer.pad_id] * (length - len(row)) for row in rows], np.int32)
    places_BL = np.broadcast_to(np.arange(length, dtype=np.int32), tokens_BL.shape)
    segments_BL = (places_BL < np.array([[len(row)] for row in rows])).astype(np.int32)
    probabilities_BLV = np.asarray(
        _probabilities(config, params, tokens_BL, places_BL, segments_BL)
    )
    filled = []
    for prompt, row, probabilities_LV in zip(prompts, rows, probabilities_BLV, strict=True):
        best, candidates = list(row), []
        for place in np.flatnonzero(np.array(row) == mask_id):
            order = np.argsort(-probabilities_LV[place], kind="stable")[:top].tolist()
            candidates.append(
                tuple(
                    Candidate(
                        token=token,
                        text=decode_with_symbols(tokenizer, [token]),
                        probability=float(probabilities_LV[place, token]),
                    )
                    for token in order
                )
            )
            best[place] = order[0]
        text = tokenizer.decode(best)
        filled.append(FilledText(prompt=prompt, candidates=tuple(candidates), text=text))
    return filled


def _probabilities(
    config: ModelConfig,
    params: Params,
    tokens_BL: np.ndarray,
    positions_BL: np.ndarray,
    segments_BL: np.ndarray,
) -> jax.Array:
    model = build_model(config)

    @jax.jit
    def probabilities(params: Params, *fields: jax.Array) -> jax.Array:
        tokens_BL, positions_BL, segments_BL = fields
        logits_BLV = forward(
            model, params, tokens_BL, positions=positions_BL, segment_ids=segments_BL
        )
        return jax.nn.softmax(logits_BLV, axis=-1)

    return probabilities(params, tokens_BL, positions_BL, segments_BL)
