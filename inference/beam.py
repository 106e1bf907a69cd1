"""Beam search: the likeliest text rather than the likeliest tokens, one after the other.

The algorithm is that of `transformers` (`GenerationMixin._beam_search`, early_stopping=False), so
that the texts are the same: of the continuations of all beams the best 2K are looked at; those
among the first K that end compete with the ended ones by log-likelihood / length ** penalty; the
best K that go on are the next beams. A prompt is done when its best beam, at its present length,
could not beat the worst of K ended texts.

Letters: B prompts, K beams, R rows (B·K), T room for tokens, V vocabulary, Q continuations.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from inference.decoding import Program, Rows, copy_rows, first_seen, grown, read, read_last
from inference.generation import Beams
from inference.padding import Padded, cache_slots, round_up
from inference.sampling import SamplingValues, penalised
from model.block import BlockCache
from model.build import Params
from model.cache import Cache

_NEVER = -1e9  # the score of what is no candidate; as in `transformers`
_SMALLEST_ROOM = 32


class Hypothesis(NamedTuple):
    """A text found: tokens, the end among them, their log-probabilities, and its score."""

    tokens: Sequence[int]
    log_probabilities: Sequence[float]
    score: float


class Texts(NamedTuple):
    """K texts a prompt, best first.

    tokens_BKT, log_probabilities_BKT: the latter under the model itself. length_BK: how many.
    score_BK: of running ones the log-likelihood, of ended ones the normalised.
    """

    tokens_BKT: Int[Array, "B K T"]
    log_probabilities_BKT: Float[Array, "B K T"]
    length_BK: Int[Array, "B K"]
    score_BK: Float[Array, "B K"]


class BeamState(NamedTuple):
    """The beams of each prompt, its ended texts so far (has_ended_BK: which are there), and
    whether it can still improve."""

    rows: Rows
    running: Texts
    ended: Texts
    has_ended_BK: Bool[Array, "B K"]
    can_improve_B: Bool[Array, " B"]


def search(
    program: Program,
    params: Params,
    prompts: Padded,
    memory: Padded | None,
    num_prompts: int,
    *,
    beams: Beams,
    max_tokens: int,
    values: SamplingValues,
) -> list[list[Hypothesis]]:
    """Finds the best `beams.number` texts of each prompt, best first.

    Args:
      prompts, memory: what decoder and encoder read; rows past `num_prompts` fill up the batch.
      max_tokens: texts that have not ended by then end there.
      values: of which the repetition penalty counts; it applies to log-probabilities.
    """
    used = prompts.tokens_BL.shape[1]
    slots = cache_slots(used + 1)
    is_prompt_B = np.arange(len(prompts.tokens_BL)) < num_prompts
    limits = (np.float32(beams.length_penalty), np.int32(max_tokens), values)
    room = round_up(max_tokens, smallest=_SMALLEST_ROOM)
    state = begin_beams(
        program, params, prompts, memory, is_prompt_B, *limits,
        num_beams=beams.number, num_slots=slots, room=room,
    )  # fmt: skip
    left = max_tokens - 1
    while left > 0 and bool(np.any(state.can_improve_B)):
        if used == slots:
            slots = cache_slots(slots + 1)
            rows = state.rows._replace(cache=grown(state.rows.cache, slots))
            state = state._replace(rows=rows)
        number = min(left, slots - used)
        state = advance_beams(program, params, state, np.int32(number), *limits)
        left, used = left - number, used + number
    return _hypotheses(jax.tree.map(np.asarray, state.ended), num_prompts)


@partial(jax.jit, static_argnames=("program", "num_beams", "num_slots", "room"))
def begin_beams(
    program: Program,
    params: Params,
    prompts: Padded,
    memory: Padded | None,
    is_prompt_B: Bool[Array, " B"],
    length_penalty: Float[Array, ""],
    max_tokens: Int[Array, ""],
    values: SamplingValues,
    *,
    num_beams: int,
    num_slots: int,
    room: int,
) -> BeamState:
    """Reads the prompts and makes the first beams of each."""
    B, K = len(prompts.tokens_BL), num_beams
    logits_BV, cache = read(program, params, prompts, memory, num_slots)
    # One beam counts at first: the others are copies of it.
    first_BK = jnp.broadcast_to(jnp.where(jnp.arange(K) == 0, 0.0, _NEVER), (B, K))
    nothing = Texts(
        jnp.full((B, K, room), program.pad_id, jnp.int32),
        jnp.zeros((B, K, room)),
        jnp.zeros((B, K), jnp.int32),
        first_BK,
    )
    rows = Rows(
        cache=copy_rows(cache, K),
        token_R=jnp.repeat(prompts.tokens_BL[:, -1], K, axis=0),
        position_R=jnp.repeat(prompts.positions_BL[:, -1], K, axis=0),
        has_ended_R=jnp.zeros(B * K, bool),
        step=jnp.int32(0),
        seen_RV=first_seen(program, prompts, K),
    )
    state = BeamState(
        rows=rows,
        running=nothing,
        ended=nothing._replace(score_BK=jnp.full((B, K), _NEVER)),
        has_ended_BK=jnp.zeros((B, K), bool),
        can_improve_B=is_prompt_B,
    )
    logits_RV = jnp.repeat(logits_BV, K, axis=0)
    return _advance(program, state, logits_RV, length_penalty, max_tokens, values)


@partial(jax.jit, static_argnames="program", donate_argnames="state")
def advance_beams(
    program: Program,
    params: Params,
    state: BeamState,
    num_tokens: Int[Array, ""],
    length_penalty: Float[Array, ""],
    max_tokens: Int[Array, ""],
    values: SamplingValues,
) -> BeamState:
    """Lets the beams grow by `num_tokens`; fewer once no prompt can improve. The cache must have
    room for as many."""
    model = program.model()

    def goes_on(carry: tuple[BeamState, jax.Array]) -> jax.Array:
        return (carry[1] < num_tokens) & jnp.any(carry[0].can_improve_B)

    def grow(carry: tuple[BeamState, jax.Array]) -> tuple[BeamState, jax.Array]:
        state, number = carry
        logits_RV, rows = read_last(program, model, params, state.rows)
        state = state._replace(rows=rows)
        state = _advance(program, state, logits_RV, length_penalty, max_tokens, values)
        return state, number + 1

    return jax.lax.while_loop(goes_on, grow, (state, jnp.int32(0)))[0]


def _advance(
    program: Program,
    state: BeamState,
    logits_RV: jax.Array,
    length_penalty: jax.Array,
    max_tokens: jax.Array,
    values: SamplingValues,
) -> BeamState:
    """One step: every beam's continuations, the texts that end, the beams that go on."""
    B, K = state.running.length_BK.shape
    rows, running = state.rows, state.running
    model_RV = jax.nn.log_softmax(logits_RV, axis=-1)
    scored_RV = model_RV
    if rows.seen_RV is not None:
        scored_RV = penalised(model_RV, rows.seen_RV, values.repetition_penalty)
    V = scored_RV.shape[-1]
    total_BKV = scored_RV.reshape(B, K, V) + running.score_BK[:, :, None]
    num_kept = max(2, 1 + len(program.eos_ids)) * K
    score_BQ, index_BQ = jax.lax.top_k(total_BKV.reshape(B, K * V), num_kept)
    beam_BQ, token_BQ = index_BQ // V, (index_BQ % V).astype(jnp.int32)
    row_BQ = jnp.arange(B)[:, None] * K + beam_BQ
    grown_texts = _continued(running, rows.step, beam_BQ, token_BQ, model_RV[row_BQ, token_BQ])
    grown_texts = grown_texts._replace(score_BK=score_BQ)
    ends_BQ = jnp.broadcast_to(rows.step + 1 >= max_tokens, token_BQ.shape)
    for eos_id in program.eos_ids:
        ends_BQ = ends_BQ | (token_BQ == eos_id)

    ended, has_ended_BK = _with_ended(state, grown_texts, ends_BQ, length_penalty)
    going_BQ = score_BQ + jnp.where(ends_BQ, _NEVER, 0.0)
    score_BK, best_BK = jax.lax.top_k(going_BQ, K)
    running = _take(grown_texts, best_BK)._replace(score_BK=score_BK)
    row_R = jnp.take_along_axis(row_BQ, best_BK, axis=1).reshape(B * K)
    token_R = jnp.take_along_axis(token_BQ, best_BK, axis=1).reshape(B * K)

    best_possible_B = score_BK[:, 0] / (rows.step + 1).astype(jnp.float32) ** length_penalty
    worst_B = jnp.where(jnp.all(has_ended_BK, axis=1), jnp.min(ended.score_BK, axis=1), _NEVER)
    seen_RV = rows.seen_RV
    if seen_RV is not None:
        seen_RV = seen_RV[row_R].at[jnp.arange(B * K), token_R].set(True)
    rows = rows._replace(
        cache=_rows_of(rows.cache, row_R),
        token_R=token_R,
        step=rows.step + 1,
        seen_RV=seen_RV,
    )
    return BeamState(
        rows, running, ended, has_ended_BK, state.can_improve_B & (best_possible_B > worst_B)
    )


