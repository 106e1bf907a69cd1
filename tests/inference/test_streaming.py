"""Streamed pieces add up to the text, come in whole characters, and end at a stop string."""

import random

import pytest

from configs.errors import InputError
from inference.streaming import TextStream

TEXT = 'def f(é):\n    return \'漢🎉\' + """x"""\n'


def streamed(tokenizer, tokens, stop=()) -> tuple[TextStream, list[str]]:
    stream, pieces = TextStream(tokenizer.decode, stop), []
    for token in tokens:
        pieces.append(stream.add(token))
        if stream.has_stopped:
            break
    pieces.append(stream.end())
    return stream, pieces


def test_pieces_add_up_to_the_text_and_cut_no_character(tokenizer):
    stream, pieces = streamed(tokenizer, tokenizer.encode(TEXT))
    assert "".join(pieces) == stream.text == TEXT
    assert len([piece for piece in pieces if piece]) > 10
    assert not any("\ufffd" in piece for piece in pieces)


def test_pieces_of_any_tokens_add_up_to_their_text(tokenizer):
    rng = random.Random(0)
    for _ in range(20):
        tokens = [rng.randrange(4, tokenizer.vocab_size) for _ in range(40)]
        stream, pieces = streamed(tokenizer, tokens)
        assert "".join(pieces) == stream.text == tokenizer.decode(tokens)


@pytest.mark.parametrize("stop", ["return", "n '", "漢", ":\n    r", '"""', "\n", "d"])
def test_a_text_ends_before_the_first_stop_string(tokenizer, stop):
    stream, pieces = streamed(tokenizer, tokenizer.encode(TEXT), (stop, "never"))
    assert stream.has_stopped
    assert "".join(pieces) == stream.text == TEXT[: TEXT.index(stop)]


def test_what_might_have_become_a_stop_string_comes_when_it_did_not(tokenizer):
    stream, pieces = streamed(tokenizer, tokenizer.encode(TEXT), ("return 'x", "\n\n"))
    assert not stream.has_stopped
    assert "".join(pieces) == stream.text == TEXT
    held = next(piece for piece in pieces if "return" in piece)
    assert held.startswith("return '漢"[:7])


def test_the_earliest_of_several_stop_strings_counts(tokenizer):
    stream, _ = streamed(tokenizer, tokenizer.encode(TEXT), ("turn", "return", "retu"))
    assert stream.text == TEXT[: TEXT.index("return")]


def test_only_a_few_tokens_are_decoded_for_each(tokenizer):
    sizes = []

    def decode(ids):
        sizes.append(len(ids))
        return tokenizer.decode(ids)

    stream = TextStream(decode)
    tokens = tokenizer.encode("x = y + 1\n" * 200)
    for token in tokens:
        stream.add(token)
    assert len(tokens) > 500
    assert max(sizes) <= 8


def test_an_empty_stop_string_is_refused(tokenizer):
    with pytest.raises(InputError, match="^stop: got ''"):
        TextStream(tokenizer.decode, ("x", ""))
