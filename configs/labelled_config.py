"""Objectives on labelled text: what a pretrained model is adapted to.

A labelled document is `<s> text </s> answer </s>`, as data/labelled_corpus.py writes it; the answer
is a label, a label for each token, or another text. Part of configs/objective_config.py, in a file
of its own for its length.
"""

from dataclasses import dataclass
from typing import Literal

from configs.errors import require, require_positive
from configs.example_lengths import ExampleLengths
from configs.model_config import Architecture

# <s> and both </s> of a labelled document.
LABELLED_SPECIALS = 3


@dataclass(frozen=True, kw_only=True)
class SequenceClassificationConfig:
    """Name the class of a whole text, at one place of it.

    An encoder answers at <s>, as BERT does at [CLS] (Devlin et al. 2019, arXiv 1810.04805, section
    3); a decoder at the </s> that ends the text, where it has seen all of it (Radford et al. 2018,
    section 3.3).
    """

    kind: Literal["sequence_classification"] = "sequence_classification"
    architecture: Literal["encoder_only", "decoder_only"] = "encoder_only"

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return (self.architecture,)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        return ()

    def lengths(self, seq_len: int) -> ExampleLengths:
        # The label and its </s> are taken too, but are no places of the example.
        return ExampleLengths(seq_len, 0, seq_len)


@dataclass(frozen=True, kw_only=True)
class TokenClassificationConfig:
    """Name the class of every token: named entities and the like, under the BIO scheme.

    A document of n tokens takes 2n + 3, its labels included, and fills n + 2 places. A sixteenth
    of a row is left free, so that many short documents find room: each has one token fewer than
    twice its places.
    """

    kind: Literal["token_classification"] = "token_classification"

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return ("encoder_only",)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        return ()

    def lengths(self, seq_len: int) -> ExampleLengths:
        require(seq_len >= LABELLED_SPECIALS, "data.seq_len", seq_len, "3 or more tokens")
        return ExampleLengths(2 * seq_len - max(1, seq_len // 16), 0, seq_len)


@dataclass(frozen=True, kw_only=True)
class SequenceToSequenceConfig:
    """Write one text from another: the encoder reads it, the decoder is trained to write.

    seq_len is the encoder's length, and what a labelled document may take in all; `target_tokens`
    is the decoder's, </s> included, or seq_len where that is less.
    """

    kind: Literal["sequence_to_sequence"] = "sequence_to_sequence"
    target_tokens: int = 64

    def __post_init__(self):
        require_positive("objective", target_tokens=self.target_tokens)

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return ("encoder_decoder",)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        return ()

    def lengths(self, seq_len: int) -> ExampleLengths:
        length = min(self.target_tokens, seq_len)
        return ExampleLengths(seq_len, 0, length, encoder_length=seq_len)


@dataclass(frozen=True, kw_only=True)
class InstructionTuningConfig:
    """Continue a prompt with its answer: causal language modelling with loss on the answer only.

    Ouyang et al. 2022, arXiv 2203.02155, section 3.4 (the supervised step). Nothing stands between
    prompt and answer: the prompt's template says where it ends.
    """

    kind: Literal["instruction_tuning"] = "instruction_tuning"

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return ("decoder_only",)

    def symbols(self, seq_len: int) -> tuple[str, ...]:
        return ()

    def lengths(self, seq_len: int) -> ExampleLengths:
        # The </s> between prompt and answer is taken, but is no place of the example.
        return ExampleLengths(seq_len + 1, 0, seq_len)


LabelledConfig = (
    SequenceClassificationConfig
    | TokenClassificationConfig
    | SequenceToSequenceConfig
    | InstructionTuningConfig
)
