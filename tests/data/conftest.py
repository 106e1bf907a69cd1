"""A small source, its corpus, and a stream in memory."""

import random
from dataclasses import replace

import numpy as np
import pytest

from configs.data_config import DataConfig
from configs.model_config import (
    LinearHeadConfig,
    ModelConfig,
    SequenceClassificationHeadConfig,
    TokenClassificationHeadConfig,
)
from configs.schema import RunConfig
from data.control_symbols import parse_symbols
from data.prepare import Preparation, prepare_corpus
from data.sources import Document, Problems

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


class ListShard:
    """Documents from a list, as (id, text)."""

    name = "list"

    def __init__(self, documents: list[tuple[str, str]]):
        self._documents = documents

    def documents(self, problems: Problems):
        for name, text in self._documents:
            if text.strip():
                yield Document(name, text.encode())


class ListSource:
    """Documents from a list; those whose id starts with "held" are held out."""

    kind = "list"

    def __init__(self, documents: list[tuple[str, str]], *, num_shards: int = 1, pinned=True):
        self._documents, self._num_shards = documents, num_shards
        held_out = frozenset(name for name, _ in documents if name.startswith("held"))
        self.pinned_held_out = held_out if pinned else None

    def shards(self):
        bounds = [len(self._documents) * i // self._num_shards for i in range(self._num_shards + 1)]
        return [ListShard(self._documents[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]

    def size_bytes(self) -> int:
        return sum(len(text.encode()) for _, text in self._documents)

    def signature(self) -> None:
        return None

    def describe(self) -> dict[str, str]:
        return {"kind": "list"}


class ArrayStream:
    """A circular token stream in memory."""

    def __init__(self, tokens, starts):
        self._tokens, self._starts = np.asarray(tokens, np.int32), np.asarray(starts, bool)

    @property
    def num_tokens(self) -> int:
        return len(self._tokens)

    @property
    def num_documents(self) -> int:
        return int(self._starts.sum())

    def read(self, start: int, length: int):
        index = (start + np.arange(length)) % len(self._tokens)
        return self._tokens[index], self._starts[index]

    def document_starts(self, start: int, stop: int):
        index = np.arange(start, stop)
        return index[self._starts[index % len(self._tokens)]]

    def document_offset(self, offset: int) -> int:
        offset %= len(self._tokens)
        return offset - int(np.flatnonzero(self._starts[: offset + 1])[-1])

    def document_start(self, number: int) -> int:
        return int(np.flatnonzero(self._starts)[number])


def sentences(count: int, seed: int) -> str:
    words = "the of model token data row batch seed value self return def import None".split()
    rng = random.Random(seed)
    return "\n".join(
        " ".join(rng.choices(words, k=8)) + f" {rng.randrange(10**6)}" for _ in range(count)
    )


def make_source(num_train: int = 30, lines: int = 60) -> ListSource:
    train = [(f"train/{i}", sentences(lines, seed=i)) for i in range(num_train)]
    nasty = [(f"train/nasty{i}", t) for i, t in enumerate(NASTY_TEXTS) if t.strip()]
    held = [(f"held/{i}", sentences(5 + 4 * i, seed=1000 + i)) for i in range(5)]
    return ListSource([*train, *nasty, *held, ("held/nasty", "".join(NASTY_TEXTS))])


@pytest.fixture(scope="session")
def source():
    return make_source()


@pytest.fixture(scope="session")
def corpus(source, tmp_path_factory):
    preparation = Preparation(vocab_size=600, seed=3)
    return prepare_corpus(source, tmp_path_factory.mktemp("corpus"), preparation)


ALL_SYMBOLS = parse_symbols(["mask", "fim", "ul2", "sentinels:40"])


@pytest.fixture(scope="session")
def symbol_corpus(source, tmp_path_factory):
    """A corpus whose tokenizer has the control symbols of every objective."""
    preparation = Preparation(vocab_size=650, seed=3, symbols=ALL_SYMBOLS)
    return prepare_corpus(source, tmp_path_factory.mktemp("symbols"), preparation)


def objective_run(objective, data: DataConfig, corpus) -> RunConfig:
    """A run of an objective on a corpus; nothing of its model counts here but the architecture."""
    architecture = objective.architectures[0]
    heads = {
        "sequence_classification": SequenceClassificationHeadConfig(num_labels=5),
        "token_classification": TokenClassificationHeadConfig(num_labels=5),
    }
    model = ModelConfig(
        architecture=architecture,
        head=heads.get(objective.kind, LinearHeadConfig()),
        vocab_size=corpus.tokenizer.vocab_size,
        num_encoder_layers=2 if architecture == "encoder_decoder" else 0,
    )
    return RunConfig(model=model, objective=objective, data=replace(data, corpus=str(corpus.path)))


@pytest.fixture(scope="session")
def nasty_texts():
    return NASTY_TEXTS


def build_stream(lengths: list[int]) -> ArrayStream:
    """An in-memory stream of documents of these lengths; tokens are their own offsets."""
    starts = np.zeros(sum(lengths), bool)
    starts[np.cumsum([0, *lengths[:-1]])] = True
    return ArrayStream(np.arange(sum(lengths)), starts)


@pytest.fixture(scope="session")
def array_stream():
    return build_stream
