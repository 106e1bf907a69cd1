"""Control symbols: what objectives write between a text's tokens, by name and by group.

No text can produce them; a tokenizer gets them when it is trained. On the command line they go by
groups: `mask`, `fim`, `ul2`, `sentinels:100`.
"""

import re
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from configs.errors import InputError, require
from configs.objective_config import FIM_MARKERS, MASK, MODE_R, MODE_S, MODE_X, sentinel
from data.objectives.symbols import Symbols

MAX_SENTINELS = 2**14

_GROUPS = {"mask": (MASK,), "fim": FIM_MARKERS, "ul2": (MODE_R, MODE_S, MODE_X)}
_SENTINELS = re.compile(r"sentinels:(\d{1,9})")
_NUMBERED = re.compile(re.escape(sentinel(0)).replace("0", r"(\d+)"))
_CHOICES = f"{', '.join(_GROUPS)} or sentinels:NUMBER"

# What ends a sentence, and what may follow within its last token.
_FULL_STOPS = tuple(".!?…。！？｡؟।")
_CLOSERS = "\"'”’»)]}）」』"
_NAMED_AT_MOST = 3


def parse_symbols(groups: Iterable[str]) -> tuple[str, ...]:
    """The names in groups of control symbols, each once, in an order of our own.

    Example: ("sentinels:2", "mask") -> ("<mask>", "<extra_id_0>", "<extra_id_1>")

    Raises:
        InputError: a group there is not, or a number of sentinels out of range.
    """
    named, sentinels = set(), 0
    for group in groups:
        if match := _SENTINELS.fullmatch(group):
            sentinels = max(sentinels, int(match[1]))
            require(
                1 <= int(match[1]) <= MAX_SENTINELS,
                "symbols",
                group,
                f"sentinels:1 to sentinels:{MAX_SENTINELS}",
            )
        else:
            require(group in _GROUPS, "symbols", group, _CHOICES)
            named.add(group)
    names = [name for group, members in _GROUPS.items() if group in named for name in members]
    return (*names, *map(sentinel, range(sentinels)))


def symbol_groups(names: Collection[str]) -> tuple[str, ...]:
    """The groups that hold `names`: what `isoflop prepare --symbols` takes.

    Example: ("<extra_id_1>", "<mask>") -> ("mask", "sentinels:2")

    A name of no group is passed over.
    """
    groups = [group for group, members in _GROUPS.items() if set(members) & set(names)]
    numbers = [int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name))]
    return (*groups, *([f"sentinels:{max(numbers) + 1}"] if numbers else []))


def require_symbols(symbols: Symbols, names: Sequence[str], wanted_by: str) -> None:
    """Raises InputError, with the remedy, unless a tokenizer has all control symbols of `names`.

    Args:
        symbols: the tokenizer's.
        names: what is needed.
        wanted_by: who needs them, as the error calls it.
    """
    missing = [name for name in names if name not in symbols.ids]
    if missing:
        shown = ", ".join(missing[:_NAMED_AT_MOST])
        more = len(missing) - _NAMED_AT_MOST
        groups = " ".join(symbol_groups([*symbols.ids, *names]))
        raise InputError(
            f"tokenizer: got one without {shown}{f' and {more} more' if more > 0 else ''}, "
            f"expected one with the control symbols of {wanted_by} "
            f"(isoflop prepare SOURCE --out FOLDER --symbols {groups})"
        )


def make_symbols(
    texts: Sequence[str], *, specials: Collection[int], named: Collection[int]
) -> Symbols:
    """What objectives know of a tokenizer.

    Args:
        texts: what each id stands for, a space as a space; a byte that is not ASCII as "".
        specials: ids that stand for no text.
        named: those of them that are control symbols besides <pad>, <s> and </s>.
    """
    is_special = np.zeros(len(texts), bool)
    is_special[list(specials)] = True
    words = ["" if special else text for text, special in zip(texts, is_special, strict=True)]
    return Symbols(
        vocab_size=len(texts),
        is_special=is_special,
        starts_with_space=np.array([word[:1].isspace() for word in words]),
        ends_with_space=np.array([word[-1:].isspace() for word in words]),
        ends_sentence=np.array(list(map(_ends_sentence, words))),
        ids={texts[i]: i for i in sorted(named)},
    )


def _ends_sentence(text: str) -> bool:
    """Whether a piece ends with a full stop or the like, what closes quotes aside, or with a line:
    in code and lists a line is what a sentence is in prose."""
    return text.endswith("\n") or text.rstrip().rstrip(_CLOSERS).endswith(_FULL_STOPS)
