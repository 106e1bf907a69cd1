"""The compiled programs of generation: read the prompts, then choose tokens several at a time.

Each is one `jax.jit` of the whole process, so a call with the shapes and the program of an earlier
one compiles nothing, whoever makes it. What a text's settings are (temperature, seed, how many
tokens) are arguments.

Letters: B prompts or rows, L prompt length, R rows (B times the samples of each prompt), S slots,
T tokens chosen in a call, V vocabulary.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from configs.model_config import ModelConfig
from inference.inspect_sampling import Distribution, distribution
from inference.padding import Padded
from inference.sampling import SamplingValues, Stages, choose
from model.build import Params, build_model, extend, start
from model.cache import Cache, empty_cache, grow_cache
from model.constrain import UNCONSTRAINED, Constrain
from model.decoder_only import DecoderOnly
from model.encoder_decoder import EncoderDecoder

CHUNK = 32  # tokens that one call of `choose_tokens` chooses at most


@dataclass(frozen=True, kw_only=True)
class Program:
    """What the compiled programs depend on besides shapes.

    stages: those of the sampling. eos_ids: tokens that end a row. pad_id: what a row that has
    ended is fed. num_candidates: likeliest tokens that are handed back with each chosen one.
    """

    config: ModelConfig
    eos_ids: tuple[int, ...]
    pad_id: int
    stages: Stages = ()
    prompt_is_prefix: bool = False
    num_candidates: int = 0
    constrain: Constrain = UNCONSTRAINED

    def model(self) -> DecoderOnly | EncoderDecoder:
        model = build_model(self.config, self.constrain, stacked=False)
        assert isinstance(model, DecoderOnly | EncoderDecoder)
        return model


class Rows(NamedTuple):
    """Growing texts: the last token of each, its place, whether it has ended.

    step: tokens chosen so far. seen_RV: tokens in prompt or text, where a penalty asks for them.
    """

    cache: Cache
    token_R: Int[Array, " R"]
    position_R: Int[Array, " R"]
    has_ended_R: Bool[Array, " R"]
    step: Int[Array, ""]
    seen_RV: Bool[Array, "R V"] | None


class Chosen(NamedTuple):
    """Tokens of T steps, their log-probabilities under the model before any stage of the sampler,
    and what stood to choose from where that was asked for (leading axes T, R)."""

    tokens_RT: Int[Array, "R T"]
    log_probabilities_RT: Float[Array, "R T"]
    shown: Distribution | None


@partial(jax.jit, static_argnames=("program", "num_slots", "copies"))
def read_prompts(
    program: Program,
    params: Params,
    prompts: Padded,
    memory: Padded | None,
    keys_R: Key[Array, " R"],
    has_ended_R: Bool[Array, " R"],
    values: SamplingValues,
    *,
    num_slots: int,
    copies: int,
) -> tuple[Chosen, Rows]:
    """Reads the prompts, makes `copies` rows of each and chooses their first tokens.

    Args:
      prompts: what the decoder reads. memory: what the encoder reads, where there is one.
      has_ended_R: rows that only fill up the batch.
      num_slots: room of the cache, at least the prompts' length.
    """
    logits_BV, cache = read(program, params, prompts, memory, num_slots)
    logits_RV = jnp.repeat(logits_BV, copies, axis=0)
    rows = Rows(
        cache=copy_rows(cache, copies),
        token_R=jnp.repeat(prompts.tokens_BL[:, -1], copies, axis=0),
        position_R=jnp.repeat(prompts.positions_BL[:, -1], copies, axis=0),
        has_ended_R=has_ended_R,
        step=jnp.int32(0),
        seen_RV=first_seen(program, prompts, copies),
    )
    chosen = _no_tokens(program, len(keys_R), 1)
    return _choose_next(program, logits_RV, rows, chosen, jnp.int32(0), keys_R, values)


@partial(jax.jit, static_argnames="program", donate_argnames="rows")
def choose_tokens(
    program: Program,
    params: Params,
    rows: Rows,
    has_ended_R: Bool[Array, " R"],
    num_tokens: Int[Array, ""],
    keys_R: Key[Array, " R"],
    values: SamplingValues,
) -> tuple[Chosen, Rows]:
    """Chooses `num_tokens` (at most `CHUNK`) tokens a row; fewer once all rows have ended.

    The cache must have room for as many.

    Args:
      has_ended_R: rows to regard as ended besides those that chose an end.
    """
    rows = rows._replace(has_ended_R=rows.has_ended_R | has_ended_R)
    model = program.model()

    def goes_on(carry: tuple[Chosen, Rows, jax.Array]) -> jax.Array:
        _, rows, number = carry
        return (number < num_tokens) & ~jnp.all(rows.has_ended_R)

    def choose_one(carry: tuple[Chosen, Rows, jax.Array]) -> tuple[Chosen, Rows, jax.Array]:
        chosen, rows, number = carry
        logits_RV, rows = read_last(program, model, params, rows)
        chosen, rows = _choose_next(program, logits_RV, rows, chosen, number, keys_R, values)
        return chosen, rows, number + 1

    nothing = _no_tokens(program, len(keys_R), CHUNK)
    chosen, rows, _ = jax.lax.while_loop(goes_on, choose_one, (nothing, rows, jnp.int32(0)))
    return chosen, rows


@partial(jax.jit, static_argnames="num_slots")
def grown(cache: Cache, num_slots: int) -> Cache:
    """The cache with more room."""
    return grow_cache(cache, num_slots)


def read(
    program: Program, params: Params, prompts: Padded, memory: Padded | None, num_slots: int
) -> tuple[Float[Array, "B V"], Cache]:
    """Logits after each prompt, and the cache that holds the prompts."""
    model, tokens_BL = program.model(), jnp.asarray(prompts.tokens_BL)
    fields: dict[str, Any] = {
        "positions": prompts.positions_BL,
        "segment_ids": prompts.segments_BL,
        "num_logits": 1,
    }
    if memory is None:
        cache = empty_cache(program.config, len(tokens_BL), num_slots, stacked=False)
        if program.prompt_is_prefix:
            fields["prefix"] = prompts.segments_BL
        logits_BlV, cache = extend(model, params, tokens_BL, cache, **fields)
    else:
        assert isinstance(model, EncoderDecoder)
        cache = empty_cache(
            program.config,
            len(tokens_BL),
            num_slots,
            memory_slots=memory.tokens_BL.shape[1],
            stacked=False,
        )
        fields["encoder_tokens"] = memory.tokens_BL
        fields["encoder_positions"] = memory.positions_BL
        fields["encoder_segment_ids"] = memory.segments_BL
        logits_BlV, cache = start(model, params, tokens_BL, cache, **fields)
    return logits_BlV[:, -1], constrained(program, cache)


def read_last(
    program: Program, model: DecoderOnly | EncoderDecoder, params: Params, rows: Rows
) -> tuple[Float[Array, "R V"], Rows]:
    """Logits after the last token of each row, which goes into the cache."""
    position_R = rows.position_R + 1
    logits_RlV, cache = extend(
        model,
        params,
        rows.token_R[:, None],
        rows.cache,
        positions=position_R[:, None],
        segment_ids=jnp.ones((len(position_R), 1), jnp.int32),
    )
    return logits_RlV[:, -1], rows._replace(cache=cache, position_R=position_R)


def copy_rows(cache: Cache, copies: int) -> Cache:
    """The cache with every row so many times in a row."""
    if copies == 1:
        return cache
    repeat = partial(jnp.repeat, repeats=copies, axis=0)
    return jax.tree.map(repeat, cache._replace(length=None))._replace(length=cache.length)  # pyright: ignore[reportArgumentType]


def constrained(program: Program, cache: Cache) -> Cache:
    """The cache cut over the mesh: rows over the batch's axes, heads over theirs."""
    if program.constrain.mesh is None:
        return cache
    layers = jax.tree.map(
        lambda x: program.constrain(x, "batch", "kv_heads", None, None), cache.layers
    )
    return cache._replace(layers=layers)


