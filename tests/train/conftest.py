"""A small corpus of text files."""

import random
from pathlib import Path

import pytest

from data.control_symbols import parse_symbols
from data.corpus import Corpus
from data.prepare import Preparation, prepare_corpus
from data.sources.text_files import TextFilesSource

VOCAB_SIZE = 320


def write_texts(folder: Path, num_files: int = 24) -> None:
    """Files of a few hundred words each, some of them beyond ASCII."""
    words = "the of model token data row batch seed naïve Straße value 数 self return None".split()
    rng = random.Random(0)
    for number in range(num_files):
        lines = [" ".join(rng.choices(words, k=9)) for _ in range(4 + number)]
        (folder / f"{number:02}.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Corpus:
    texts = tmp_path_factory.mktemp("texts")
    write_texts(texts)
    out = tmp_path_factory.mktemp("corpus")
    return prepare_corpus(TextFilesSource(str(texts)), out, Preparation(vocab_size=VOCAB_SIZE))


@pytest.fixture(scope="session")
def corpus_with_symbols(tmp_path_factory) -> Corpus:
    """The same texts under a tokenizer with <mask> and eight sentinels."""
    texts = tmp_path_factory.mktemp("texts_with_symbols")
    write_texts(texts)
    symbols = parse_symbols(("mask", "sentinels:8"))
    preparation = Preparation(vocab_size=VOCAB_SIZE, symbols=symbols)
    out = tmp_path_factory.mktemp("corpus_with_symbols")
    return prepare_corpus(TextFilesSource(str(texts)), out, preparation)
