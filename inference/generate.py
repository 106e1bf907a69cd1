"""Text from a prompt: read it once, then choose tokens with a key/value cache.

A decoder-only model continues the prompt. An encoder-decoder reads the prompt in its encoder; its
decoder begins with a start token and writes until end-of-sequence.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from configs.errors import require
from configs.model_config import ModelConfig
from configs.sharding import DEFAULT_RULES, ShardingRules
from data.tokenizer import Tokenizer
from inference.beam import search
from inference.decoding import CHUNK, Chosen, Program, choose_tokens, grown, read_prompts
from inference.generation import (
    Beams,
    Generation,
    GrowingRow,
    OnText,
    Request,
    TokenGeneration,
)
from inference.inspect_sampling import step_of
from inference.padding import Padded, cache_slots, prompt_places, round_up
from inference.prompts import (
    PromptFormat,
    decode_with_symbols,
    num_places,
    require_places,
)
from inference.sampling import DEFAULT_SAMPLING, Sampling
from inference.streaming import TextStream
from inference.token_labels import token_labels
from model.build import Params, param_shardings, unstack_layers
from model.constrain import UNCONSTRAINED, Constrain

_STOP_CHECKED_EVERY = 8  # tokens; those after a stop string are thrown away


class TextGenerator:
    """Generates with one model. Prompts, batches and caches are rounded up to a few shapes, so that
    few programs are compiled; a second call with the shapes of the first compiles nothing."""

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        tokenizer: Tokenizer,
        *,
        prompt_is_prefix: bool = False,
        prompt_format: PromptFormat | None = None,
        context: int | None = None,
        mesh: Mesh | None = None,
        rules: ShardingRules = DEFAULT_RULES,
    ):
        """Lays out the parameters, which copies them, over the mesh if there is one.

        Args:
          params: stacked, as training has them.
          prompt_is_prefix: a prompt's tokens see one another both ways, as in training a
            decoder-only model with the prefix_lm objective.
          prompt_format: what stands around texts; None: as in our own training.
          context: prompts of more tokens are refused; None: only where a table of positions ends.
          mesh: devices that share the work: rows over the batch's axes, heads and widths as in
            training.

        Raises:
          InputError: a model without a decoder or without logits, or one the mesh does not divide.
        """
        require(
            config.architecture != "encoder_only",
            "model.architecture",
            config.architecture,
            "a model with a decoder (an encoder fills in what is masked)",
        )
        require(
            config.has_vocab_head,
            "model.head.kind",
            config.head.kind,
            "a head that gives logits of tokens",
        )
        self._config, self._tokenizer, self._context = config, tokenizer, context
        self._format = prompt_format or PromptFormat.of(config, tokenizer)
        self._prompt_is_prefix = prompt_is_prefix
        self._has_encoder = config.architecture == "encoder_decoder"
        self._constrain, self._row_multiple = UNCONSTRAINED, 1
        if mesh is None:
            self._params = unstack_layers(params)
        else:
            shardings = param_shardings(config, mesh, rules, stacked=False)
            self._constrain = Constrain(mesh, rules)
            self._row_multiple = rules.shards("batch", dict(mesh.shape))
            self._params = jax.device_put(unstack_layers(params), shardings)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        sampling: Sampling = DEFAULT_SAMPLING,
        num_samples: int = 1,
        beams: Beams | None = None,
        stop: Sequence[str] = (),
        num_candidates: int = 0,
        on_text: OnText | None = None,
    ) -> list[Generation]:
        """Continues every prompt, or answers it where there is an encoder; all in one batch.

        Prompts of different lengths are padded and padding is masked, so a prompt gets what it
        gets alone, its draws included. An encoder's prompts may spell control symbols (sentinels).

        Args:
          max_tokens: at most so many new tokens a prompt; fewer where a learned table of positions
            ends.
          num_samples: texts a prompt; with beams the best so many.
          beams: search for the likeliest text instead of choosing token by token; of `sampling`
            the repetition penalty counts alone.
          stop: strings that end a text, which is cut before them.
          num_candidates: so many candidates of each step are handed back; 0: none.
          on_text: told (row, new text) as soon as characters are certain; rows count the prompts'
            samples, prompt by prompt. With beams it is told at the end.

        Returns:
          `num_samples` generations for each prompt, prompt by prompt.

        Raises:
          InputError: no prompt or an empty one, one longer than the context, nothing asked for, or
            settings that contradict one another or the vocabulary.
        """
        require(len(prompts) > 0, "prompt", list(prompts), "at least one prompt")
        for prompt in prompts:
            require(bool(prompt), "prompt", prompt, "some text")
        request = Request(
            max_tokens=max_tokens,
            sampling=sampling,
            num_samples=num_samples,
            beams=beams,
            num_candidates=num_candidates,
        )
        rows = self._new_rows(len(prompts) * max(num_samples, 1))
        if stop or on_text:
            for row in rows:
                row.stream, row.on_text = TextStream(self._decode, stop), on_text
        found = self._run([self._encode(prompt) for prompt in prompts], request, rows)
        generations = []
        for number, (one, row) in enumerate(zip(found, rows, strict=True)):
            text = self._decode(one.tokens) if row.stream is None else row.stream.text
            fields: dict[str, Any] = one.__dict__ | {"prompt": prompts[number // num_samples]}
            generations.append(Generation(**fields, text=text))
        return generations

    def generate_tokens(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        sampling: Sampling = DEFAULT_SAMPLING,
        num_samples: int = 1,
        beams: Beams | None = None,
        num_candidates: int = 0,
    ) -> list[TokenGeneration]:
        """`generate` on ids as they are: nothing is put around them.

        Raises:
          InputError: as `generate`, and for ids outside the vocabulary.
        """
        request = Request(
            max_tokens=max_tokens,
            sampling=sampling,
            num_samples=num_samples,
            beams=beams,
            num_candidates=num_candidates,
        )
        return self._run(prompts, request, self._new_rows(len(prompts) * max(num_samples, 1)))

    def _run(
        self, prompts: Sequence[Sequence[int]], request: Request, rows: list[GrowingRow]
    ) -> list[TokenGeneration]:
        self._check(prompts, request)
        places = num_places(self._config)
        if places is not None:
            read = 1 if self._has_encoder else max(map(len, prompts))
            # The last token chosen needs no place: it is not read.
            request = replace(request, max_tokens=min(request.max_tokens, places - read + 1))
        program = Program(
            config=self._config,
            eos_ids=self._format.eos_ids,
            pad_id=self._format.pad_id,
            stages=request.sampling.stages,
            prompt_is_prefix=self._prompt_is_prefix,
            num_candidates=request.num_candidates,
            constrain=self._constrain,
        )
        batch = self._batch(prompts)
        if request.beams is None:
            self._choose(program, batch, request, rows)
        else:
            self._search(program, batch, request, rows)
        for row in rows:
            row.end()
        n = request.num_samples
        return [row.result(prompts[number // n]) for number, row in enumerate(rows)]

    def _check(self, prompts: Sequence[Sequence[int]], request: Request) -> None:
        request.check(self._config.vocab_size)
        require(len(prompts) > 0, "prompt", list(prompts), "at least one prompt")
        for prompt in prompts:
            require(len(prompt) > 0, "prompt", list(prompt), "at least one token")
            largest, smallest = max(prompt), min(prompt)
            wrong = largest if smallest >= 0 else smallest
            expected = f"ids from 0 to {self._config.vocab_size - 1}"
            require(0 <= wrong < self._config.vocab_size, "prompt", wrong, expected)
            require_places(self._config, len(prompt), self._context)

    def _batch(self, prompts: Sequence[Sequence[int]]) -> "_Batch":
        size = -(-round_up(len(prompts)) // self._row_multiple) * self._row_multiple
        filled = [*prompts, *[prompts[0]] * (size - len(prompts))]
        padded = Padded.of(filled, prompt_places(max(map(len, prompts))))
        if not self._has_encoder:
            return _Batch(padded, None, len(prompts))
        begun = Padded.of([[self._format.decoder_start]] * size, 1)
        return _Batch(begun, padded, len(prompts))

    def _choose(
        self, program: Program, batch: "_Batch", request: Request, rows: list[GrowingRow]
    ) -> None:
        """Lets the rows grow token by token."""
        n, values = request.num_samples, request.sampling.values
        num_rows = len(batch.prompts.tokens_BL) * n
        keys_R = _row_keys(request.sampling.seed, num_rows, n)
        has_ended_R = np.arange(num_rows) >= batch.num_prompts * n
        used = batch.prompts.tokens_BL.shape[1]
        slots = cache_slots(used + 1)
        chosen, state = read_prompts(
            program, self._params, *batch[:2], keys_R, has_ended_R, values,
            num_slots=slots, copies=n,
        )  # fmt: skip
        self._add(rows, chosen, 1)
        left, at_once = request.max_tokens - 1, _tokens_at_once(rows)
        while left > 0 and not all(row.finished for row in rows):
            if used == slots:
                slots = cache_slots(slots + 1)
                state = state._replace(cache=grown(state.cache, slots))
            number = min(left, at_once, slots - used)
            has_ended_R[: len(rows)] = [row.finished for row in rows]
            chosen, state = choose_tokens(
                program, self._params, state, has_ended_R, np.int32(number), keys_R, values
            )
            self._add(rows, chosen, number)
            left, used = left - number, used + number

    def _add(self, rows: list[GrowingRow], chosen: Chosen, number: int) -> None:
        """Adds what one call of a program chose to the rows."""
        chosen = jax.tree.map(np.asarray, chosen)
        tokens, log_probabilities = chosen.tokens_RT.tolist(), chosen.log_probabilities_RT.tolist()
        for place in range(number):
            for r, row in enumerate(rows):
                if not row.finished and chosen.shown is not None:
                    shown = jax.tree.map(lambda x, r=r: x[place, r], chosen.shown)  # noqa: B023
                    labels = token_labels(self._tokenizer, shown.tokens_BN.tolist())
                    row.steps.append(step_of(shown, labels))
                row.add(tokens[r][place], log_probabilities[r][place])

    def _search(
        self, program: Program, batch: "_Batch", request: Request, rows: list[GrowingRow]
    ) -> None:
        """Finds each row's text by beam search."""
        assert request.beams is not None
        found = search(
            program,
            self._params,
            *batch,
            beams=request.beams,
            max_tokens=request.max_tokens,
            values=request.sampling.values,
        )
        for number, row in enumerate(rows):
            one = found[number // request.num_samples][number % request.num_samples]
            for token, log_probability in zip(one.tokens, one.log_probabilities, strict=True):
                row.add(token, log_probability)
            row.score = one.score

    def _new_rows(self, number: int) -> list[GrowingRow]:
        return [GrowingRow(r, self._format.eos_ids) for r in range(number)]

    def _encode(self, text: str) -> list[int]:
        f = self._format
        if self._has_encoder:
            return [
                *f.encoder_before,
                *self._tokenizer.encode_with_symbols(text),
                *f.encoder_after,
            ]
        return [*f.before, *self._tokenizer.encode(text), *f.after]

    def _decode(self, ids: Sequence[int]) -> str:
        if self._has_encoder:
            return decode_with_symbols(self._tokenizer, ids)
        return self._tokenizer.decode(ids)


def generate(
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    sampling: Sampling = DEFAULT_SAMPLING,
    prompt_is_prefix: bool = False,
    prompt_format: PromptFormat | None = None,
    on_text: OnText | None = None,
) -> list[Generation]:
    """`TextGenerator.generate`, for a generator that is wanted once."""
    generator = TextGenerator(
        config,
        params,
        tokenizer,
        prompt_is_prefix=prompt_is_prefix,
        prompt_format=prompt_format,
    )
    return generator.generate(prompts, max_tokens=max_tokens, sampling=sampling, on_text=on_text)


class _Batch(NamedTuple):
    """What the decoder and the encoder read; rows past `num_prompts` fill up the batch."""

    prompts: Padded
    memory: Padded | None
    num_prompts: int


def _row_keys(seed: int, num_rows: int, num_samples: int) -> jax.Array:
    """A key a row: it depends on the seed, the prompt's number and the sample's alone."""
    row_R = jnp.arange(num_rows)

    @jax.vmap
    def key_of(prompt: jax.Array, sample: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), prompt), sample)

    return key_of(row_R // num_samples, row_R % num_samples)


def _tokens_at_once(rows: Sequence[GrowingRow]) -> int:
    """Tokens a call of a program: one if they are to be seen as they come."""
    if rows[0].on_text is not None:
        return 1
    return CHUNK if rows[0].stream is None else _STOP_CHECKED_EVERY