def _with_ended(
    state: BeamState, texts: Texts, ends_BQ: jax.Array, length_penalty: jax.Array
) -> tuple[Texts, jax.Array]:
    """The best K of the texts ended so far and those that end now among the first K."""
    K = state.has_ended_BK.shape[1]
    is_ended_BQ = ends_BQ & (jnp.arange(ends_BQ.shape[1]) < K)[None]
    is_ended_BQ = is_ended_BQ & state.can_improve_B[:, None]
    normalised_BQ = texts.score_BK / texts.length_BK.astype(jnp.float32) ** length_penalty
    ending = texts._replace(score_BK=jnp.where(is_ended_BQ, normalised_BQ, _NEVER))
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), state.ended, ending)
    has_ended_BQ = jnp.concatenate([state.has_ended_BK, is_ended_BQ], axis=1)
    _, best_BK = jax.lax.top_k(both.score_BK, K)
    return _take(both, best_BK), jnp.take_along_axis(has_ended_BQ, best_BK, axis=1)


def _continued(
    texts: Texts, step: jax.Array, beam_BQ: jax.Array, token_BQ: jax.Array, model_BQ: jax.Array
) -> Texts:
    """Of each continuation the beam's text and its new token."""
    texts = _take(texts, beam_BQ)
    return texts._replace(
        tokens_BKT=texts.tokens_BKT.at[:, :, step].set(token_BQ),
        log_probabilities_BKT=texts.log_probabilities_BKT.at[:, :, step].set(model_BQ),
        length_BK=jnp.full_like(token_BQ, step + 1),
    )


def _take(texts: Texts, index_BK: jax.Array) -> Texts:
    return jax.tree.map(lambda x: x[jnp.arange(len(x))[:, None], index_BK], texts)


def _rows_of(cache: Cache, row_R: jax.Array) -> Cache:
    """The cache of other rows. Beams of a prompt share its slots' segments and its memory."""
    assert not isinstance(cache.layers, BlockCache)  # that would be stacked layers
    layers = tuple(
        layer._replace(own=jax.tree.map(lambda x: x[row_R], layer.own)) for layer in cache.layers
    )
    return cache._replace(layers=layers)


def _hypotheses(ended: Texts, num_prompts: int) -> list[list[Hypothesis]]:
    found = []
    for b in range(num_prompts):
        found.append([])
        for k in range(ended.length_BK.shape[1]):
            length = int(ended.length_BK[b, k])
            tokens = ended.tokens_BKT[b, k, :length].tolist()
            log_probabilities = ended.log_probabilities_BKT[b, k, :length].tolist()
            score = float(ended.score_BK[b, k])
            found[-1].append(Hypothesis(tokens, log_probabilities, score))
    return found
