"""How likely texts are: log-likelihood, perplexity, bits per byte.

A decoder gives a text a probability token by token, an encoder-decoder gives one to an answer. An
encoder gives none; what stands in for it is the pseudo-log-likelihood, each token's given all the
others.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import jax

from configs.errors import require
from configs.model_config import ModelConfig
from configs.objective_config import MASK
from data.tokenizer import Tokenizer
from inference.prompts import PromptFormat, num_places
from inference.score_rows import RowScore, ScoredRow, continuation_row, score_rows
from model.build import Params

Measure = Literal["log_likelihood", "pseudo_log_likelihood"]


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """A log-likelihood (nats, summed over tokens) and what follows from it."""

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


@dataclass(frozen=True, kw_only=True)
class Score(Likelihood):
    """That of a text, on its own, after what texts begin with (<s>).

    Windows of `window` tokens begin every `stride` tokens; what ends a text (</s>) is not counted.
    With both alike, windows see nothing of one another, as in held-out evaluation. With a shorter
    stride a token past the first window sees window − stride tokens before it or more.

    measure: "pseudo_log_likelihood" where each token is scored given all others of its window
    (Salazar et al. 2020, arXiv 1910.14659); it is no probability of the text, and compares with
    its own kind alone.
    """

    window: int
    stride: int
    measure: Measure = "log_likelihood"


@dataclass(frozen=True, kw_only=True)
class Continuation(Likelihood):
    """log p(continuation | context); is_greedy: whether greedy decoding would write it."""

    is_greedy: bool


class Scorer:
    """Scores texts with one model. Programs are compiled once for each rounded shape of rows."""

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        tokenizer: Tokenizer,
        *,
        seq_len: int,
        prompt_is_prefix: bool = False,
        prompt_format: PromptFormat | None = None,
    ):
        """Copies the parameters to the device.

        Args:
          seq_len: longest row, in tokens; a learned table of positions may end before.
          prompt_is_prefix: a context's tokens see one another both ways, as in training a
            decoder-only model with the prefix_lm objective.
          prompt_format: what stands around texts; None: as in our own training.

        Raises:
          InputError: a model without logits over the vocabulary.
        """
        require(
            config.has_vocab_head,
            "model.head.kind",
            config.head.kind,
            "a head that gives logits of tokens",
        )
        self._config, self._params = config, jax.device_put(params)
        self._tokenizer, self._prompt_is_prefix = tokenizer, prompt_is_prefix
        self._format = prompt_format or PromptFormat.of(config, tokenizer)
        self._places = num_places(config)
        self.seq_len = seq_len if self._places is None else min(seq_len, self._places)

    def score(self, text: str, *, window: int = 0, stride: int = 0) -> Score:
        """Scores one text: `scores`."""
        return self.scores([text], window=window, stride=stride)[0]

    def scores(
        self,
        texts: Sequence[str],
        *,
        window: int = 0,
        stride: int = 0,
        advance: Callable[[int, int], None] | None = None,
    ) -> list[Score]:
        """Scores texts, each on its own, several rows at a time.

        Args:
          window: tokens that a row holds; 0: seq_len.
          stride: tokens from a window's begin to the next one's; 0: window. Shorter ones cost
            window / stride times as much.
          advance: told (rows scored, of how many).

        Raises:
          InputError: an empty text, a window or stride out of range, an encoder-decoder.
        """
        architecture = self._config.architecture
        require(
            architecture != "encoder_decoder",
            "model.architecture",
            architecture,
            "another one, or a context that its texts answer (--context)",
        )
        window, stride = self._checked(window, stride)
        masked = architecture == "encoder_only"
        encoded = [self._encode(text) for text in texts]
        make_rows = self._masked_rows if masked else self._causal_rows
        rows = [list(make_rows(tokens, window, stride)) for tokens in encoded]
        scored = iter(self._score([row for of_text in rows for row in of_text], advance))
        return [
            Score(
                log_likelihood=math.fsum(next(scored).log_likelihood for _ in of_text),
                tokens=len(tokens),
                bytes=len(text.encode()),
                window=window,
                stride=stride,
                measure="pseudo_log_likelihood" if masked else "log_likelihood",
            )
            for text, tokens, of_text in zip(texts, encoded, rows, strict=True)
        ]

    def log_likelihoods(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        advance: Callable[[int, int], None] | None = None,
    ) -> list[Continuation]:
        """log p(continuation | context) of (context, continuation) pairs.

        A decoder reads both as one text. The tokens that count are those of the whole after the
        context's, white space at the context's end among them, as in lm-evaluation-harness. Where
        the context's tokens are not the whole's first ones (`self` before `.x`, if `self.` is one
        token), the two are tokenized apart.

        An encoder reads the context, the decoder beside it the continuation; both may spell control
        symbols (sentinels). The context may be empty, and loses its begin where both are longer
        than seq_len.

        Raises:
          InputError: an empty continuation or one longer than seq_len, a model without a decoder.
        """
        encoded = [self._encode_pair(*pair) for pair in pairs]
        scored = self.score_tokens(encoded, advance=advance)
        return [
            Continuation(
                log_likelihood=score.log_likelihood,
                is_greedy=score.is_greedy,
                tokens=len(tokens),
                bytes=len(continuation.encode()),
            )
            for (_, continuation), (_, tokens), score in zip(pairs, encoded, scored, strict=True)
        ]

    def score_tokens(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        advance: Callable[[int, int], None] | None = None,
    ) -> list[RowScore]:
        """`log_likelihoods` of token ids, the context's with what stands around it.

        Raises:
          InputError: as `log_likelihoods`.
        """
        require(
            self._config.architecture != "encoder_only",
            "model.architecture",
            self._config.architecture,
            "a model with a decoder",
        )
        rows = []
        for context, continuation in pairs:
            require(bool(continuation), "continuation", "no token", "one or more")
            require(
                len(continuation) <= self.seq_len,
                "continuation",
                f"{len(continuation)} tokens",
                f"{self.seq_len} at most",
            )
            rows.append(self._pair_row(list(context), list(continuation)))
        return self._score(rows, advance)

    def _score(
        self, rows: Sequence[ScoredRow], advance: Callable[[int, int], None] | None
    ) -> list[RowScore]:
        def report(num_rows: int) -> None:
            if advance:
                advance(num_rows, len(rows))

        return score_rows(self._config, self._params, rows, advance=report)

    def _checked(self, window: int, stride: int) -> tuple[int, int]:
        window = window or self.seq_len
        around = len(self._format.encoder_before) + len(self._format.encoder_after)
        shortest = 1 + around if self._config.architecture == "encoder_only" else 1
        longest = self._places or window
        require(
            shortest <= window <= longest,
            "window",
            window,
            f"{shortest} or more tokens" + (f", {longest} at most" if self._places else ""),
        )
        stride = stride or window
        require(1 <= stride <= window, "stride", stride, f"1 to {window} (the window) tokens")
        return window, stride

    def _encode(self, text: str) -> list[int]:
        require(bool(text), "text", text, "some text")
        tokens = self._tokenizer.encode(text)
        require(bool(tokens), "text", text, "one that has a token")
        return tokens

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        require(bool(continuation), "continuation", continuation, "some text")
        if self._config.architecture == "encoder_decoder":
            f, encode = self._format, self._tokenizer.encode_with_symbols
            return [*f.encoder_before, *encode(context), *f.encoder_after], encode(continuation)
        encode = self._tokenizer.encode
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        head, whole = encode(stripped), encode(stripped + continuation)
        is_first = len(whole) > len(head) and whole[: len(head)] == head
        tail = whole[len(head) :] if is_first else encode(continuation)
        return [*self._format.before, *head], tail

    def _pair_row(self, context: list[int], continuation: list[int]) -> ScoredRow:
        if self._config.architecture == "encoder_decoder":
            return ScoredRow(
                inputs=[self._format.decoder_start, *continuation[:-1]],
                targets=continuation,
                first=0,
                stop=len(continuation),
                encoder_tokens=(context or [self._tokenizer.eos_id])[-self.seq_len :],
            )
        # Something must stand before the first token, or it would have no probability.
        context = context or [self._tokenizer.bos_id]
        kept = context[max(0, len(context) + len(continuation) - 1 - self.seq_len) :]
        return continuation_row(kept, continuation, context_is_prefix=self._prompt_is_prefix)

    def _causal_rows(self, tokens: list[int], window: int, stride: int) -> Iterator[ScoredRow]:
        """Windows of a text, each token counted in the first one it comes in."""
        before = list(self._format.before) or [self._tokenizer.bos_id]
        sequence = [*before, *tokens]
        counted = len(before) - 1
        for begin in range(0, len(sequence) - 1, stride):
            stop = min(begin + window, len(sequence) - 1)
            yield ScoredRow(
                inputs=sequence[begin:stop],
                targets=sequence[begin + 1 : stop + 1],
                first=counted - begin,
                stop=stop - begin,
            )
            counted = stop
            if stop == len(sequence) - 1:
                return

    def _masked_rows(self, tokens: list[int], window: int, stride: int) -> Iterator[ScoredRow]:
        """A row for each token, in which it is masked and everything else of its window shown."""
        mask_id = self._tokenizer.symbols.id_of(MASK)
        before, after = self._format.encoder_before, self._format.encoder_after
        room = window - len(before) - len(after)
        counted = 0
        for begin in range(0, len(tokens), min(stride, room)):
            stop = min(begin + room, len(tokens))
            targets = [*before, *tokens[begin:stop], *after]
            for place in range(counted - begin + len(before), stop - begin + len(before)):
                inputs = [*targets[:place], mask_id, *targets[place + 1 :]]
                yield ScoredRow(inputs=inputs, targets=targets, first=place, stop=place + 1)
            counted = stop
            if stop == len(tokens):
                return
