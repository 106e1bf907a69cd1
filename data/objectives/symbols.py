"""What objectives know of a tokenizer: which ids are special, and where words and sentences end."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from configs.errors import InputError


class Symbols(NamedTuple):
    """A tokenizer's ids as an objective sees them.

    Attributes:
        vocab_size: V, ids that a text may have, those of specials and symbols included.
        is_special: bool [V]; <pad>, <unk>, <s>, </s> and every control symbol: never noise.
        starts_with_space, ends_with_space: bool [V]; whether the piece begins or ends with
            whitespace.
        ends_sentence: bool [V]; whether a sentence may end after the piece.
        ids: name of a control symbol -> its id.
    """

    vocab_size: int
    is_special: np.ndarray
    starts_with_space: np.ndarray
    ends_with_space: np.ndarray
    ends_sentence: np.ndarray
    ids: Mapping[str, int]

    def id_of(self, name: str) -> int:
        """The id of a control symbol. Raises InputError if the tokenizer has none of the name."""
        if name not in self.ids:
            raise InputError(
                f"tokenizer: got none with the control symbol {name}, expected one prepared for "
                "this objective (isoflop prepare --symbols)"
            )
        return self.ids[name]
