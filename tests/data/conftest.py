"""A small source, its corpus, and a stream in memory."""

import random

import numpy as np
import pytest

from data.corpus import prepare_corpus
from data.sources import Document

# What breaks tokenizers: control characters, specials spelled out, SentencePiece's own space mark,
# combining marks, joiners, surrogate-range neighbours, every kind of line end.
NASTY_TEXTS = [
    "",
    " ",
    "    indented\n\tand tabbed\t\n",
    "trailing   \n\n\n",
    "\r\n mixed \r ends \u2028\u2029\x85",
    "\x00\x01\x7f\x80",
    "<s></s><pad><unk><0x41>",
    "a\u2581b \u2581\u2581 \u2581",
    "\u2047 unknown \ufffd",
    "e\u0301 \u00e9 \ufeff\u200b\u200d",
    "\U0001f469\u200d\U0001f4bb \U0010ffff \ud7ff\ue000",
    "日本語 العربية हिन्दी",
    "x" * 5000,
    " " * 3000,
]


class ListSource:
    """Documents from a list; those whose id starts with "held" are held out."""

    name = "list"

    def __init__(self, documents: list[Document]):
        self._documents = documents

    def documents(self):
        return iter(self._documents)

    def is_held_out(self, document_id: str) -> bool:
        return document_id.startswith("held")

    def describe(self) -> dict[str, str]:
        return {"kind": "list"}


class ArrayStream:
    """A circular token stream in memory."""

    def __init__(self, tokens, starts):
        self._tokens, self._starts = np.asarray(tokens, np.int32), np.asarray(starts, bool)

    @property
    def num_tokens(self) -> int:
        return len(self._tokens)

    def read(self, start: int, length: int):
        index = (start + np.arange(length)) % len(self._tokens)
        return self._tokens[index], self._starts[index]


def sentences(count: int, seed: int) -> str:
    words = "the of model token data row batch seed value self return def import None".split()
    rng = random.Random(seed)
    return "\n".join(
        " ".join(rng.choices(words, k=8)) + f" {rng.randrange(10**6)}" for _ in range(count)
    )


def make_source(num_train: int = 30, lines: int = 60) -> ListSource:
    train = [Document(f"train/{i}", sentences(lines, seed=i)) for i in range(num_train)]
    nasty = [Document(f"train/nasty{i}", t) for i, t in enumerate(NASTY_TEXTS) if t.strip()]
    held = [Document(f"held/{i}", sentences(5 + 4 * i, seed=1000 + i)) for i in range(5)]
    return ListSource([*train, *nasty, *held, Document("held/nasty", "".join(NASTY_TEXTS))])


@pytest.fixture(scope="session")
def source():
    return make_source()


@pytest.fixture(scope="session")
def corpus(source, tmp_path_factory):
    return prepare_corpus(source, tmp_path_factory.mktemp("corpus"), vocab_size=600, seed=3)


@pytest.fixture(scope="session")
def nasty_texts():
    return NASTY_TEXTS


@pytest.fixture(scope="session")
def array_stream():
    """Builds an in-memory stream from document lengths; tokens are their own offsets."""

    def build(lengths: list[int]) -> ArrayStream:
        starts = np.zeros(sum(lengths), bool)
        starts[np.cumsum([0, *lengths[:-1]])] = True
        return ArrayStream(np.arange(sum(lengths)), starts)

    return build
