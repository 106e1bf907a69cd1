"""Who looks at whom: a model's attention weights for a text, and what each head does with them.

Legend: N layers, B batch, H heads, L queries, M keys.

The weights are those the model computes; nothing here repeats its arithmetic.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from configs.errors import require
from configs.model_config import ModelConfig
from inference.prompts import num_places
from model.build import Params, build_model, forward_with_attention
from model.masks import MaskSpec, attention_mask, row_places

SELF, CROSS = "self", "cross"
_RANDOM_ROWS = 4
_RANDOM_LENGTH = 48


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """One text as the model reads it, specials included.

    tokens: what the decoder (or the only stack) reads. encoder_tokens: None without an encoder
    beside a decoder. is_prefix: the tokens see one another both ways in a decoder.
    """

    tokens: tuple[int, ...]
    encoder_tokens: tuple[int, ...] | None = None
    is_prefix: bool = False


@dataclass(frozen=True, kw_only=True)
class AttentionMap:
    """The weights of one kind of attention.

    stack: "encoder" or "decoder"; kind: "self" or "cross". weights_NHLM: fp32, each row of M adds
    up to 1. visible_NLM: which keys a query may see. queries, keys: token ids [L], [M].
    """

    stack: str
    kind: str
    weights_NHLM: Float[np.ndarray, "N H L M"]
    visible_NLM: Bool[np.ndarray, "N L M"]
    queries: tuple[int, ...]
    keys: tuple[int, ...]

    @property
    def name(self) -> str:
        """As a person calls it: "decoder self-attention", "cross-attention"."""
        return "cross-attention" if self.kind == CROSS else f"{self.stack} self-attention"


def attention_maps(config: ModelConfig, params: Params, read: ModelInput) -> list[AttentionMap]:
    """Every attention of a forward pass over one text: the encoder's, the decoder's, cross.

    Raises:
      InputError: no token on a side that needs one, or more than a learned table of positions has.
    """
    sides = [("tokens", read.tokens)]
    if config.architecture == "encoder_decoder":
        sides.append(("encoder_tokens", read.encoder_tokens or ()))
    places = num_places(config)
    for name, tokens in sides:
        require(bool(tokens), name, "none", "one or more")
        fits = places is None or len(tokens) <= places
        require(fits, name, f"{len(tokens)} tokens", f"{places} at most")
    rows = {name: np.array([tokens], np.int32) for name, tokens in sides}
    weights = _weights(config, params, rows, is_prefix=read.is_prefix)
    maps = []
    for (stack, kind), weights_NBHLM in weights.items():
        queries = rows["encoder_tokens" if stack == "encoder" and len(rows) > 1 else "tokens"][0]
        keys = rows["encoder_tokens"][0] if kind == CROSS else queries
        maps.append(
            AttentionMap(
                stack=stack,
                kind=kind,
                weights_NHLM=weights_NBHLM[:, 0],
                visible_NLM=_visible(config, stack, kind, weights_NBHLM, is_prefix=read.is_prefix),
                queries=tuple(queries.tolist()),
                keys=tuple(keys.tolist()),
            )
        )
    return maps


@dataclass(frozen=True, kw_only=True)
class HeadStatistics:
    """What one head does, means over the queries that see two keys or more.

    entropy: of a query's weights, nats. relative_entropy: that over the log of the number of keys
    it sees: 0 looks at one key, 1 at all alike. first: weight of the first key (a sink, Xiao et al.
    2023, arXiv 2309.17453). diagonal, previous, following: weight of the token itself, of the one
    before and after it; None for cross-attention, and following where no one sees it. induction:
    see `induction_scores`; None where it was not measured.
    """

    layer: int
    head: int
    entropy: float
    relative_entropy: float
    first: float
    diagonal: float | None
    previous: float | None
    following: float | None
    induction: float | None = None


def head_statistics(
    shown: AttentionMap, induction_NH: Float[np.ndarray, "N H"] | None = None
) -> list[HeadStatistics]:
    """Statistics of every layer and head, in order.

    Raises:
      InputError: a text in which no token sees two keys.
    """
    found, is_cross = [], shown.kind == CROSS
    for layer, (weights_HLM, visible_LM) in enumerate(
        zip(shown.weights_NHLM, shown.visible_NLM, strict=True)
    ):
        num_visible_L = visible_LM.sum(-1)
        chooses_L = num_visible_L > 1
        require(bool(chooses_L.any()), "text", "one token", "two or more")
        for head, weights_LM in enumerate(weights_HLM):
            entropy_L = -np.sum(weights_LM * np.log(np.maximum(weights_LM, 1e-30)), -1)[chooses_L]
            found.append(
                HeadStatistics(
                    layer=layer,
                    head=head,
                    entropy=float(entropy_L.mean()),
                    relative_entropy=float((entropy_L / np.log(num_visible_L[chooses_L])).mean()),
                    first=float(weights_LM[chooses_L, 0].mean()),
                    diagonal=None if is_cross else _beside(weights_LM, visible_LM, 0),
                    previous=None if is_cross else _beside(weights_LM, visible_LM, -1),
                    following=None if is_cross else _beside(weights_LM, visible_LM, 1),
                    induction=None if induction_NH is None else float(induction_NH[layer, head]),
                )
            )
    return found


def uniform_weight(shown: AttentionMap) -> float:
    """What a head that looks at all it sees alike would give a key, mean as in `HeadStatistics`."""
    num_visible_NL = shown.visible_NLM.sum(-1)
    return float((1 / num_visible_NL[num_visible_NL > 1]).mean())


def induction_scores(
    config: ModelConfig,
    params: Params,
    *,
    begin: Sequence[int],
    ordinary_ids: Sequence[int],
    seed: int = 0,
) -> dict[str, Float[np.ndarray, "N H"]]:
    """How much each self-attention head looks at what came after a token when it came last.

    The model reads random tokens twice over. A token of the second copy stood before in the first;
    the score is the mean weight it gives to the token right after that (Olsson et al. 2022, arXiv
    2209.11895, "prefix matching"). Nothing but the repetition tells where that is. A decoder that
    has an encoder reads the same tokens on both sides.

    Args:
      begin: what stands before the tokens, as in use.
      ordinary_ids: ids to draw from.

    Returns:
      Stack ("encoder", "decoder") -> scores, 0 to 1; a head that looks at all alike has about
      1 / (1.5 · length of a copy), 1 / (2 · length) in an encoder.
    """
    places = num_places(config)
    room = 2 * _RANDOM_LENGTH if places is None else places - len(begin)
    length = min(_RANDOM_LENGTH, room // 2)
    require(length > 1, "model.position.num_positions", places, "room for two copies of two tokens")
    rng = np.random.default_rng(seed)
    copy_BL = rng.choice(np.asarray(ordinary_ids, np.int32), (_RANDOM_ROWS, length))
    begin_BL = np.tile(np.asarray(begin, np.int32), (_RANDOM_ROWS, 1))
    rows = {"tokens": np.concatenate([begin_BL, copy_BL, copy_BL], axis=1)}
    if config.architecture == "encoder_decoder":
        rows["encoder_tokens"] = np.concatenate([copy_BL, copy_BL], axis=1)
    weights = _weights(config, params, rows, is_prefix=False)
    return {
        stack: induction_score(weights_NBHLM, length)
        for (stack, kind), weights_NBHLM in weights.items()
        if kind == SELF
    }


def induction_score(
    weights_NBHLL: Float[np.ndarray, "N B H L L"], length: int
) -> Float[np.ndarray, "N H"]:
    """Mean weight from each of a row's last `length` tokens to the one `length` − 1 before it."""
    stripe_NBHL = np.diagonal(weights_NBHLL, offset=1 - length, axis1=-2, axis2=-1)
    return stripe_NBHL[..., -length:].mean((1, 3))


