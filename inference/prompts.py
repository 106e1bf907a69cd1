"""Prompts and outputs in which control symbols are spelled by name: `x = <mask>`, sentinels."""

import re
from collections.abc import Sequence

from configs.errors import require
from configs.model_config import ModelConfig
from configs.position_config import LearnedPositionConfig
from data.tokenizer import Tokenizer


def require_places(config: ModelConfig, num_tokens: int) -> None:
    """Raises InputError where a learned table of positions ends before a prompt's tokens do."""
    places = num_places(config)
    if places is not None:
        require(num_tokens <= places, "prompt", f"{num_tokens} tokens", f"{places} at most")


def num_places(config: ModelConfig) -> int | None:
    """Tokens that a learned table of positions has rows for; None where there is no such end."""
    if not isinstance(config.position, LearnedPositionConfig):
        return None
    return config.position.num_positions - config.position.offset


def encode_with_symbols(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text in which the names of control symbols stand for the symbols."""
    names = tokenizer.symbols.ids
    if not names:
        return tokenizer.encode(text)
    ids: list[int] = []
    for part in re.split(f"({'|'.join(map(re.escape, names))})", text):
        ids += [names[part]] if part in names else tokenizer.encode(part)
    return ids


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
