"""Tasks that only the prompt can teach: their words are drawn at random.

    copy       "line key path -> line key path"      the answer among orders of the same words
    reverse    "line key path -> path key line"      the same choices: shots say which rule it is
    induction  "line key path self key path"         what followed the last word before
    mapping    "line self", "path key", …, "line"    what the same word went with in the shots

The last is answered by no model at 0 shots; k shots show its pair with probability 1 − (1 − 1/n)^k.
Induction heads (Olsson et al. 2022, arXiv 2209.11895) answer the last two. Shots of the others have
other words than the question.

Words are frequent in Python source, so that tokenizers trained on it have a piece for each.
"""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np

WORDS = (
    *("self", "name", "line", "file", "data", "path", "value", "type", "list", "text", "code"),
    *("module", "string", "index", "size", "key", "item", "class", "node", "state", "result"),
    *("return", "error", "read", "write", "open", "test", "time", "start", "end", "call"),
    *("args", "format", "width", "output", "message", "option", "dict", "method", "base"),
    *("source", "level", "match", "mode", "address", "char", "token", "parent", "header"),
)
_MAX_CHOICES = 4

Record = dict[str, Any]


def copy(
    *, seed: int = 0, count: int = 200, num_words: int = 3, num_shots: int = 64
) -> list[Record]:
    """`num_words` words and the same again.

    Example: {"input": "line key path", "target": "line key path", "choices": [4 orders],
      "shots": [{"input": "self node code", "target": "self node code"}, …]}.
    """

    def draw(rng: np.random.Generator, words: Sequence[str]) -> Record:
        return _reordered(rng, _some(rng, words, num_words), range(num_words))

    return [_with_shots(rng, draw, num_shots) for rng in _generators("copy", seed, count)]


def reverse(
    *, seed: int = 0, count: int = 200, num_words: int = 3, num_shots: int = 64
) -> list[Record]:
    """`num_words` words and the same backwards.

    Example: {"input": "line key path", "target": "path key line", "choices": [4 orders],
      "shots": [{"input": "self node code", "target": "code node self"}, …]}.
    """

    def draw(rng: np.random.Generator, words: Sequence[str]) -> Record:
        return _reordered(rng, _some(rng, words, num_words), range(num_words - 1, -1, -1))

    return [_with_shots(rng, draw, num_shots) for rng in _generators("reverse", seed, count)]


def induction(
    *, seed: int = 0, count: int = 200, num_words: int = 4, num_shots: int = 64
) -> list[Record]:
    """`num_words` different words, one of them again, and what followed it.

    Example: {"input": "line key path self key", "target": "path", "choices": [the 4 words],
      "shots": [{"input": "node code item args item", "target": "args"}, …]}.
    """

    def draw(rng: np.random.Generator, words: Sequence[str]) -> Record:
        chosen = _some(rng, words, num_words)
        place = int(rng.integers(max(1, num_words - 1)))
        return {
            "input": " ".join([*chosen, chosen[place]]),
            "target": chosen[(place + 1) % num_words],
            "choices": _some(rng, chosen, num_words),
        }

    return [_with_shots(rng, draw, num_shots) for rng in _generators("induction", seed, count)]


def mapping(
    *, seed: int = 0, count: int = 200, num_pairs: int = 4, num_shots: int = 64
) -> list[Record]:
    """A word and the word it goes with, in a mapping of `num_pairs` words drawn for each example.

    Its shots are pairs of the same mapping, drawn with replacement, the one asked for among them.

    Example: {"input": "line", "target": "self", "choices": ["key", "self", "mode", "node"],
      "shots": [{"input": "path", "target": "key"}, {"input": "line", "target": "self"}, …]}.
    """
    records = []
    for rng in _generators("mapping", seed, count):
        words = _some(rng, WORDS, 2 * num_pairs)
        pairs = [
            {"input": key, "target": value}
            for key, value in zip(words[:num_pairs], words[num_pairs:], strict=True)
        ]
        asked = pairs[int(rng.integers(num_pairs))]
        choices = [words[num_pairs + i] for i in rng.permutation(num_pairs)]
        shots = [pairs[i] for i in rng.integers(num_pairs, size=num_shots)]
        records.append({**asked, "choices": choices, "shots": shots})
    return records


def _generators(probe: str, seed: int, count: int) -> list[np.random.Generator]:
    """One an example, so that fewer examples are the first of more."""
    return [np.random.default_rng([seed, number, *probe.encode()]) for number in range(count)]


def _some(rng: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
    chosen = rng.choice(len(words), count, replace=count > len(words))
    return [words[int(i)] for i in chosen]


def _with_shots(
    rng: np.random.Generator,
    draw: Callable[[np.random.Generator, Sequence[str]], Record],
    num_shots: int,
) -> Record:
    """A question and shots that have none of its words: what stood beside them there would mislead
    whoever looks the words up."""
    record = draw(rng, WORDS)
    others = [word for word in WORDS if word not in record["input"].split()]
    shots = [draw(rng, others) for _ in range(num_shots)]
    return record | {"shots": [{key: shot[key] for key in ("input", "target")} for shot in shots]}


def _reordered(rng: np.random.Generator, words: Sequence[str], order: range) -> Record:
    """Words, and as target the words in `order`.

    Both forwards and backwards are among the choices, whichever is right: no choice is nearer to
    the words' order by how it was drawn.
    """
    num_words = len(words)
    forwards, backwards = tuple(range(num_words)), tuple(range(num_words - 1, -1, -1))
    others = [o for o in permutations(range(num_words)) if o not in (forwards, backwards)]
    drawn = [others[int(i)] for i in rng.permutation(len(others))[: _MAX_CHOICES - 2]]
    orders = [forwards, backwards, *drawn]
    return {
        "input": " ".join(words),
        "target": " ".join(words[place] for place in order),
        "choices": [
            " ".join(words[i] for i in orders[int(j)]) for j in rng.permutation(len(orders))
        ],
    }
