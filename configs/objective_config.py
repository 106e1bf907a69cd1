"""What a model is trained to do, and how long its examples are: the arithmetic, without any data.

`lengths(seq_len)` says how many tokens an objective takes for an example and how long both sides
of the example then are: the planner counts with it, packing cuts rows by it. `symbols(seq_len)`
names the control symbols that the tokenizer must have.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from configs.errors import require, require_positive
from configs.example_lengths import ExampleLengths
from configs.labelled_config import (
    InstructionTuningConfig,
    SequenceClassificationConfig,
    SequenceToSequenceConfig,
    TokenClassificationConfig,
)
from configs.model_config import Architecture

MASK = "<mask>"
FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX = "<fim_prefix>", "<fim_middle>", "<fim_suffix>"
FIM_MARKERS = (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)
MODE_R, MODE_S, MODE_X = "<R>", "<S>", "<X>"


class SpanCounts(NamedTuple):
    """Noise tokens of a text, and the spans they fall into."""

    noise: int
    spans: int


def sentinel(number: int) -> str:
    """The control symbol that stands for a document's span `number`, T5's name for it."""
    return f"<extra_id_{number}>"


def span_counts(num_tokens: int, density: float, mean_span: float) -> SpanCounts:
    """T5's: density · tokens, rounded half to even, in noise / mean_span spans, rounded likewise.

    At least one token is noise and one is not; no span is empty, nor what is between two.
    Example: 568 tokens at .15 and 3 have 85 noise tokens in 28 spans.

    Source: Raffel et al. 2020, arXiv 1910.10683; the released random_spans_noise_mask.
    """
    noise = min(max(round(num_tokens * density), 1), num_tokens - 1)
    spans = max(round(noise / mean_span), 1)
    return SpanCounts(noise, min(spans, noise, num_tokens - noise))


def _side_lengths(num_tokens: int, density: float, mean_span: float) -> tuple[int, int]:
    """Inputs and targets of one corrupted text: a sentinel a span, and </s> at both ends."""
    noise, spans = span_counts(num_tokens, density, mean_span)
    return num_tokens - noise + spans + 1, noise + spans + 1


def _most_tokens(seq_len: int, inputs: Callable[[int], int]) -> int:
    """The most tokens, at least 2, whose `inputs` are no longer than seq_len; inputs never shrink
    with tokens."""
    most = 2
    while inputs(2 * most) <= seq_len:
        most *= 2
    return max(2, most - 1 + bisect_right(range(most, 2 * most), seq_len, key=inputs))


def _require_density(field: str, density: float, mean_span: float) -> None:
    require(0 < density < 1, f"{field}.density", density, "a fraction between 0 and 1")
    require(mean_span >= 1, f"{field}.mean_span", mean_span, "1 or more tokens")


@dataclass(frozen=True, kw_only=True)
class CausalLMConfig:
    """Predict every token from those before it in its own document."""

    kind: Literal["causal_lm"] = "causal_lm"

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return ("decoder_only",)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        return ()

    def lengths(self, seq_len: int) -> ExampleLengths:
        return ExampleLengths(seq_len + 1, 1, seq_len)


@dataclass(frozen=True, kw_only=True)
class PrefixLMConfig:
    """Predict each document's end from its beginning, which is read in both directions.

    The place where a document is cut is drawn evenly (Raffel et al. 2020, section 3.2.1). In a
    decoder-only model the prefix's places see one another; an encoder-decoder has the prefix in
    the encoder.
    """

    kind: Literal["prefix_lm"] = "prefix_lm"
    architecture: Literal["decoder_only", "encoder_decoder"] = "decoder_only"

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return (self.architecture,)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        return ()

    def lengths(self, seq_len: int) -> ExampleLengths:
        if self.architecture == "decoder_only":
            return ExampleLengths(seq_len + 1, 1, seq_len, has_prefix=True)
        # Either side may hold almost all of a text, and </s> besides.
        return ExampleLengths(seq_len - 1, 0, seq_len, encoder_length=seq_len)


@dataclass(frozen=True, kw_only=True)
class FillInTheMiddleConfig:
    """Causal language modelling of documents of which some have their middle moved to the end.

    A document is rearranged with probability `rate`: prefix, suffix, middle (PSM), or with
    probability `spm_rate` suffix, prefix, middle (SPM, the paper's variant for joint training).
    At most `max_documents` of a row are; a row keeps three places for the markers of each.
    Bavarian et al. 2022, arXiv 2207.14255.
    """

    kind: Literal["fill_in_the_middle"] = "fill_in_the_middle"
    rate: float = 0.5
    spm_rate: float = 0.5
    max_documents: int = 4

    def __post_init__(self):
        for name in ("rate", "spm_rate"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"objective.{name}", value, "a fraction from 0 to 1")
        require_positive("objective", max_documents=self.max_documents)

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return ("decoder_only",)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        return FIM_MARKERS

    def lengths(self, seq_len: int) -> ExampleLengths:
        tokens = seq_len + 1 - len(FIM_MARKERS) * self.max_documents
        require(
            tokens >= 2, "objective.max_documents", self.max_documents, "fewer for so few seq_len"
        )
        return ExampleLengths(tokens, 1, seq_len)


@dataclass(frozen=True, kw_only=True)
class MaskedLMConfig:
    """Recover chosen tokens from everything around them (Devlin et al. 2019, arXiv 1810.04805).

    `mask_rate` of the tokens are chosen anew in every epoch (RoBERTa, arXiv 1907.11692); of those
    `mask_fraction` become <mask>, `random_fraction` a random token, the rest stay.
    `whole_words` chooses words instead of tokens.
    """

    kind: Literal["masked_lm"] = "masked_lm"
    mask_rate: float = 0.15
    mask_fraction: float = 0.8
    random_fraction: float = 0.1
    whole_words: bool = False

    def __post_init__(self):
        require(
            0 < self.mask_rate < 1,
            "objective.mask_rate",
            self.mask_rate,
            "a fraction between 0 and 1",
        )
        for name in ("mask_fraction", "random_fraction"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"objective.{name}", value, "a fraction from 0 to 1")
        require(
            self.mask_fraction + self.random_fraction <= 1,
            "objective.random_fraction",
            self.random_fraction,
            f"at most {1 - self.mask_fraction:g}: mask_fraction takes the rest",
        )

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return ("encoder_only",)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        return (MASK,)

    def lengths(self, seq_len: int) -> ExampleLengths:
        return ExampleLengths(seq_len, 0, seq_len)


@dataclass(frozen=True, kw_only=True)
class SpanCorruptionConfig:
    """T5's: spans of a text are replaced by sentinels, the decoder writes what they stood for.

    seq_len is the encoder's length. As many tokens are taken as fill it once corrupted: 568 for
    512, with targets of 114. Raffel et al. 2020, arXiv 1910.10683, section 3.1.4.
    """

    kind: Literal["span_corruption"] = "span_corruption"
    density: float = 0.15
    mean_span: float = 3.0

    def __post_init__(self):
        _require_density("objective", self.density, self.mean_span)

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return ("encoder_decoder",)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        spans = span_counts(self.lengths(seq_len).tokens, self.density, self.mean_span).spans
        return tuple(map(sentinel, range(spans)))

    def lengths(self, seq_len: int) -> ExampleLengths:
        tokens = _most_tokens(
            seq_len, lambda size: _side_lengths(size, self.density, self.mean_span)[0]
        )
        inputs, targets = _side_lengths(tokens, self.density, self.mean_span)
        if self.density == 0.5 and targets > inputs:  # as T5: both sides equally long
            tokens, targets = tokens - 1, targets - 1
        require(inputs <= seq_len, "data.seq_len", seq_len, f"{inputs} or more tokens")
        return ExampleLengths(tokens, 0, targets, encoder_length=seq_len)


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig:
    """BART's: the decoder writes the whole text, of which the encoder sees a damaged one.

    Text infilling: spans of Poisson(`mean_span`) length, together `mask_rate` of the tokens, each
    become one <mask> (a span of length 0 inserts one). `permute_sentences`: sentences in random
    order. Lewis et al. 2019, arXiv 1910.13461, section 2.2.
    """

    kind: Literal["denoising"] = "denoising"
    mask_rate: float = 0.3
    mean_span: float = 3.0
    permute_sentences: bool = True

    def __post_init__(self):
        require(
            0 < self.mask_rate < 1,
            "objective.mask_rate",
            self.mask_rate,
            "a fraction between 0 and 1",
        )
        require_positive("objective", mean_span=self.mean_span)

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return ("encoder_decoder",)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        return (MASK,)

    def lengths(self, seq_len: int) -> ExampleLengths:
        return ExampleLengths(seq_len - 1, 0, seq_len, encoder_length=seq_len)


class Denoiser(NamedTuple):
    """One of UL2's: its mode token, and its noise; mean_span 0: the text's end is the noise."""

    mode: str
    density: float
    mean_span: float


# Tay et al. 2022, arXiv 2205.05131, section 3.1 and table 1.
UL2_DENOISERS = (
    Denoiser(MODE_R, 0.15, 3.0),
    Denoiser(MODE_R, 0.15, 8.0),
    Denoiser(MODE_S, 0.25, 0.0),
    Denoiser(MODE_X, 0.5, 3.0),
    Denoiser(MODE_X, 0.5, 8.0),
    Denoiser(MODE_X, 0.15, 64.0),
    Denoiser(MODE_X, 0.5, 64.0),
)


@dataclass(frozen=True, kw_only=True)
class UL2Config:
    """UL2's mixture of denoisers, told apart by a mode token (Tay et al. 2022, arXiv 2205.05131).

    R: usual spans; X: long spans or many; S: a text's end, a quarter of it on average. Each row
    draws one of the seven of the paper's table 1, all alike. seq_len is the encoder's length.
    """

    kind: Literal["ul2"] = "ul2"

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return ("encoder_decoder",)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        tokens = self.lengths(seq_len).tokens
        spans = max(
            span_counts(tokens, d.density, d.mean_span or tokens).spans for d in UL2_DENOISERS
        )
        return (MODE_R, MODE_S, MODE_X, *map(sentinel, range(spans)))

    def lengths(self, seq_len: int) -> ExampleLengths:
        tokens = _most_tokens(seq_len, lambda size: self._longest(size)[0])
        inputs, targets = self._longest(tokens)
        require(inputs <= seq_len, "data.seq_len", seq_len, f"{inputs} or more tokens")
        return ExampleLengths(tokens, 0, targets, encoder_length=seq_len)

    def _longest(self, tokens: int) -> tuple[int, int]:
        """The longest inputs, mode token included, and targets that a denoiser makes of a text."""
        sides = [_side_lengths(tokens, d.density, d.mean_span or tokens) for d in UL2_DENOISERS]
        return 1 + max(inputs for inputs, _ in sides), max(targets for _, targets in sides)


ObjectiveConfig = (
    CausalLMConfig
    | PrefixLMConfig
    | FillInTheMiddleConfig
    | MaskedLMConfig
    | SpanCorruptionConfig
    | DenoisingConfig
    | UL2Config
    | SequenceClassificationConfig
    | TokenClassificationConfig
    | SequenceToSequenceConfig
    | InstructionTuningConfig
)
