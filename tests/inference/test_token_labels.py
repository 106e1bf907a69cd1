"""Tokens as they read: whitespace to be seen, specials and bytes by name, kinds of Python."""

import random

import pytest

from data.tokenizer import train_tokenizer
from inference.token_labels import ordinary_ids, token_kind, token_label, token_labels


@pytest.fixture(scope="module")
def words():
    # Parts in random order, so that the pieces learned are the parts.
    parts = [" name", " return", "42", "self.", "(", "    ", "\n", "\t", " = "]
    text = "".join(random.Random(0).choices(parts, k=3000))
    return train_tokenizer([text], 300, seed=0, symbols=("<mask>",))


def test_a_text_reads_the_same_with_its_whitespace_to_be_seen(words):
    text = "    return self.value\n\tx = 42"
    labels = token_labels(words, words.encode(text))
    assert "".join(labels) == text.replace(" ", "·").replace("\n", "↵").replace("\t", "→")
    assert len(labels) > 3


def test_specials_and_bytes_go_by_their_names(words):
    specials = [words.bos_id, words.eos_id, words.symbols.id_of("<mask>")]
    assert token_labels(words, specials) == ["<s>", "</s>", "<mask>"]
    assert {token_kind(words, token) for token in specials} == {"special"}
    of_a_character = words.encode("漢")
    assert [token_label(words, token) for token in of_a_character][-3:] == [
        f"<0x{byte:02X}>" for byte in "漢".encode()
    ]
    assert token_kind(words, of_a_character[-1]) == "byte"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (" name", "identifier"),
        (" return", "keyword"),
        ("42", "number"),
        ("(", "punctuation"),
        ("\n", "whitespace"),
        ("    ", "whitespace"),
        ("self.", "mixed"),
    ],
)
def test_kinds_are_those_of_pythons_grammar(text, kind, words):
    ids = {words.decode([token]): token for token in range(words.vocab_size)}
    assert text in ids, f"the vocabulary has no such piece: {sorted(ids)}"
    assert token_kind(words, ids[text]) == kind


def test_ordinary_ids_are_neither_special_nor_bytes(words):
    ids = ordinary_ids(words)
    kinds = {token_kind(words, token) for token in ids.tolist()}
    assert not kinds & {"special", "byte"}
    assert len(ids) == words.vocab_size - 256 - 4 - 1
