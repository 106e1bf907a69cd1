"""A tokenizer with more pieces: old ids as they were, any text exact, the domain shorter."""

import numpy as np
import pytest

from configs.errors import InputError
from data.extend_tokenizer import extend_tokenizer
from data.tokenizer import Tokenizer, train_tokenizer
from export.tokenizer import fast_tokenizer
from tests.export.samples import nasty_lines

GENERAL = "def add(x, y):\n    return x + y\n\n\nclass Point:\n    pass\n" * 20
DOMAIN = [
    f"BEGIN name, price OF orders WHERE price > {n} ORDER BY price FALLING;\n"
    f"    CHANGE orders\n    price = {n * 3 % 17} WHERE name = 'café {n}';\n\u2581 a\u2581b\n"
    for n in range(60)
]
NEW = 60


@pytest.fixture(scope="module")
def old() -> Tokenizer:
    return train_tokenizer([GENERAL], 310, seed=0, symbols=("<mask>",))


@pytest.fixture(scope="module")
def new(old) -> Tokenizer:
    return extend_tokenizer(old, DOMAIN, new_pieces=NEW)


def test_old_pieces_keep_their_ids(old, new):
    assert new.vocab_size == old.vocab_size + NEW
    assert new.pieces[: old.vocab_size] == old.pieces
    assert new.symbols.ids == old.symbols.ids
    assert len(set(new.pieces)) == new.vocab_size


def test_every_text_is_still_exact(new):
    for text in [*DOMAIN, GENERAL, *nasty_lines(400)]:
        assert new.decode(new.encode(text)) == text


def test_the_domain_takes_fewer_tokens_and_other_text_no_more(old, new):
    domain, num_bytes = "".join(DOMAIN), len("".join(DOMAIN).encode())
    before, after = num_bytes / len(old.encode(domain)), num_bytes / len(new.encode(domain))
    assert after > 1.8 * before
    assert len(new.encode(GENERAL)) <= len(old.encode(GENERAL))
    held_out = "BEGIN price OF orders WHERE name = 'x' ORDER BY name FALLING;\n"
    assert len(new.encode(held_out)) < len(old.encode(held_out))


def test_every_new_piece_is_made_of_two_that_come_before_it(new, old):
    known = set(old.pieces)
    longer = [piece for piece in new.pieces[old.vocab_size :] if len(piece) > 1]
    assert len(longer) > NEW // 3
    known |= set(new.pieces[old.vocab_size :]) - set(longer)  # characters
    for piece in longer:
        assert any(piece[:at] in known and piece[at:] in known for at in range(1, len(piece)))
        known.add(piece)


def test_the_domains_characters_become_pieces(old, new):
    assert "W" not in old.pieces and "W" in new.pieces
    assert "é" not in old.pieces and "é" in new.pieces
    assert "漢" not in new.pieces  # not of the domain: in bytes, as before
    assert new.encode("漢") == old.encode("漢")


def test_most_new_pieces_occur_in_the_domain(new, old):
    """Some are only steps to longer ones."""
    used = {i for text in DOMAIN for i in new.encode(text) if i >= old.vocab_size}
    assert len(used) > NEW // 3


def test_no_piece_spans_a_place_where_texts_are_cut(new):
    domain = "".join(DOMAIN) * 4  # long enough to be cut
    assert len(domain) > 20_000
    parts = [new.encode(text) for text in DOMAIN] * 4
    assert new.encode(domain)[: len(parts[0])] == parts[0]
    for piece in new.pieces:
        text = piece.replace("\u2581", " ")
        assert " " not in text.lstrip(" ")


def test_the_exported_tokenizer_gives_the_same_ids(new):
    fast = fast_tokenizer(new.model_bytes)
    for text in [*DOMAIN, *nasty_lines(200)]:
        assert fast.encode(text, add_special_tokens=False).ids == new.encode(text)


def test_extending_is_deterministic_and_goes_on(old, new):
    assert extend_tokenizer(old, DOMAIN, new_pieces=NEW).sha == new.sha
    part = extend_tokenizer(old, DOMAIN, new_pieces=20)
    assert part.pieces == new.pieces[: part.vocab_size]
    again = extend_tokenizer(part, DOMAIN, new_pieces=NEW - 20)
    assert set(again.pieces) == set(new.pieces)


def test_bytes_of_pieces_still_add_up(new):
    for text in DOMAIN:
        assert new.piece_bytes[np.array(new.encode(text))].sum() == len(text.encode())


@pytest.mark.parametrize("new_pieces", [0, 2**20, 100_000])
def test_numbers_that_do_not_fit_are_refused(old, new_pieces):
    with pytest.raises(InputError, match=f"^new_pieces: got {new_pieces}, expected"):
        extend_tokenizer(old, DOMAIN[:3], new_pieces=new_pieces)