def _beside(
    weights_LM: Float[np.ndarray, "L M"], visible_LM: Bool[np.ndarray, "L M"], offset: int
) -> float | None:
    """Mean weight of the key `offset` places after the query, where the query sees it and others;
    None where there is no such query."""
    counts_LM = visible_LM & (visible_LM.sum(-1, keepdims=True) > 1)
    counts = np.diagonal(counts_LM, offset)
    return float(np.diagonal(weights_LM, offset)[counts].mean()) if counts.any() else None


def _weights(
    config: ModelConfig, params: Params, rows: dict[str, np.ndarray], *, is_prefix: bool
) -> dict[tuple[str, str], Float[np.ndarray, "N B H L M"]]:
    """(stack, kind) -> weights of full rows."""
    fields = {}
    for name, tokens_BL in rows.items():
        side = name.removesuffix("tokens")
        places_L = np.arange(tokens_BL.shape[1], dtype=np.int32)
        fields[f"{side}positions"] = np.broadcast_to(places_L, tokens_BL.shape)
        fields[f"{side}segment_ids"] = np.ones_like(tokens_BL)
    fields |= {name: row for name, row in rows.items() if name != "tokens"}
    if is_prefix:
        fields["prefix"] = fields["segment_ids"]
    weights = _run(config, params, rows["tokens"], fields)
    return {
        (stack, kind): np.asarray(weights[stack][kind], np.float32)
        for stack in ("encoder", "decoder")
        for kind in (SELF, CROSS)
        if kind in weights.get(stack, {})
    }


@partial(jax.jit, static_argnums=0)
def _run(
    config: ModelConfig,
    params: Params,
    tokens_BL: Int[Array, "B L"],
    fields: dict[str, Int[Array, "B _"]],
) -> dict[str, dict[str, Float[Array, "_ B _ _ _"]]]:
    return forward_with_attention(build_model(config), params, tokens_BL, **fields)[1]


def _visible(
    config: ModelConfig, stack: str, kind: str, weights_NBHLM: np.ndarray, *, is_prefix: bool
) -> Bool[np.ndarray, "N L M"]:
    """Who may see whom in a row of one text, for each layer."""
    N, _, _, L, M = weights_NBHLM.shape
    if kind == CROSS:
        return np.ones((N, L, M), bool)
    ones_1L = jnp.ones((1, L), jnp.int32)
    places = row_places(ones_1L, ones_1L if is_prefix else None)
    masks = [
        attention_mask(
            MaskSpec(causal=stack == "decoder", window=config.attention.window if is_window else 0),
            places,
        )
        for is_window in config.attention.windowed_layers(N)
    ]
    return np.concatenate([np.asarray(mask_1LM) for mask_1LM in masks])
