"""Prompts and outputs in which control symbols are spelled by name: `x = <mask>`, sentinels."""

from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import require
from configs.model_config import ModelConfig
from configs.position_config import LearnedPositionConfig
from data.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """Ids that stand around a text, and what a decoder begins and ends with.

    before, after: around a decoder's prompt (after is usually empty). encoder_before,
    encoder_after: around an encoder's text. decoder_start: what a decoder beside an encoder begins
    with. eos_ids: tokens that end a text. pad_id: fills rows; it is masked.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    encoder_before: tuple[int, ...] = ()
    encoder_after: tuple[int, ...] = ()
    decoder_start: int
    eos_ids: tuple[int, ...]
    pad_id: int

    @classmethod
    def of(cls, config: ModelConfig, tokenizer: Tokenizer) -> "PromptFormat":
        """As in our own training: <s> before a decoder's text, <s> and </s> around an encoder's,
        </s> after that of an encoder beside a decoder."""
        bos, eos = (tokenizer.bos_id,), (tokenizer.eos_id,)
        return cls(
            before=bos,
            encoder_before=() if config.architecture == "encoder_decoder" else bos,
            encoder_after=eos,
            decoder_start=tokenizer.bos_id,
            eos_ids=eos,
            pad_id=tokenizer.pad_id,
        )


def require_places(config: ModelConfig, num_tokens: int, context: int | None = None) -> None:
    """Raises InputError for a prompt of more tokens than the context, or than a learned table of
    positions has rows for; without a context (None) the table alone counts."""
    places = min((n for n in (num_places(config), context) if n is not None), default=None)
    if places is not None:
        require(num_tokens <= places, "prompt", f"{num_tokens} tokens", f"{places} at most")


def num_places(config: ModelConfig) -> int | None:
    """Tokens that a learned table of positions has rows for; None where there is no such end."""
    if not isinstance(config.position, LearnedPositionConfig):
        return None
    return config.position.num_positions - config.position.offset


def decode_with_symbols(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids, control symbols by their names."""
    name_of = {number: name for name, number in tokenizer.symbols.ids.items()}
    text, pending = "", []
    for number in [*ids, None]:
        if number is None or number in name_of:
            text += tokenizer.decode(pending)
            text += name_of.get(number, "") if number is not None else ""
            pending = []
        else:
            pending.append(number)
    return text