def first_seen(program: Program, prompts: Padded, copies: int) -> Bool[Array, "R V"] | None:
    """The tokens of each prompt, where a repetition penalty asks for them."""
    if "repetition_penalty" not in program.stages:
        return None
    rows_B1 = jnp.arange(len(prompts.tokens_BL))[:, None]
    seen_BV = jnp.zeros((len(prompts.tokens_BL), program.config.vocab_size), bool)
    seen_BV = seen_BV.at[rows_B1, prompts.tokens_BL].max(prompts.segments_BL > 0)
    return jnp.repeat(seen_BV, copies, axis=0)


def _choose_next(
    program: Program,
    logits_RV: jax.Array,
    rows: Rows,
    chosen: Chosen,
    number: jax.Array,
    keys_R: jax.Array,
    values: SamplingValues,
) -> tuple[Chosen, Rows]:
    """Chooses a token a row and writes it in column `number` of the chosen ones."""
    step_keys_R = jax.vmap(jax.random.fold_in, (0, None))(keys_R, rows.step)
    token_R = choose(logits_RV, values, program.stages, step_keys_R, rows.seen_RV)
    logit_R = jnp.take_along_axis(logits_RV, token_R[:, None], axis=1)[:, 0]
    log_probability_R = logit_R - jax.nn.logsumexp(logits_RV, axis=1)
    shown = None
    if chosen.shown is not None:
        now = distribution(
            logits_RV,
            values,
            program.stages,
            token_R,
            rows.seen_RV,
            num_candidates=program.num_candidates,
        )
        shown = jax.tree.map(lambda all_T, one: all_T.at[number].set(one), chosen.shown, now)
    chosen = Chosen(
        chosen.tokens_RT.at[:, number].set(token_R),
        chosen.log_probabilities_RT.at[:, number].set(log_probability_R),
        shown,
    )
    has_ended_R = rows.has_ended_R
    for eos_id in program.eos_ids:
        has_ended_R = has_ended_R | (token_R == eos_id)
    seen_RV = rows.seen_RV
    if seen_RV is not None:
        seen_RV = seen_RV.at[jnp.arange(len(token_R)), token_R].set(True)
    rows = rows._replace(
        token_R=jnp.where(has_ended_R, program.pad_id, token_R),
        has_ended_R=has_ended_R,
        step=rows.step + 1,
        seen_RV=seen_RV,
    )
    return chosen, rows


def _no_tokens(program: Program, num_rows: int, num_tokens: int) -> Chosen:
    shown = None
    if program.num_candidates:
        shape = (num_tokens, num_rows, program.num_candidates + 1)
        shown = Distribution(jnp.zeros(shape, jnp.int32), *jnp.zeros((3, *shape)))
    return Chosen(
        jnp.full((num_rows, num_tokens), program.pad_id, jnp.int32),
        jnp.zeros((num_rows, num_tokens)),
        shown,
    )
