"""Control symbols are part of what makes a corpus the same."""

import json

import pytest

from configs.errors import InputError
from data.corpus import open_corpus
from data.prepare import OtherCorpusError, Preparation, prepare_corpus
from tests.data.conftest import ALL_SYMBOLS


def test_a_corpus_has_the_symbols_it_was_prepared_with(symbol_corpus):
    assert tuple(symbol_corpus.tokenizer.symbols.ids) == ALL_SYMBOLS
    assert symbol_corpus.card["recipe"]["symbols"] == list(ALL_SYMBOLS)
    assert "650 pieces, with mask fim ul2 sentinels:40, sha256" in (
        symbol_corpus.path / "corpus.md"
    ).read_text("utf-8")
    special = symbol_corpus.tokenizer.symbols.is_special
    for split in ("train", "held_out"):
        for document in symbol_corpus.documents(split):
            assert not special[document.tokens].any()


def test_the_same_symbols_are_the_same_corpus_and_others_are_not(symbol_corpus, source):
    def prepared(*symbols: str):
        preparation = Preparation(vocab_size=650, seed=3, symbols=symbols)
        return prepare_corpus(source, symbol_corpus.path, preparation)

    assert prepared(*ALL_SYMBOLS).sha == symbol_corpus.sha
    for symbols in ((), ("<mask>",)):
        with pytest.raises(OtherCorpusError, match="symbols"):
            prepared(*symbols)


def test_a_corpus_without_symbols_does_not_mention_them(corpus):
    assert "symbols" not in corpus.card["recipe"]
    assert ", with" not in (corpus.path / "corpus.md").read_text("utf-8")


def test_a_tokenizer_brings_its_symbols_along(symbol_corpus, source, tmp_path):
    given = symbol_corpus.tokenizer
    made = prepare_corpus(
        source, tmp_path / "a", Preparation(vocab_size=1, tokenizer=given, symbols=("<mask>",))
    )
    assert made.card["recipe"]["symbols"] == list(ALL_SYMBOLS)
    again = prepare_corpus(source, tmp_path / "a", Preparation(vocab_size=1, tokenizer=given))
    assert again.sha == made.sha == open_corpus(tmp_path / "a").sha
    assert json.loads((tmp_path / "a" / "corpus.json").read_text())["vocab_size"] == 650


def test_a_tokenizer_that_lacks_a_symbol_is_refused(corpus):
    with pytest.raises(InputError, match="^tokenizer: got one without <mask>, expected"):
        Preparation(vocab_size=1, tokenizer=corpus.tokenizer, symbols=("<mask>",))
