"""What a tokenizer makes of a text: totals add up, samples and halves are drawn by hashes."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from configs.errors import InputError
from data.sources import Document, documents_of, open_source
from data.tokenizer import Tokenizer, train_tokenizer
from data.vocabulary import (
    MIN_SPLIT_DOCUMENTS,
    PART_BYTES,
    TokenizerUse,
    costliest_words,
    count_words,
    cut_words,
    draw_documents,
    finest_cut_words,
    sample_parts,
    split_in_halves,
    tokenizer_use,
)

LAW = "the lessee shall indemnify the lessor against all liabilities arising hereunder".split()
CODE = "def return self import None yield lambda class async await raise except".split()


def text_of(words: Sequence[str], seed: int, lines: int = 400) -> str:
    rng = random.Random(seed)
    return "\n".join(" ".join(rng.choices(words, k=9)) for _ in range(lines)) + "\n"


@pytest.fixture(scope="module")
def law() -> Tokenizer:
    return train_tokenizer([text_of(LAW, seed=1)], 340)


@pytest.fixture(scope="module")
def code() -> Tokenizer:
    return train_tokenizer([text_of(CODE, seed=1)], 340)


def measure(tokenizer: Tokenizer, *texts: str) -> TokenizerUse:
    words = count_words(texts)
    return tokenizer_use(tokenizer, texts, words, cut_words(tokenizer, words))


def document(name: str, size: int) -> Document:
    line = f"{name} says something or other\n".encode()
    return Document(name, (line * (size // len(line) + 1))[:size])


def sizes(parts) -> int:
    return sum(len(part.data) for part in parts)


def test_totals_of_nasty_text_add_up(law, nasty_texts):
    text = "".join(nasty_texts)
    use = measure(law, *nasty_texts)
    assert use.num_bytes == len(text.encode()) == use.spelled_bytes
    assert use.num_characters == len(text)
    assert use.num_tokens == sum(len(law.encode(part)) for part in nasty_texts)
    assert use.num_words == sum(len(part.split()) for part in nasty_texts)
    assert use.num_specials == 4
    assert 0 < use.pieces_used <= use.vocab_size - 4
    assert use.byte_characters <= use.byte_tokens <= use.num_tokens
    assert use.bytes_per_token * use.num_tokens == pytest.approx(use.num_bytes)


def test_control_symbols_do_not_count_as_pieces_a_text_could_use():
    text = "one line says two things\n"
    plain, marked = (
        train_tokenizer([text * 30], 290 + len(symbols), symbols=symbols)
        for symbols in ((), ("<mask>", "<R>", "<S>"))
    )
    assert measure(marked, text).num_specials == 7
    assert measure(marked, text).vocabulary_used == measure(plain, text).vocabulary_used > 0


def test_a_domains_own_tokenizer_of_equal_size_needs_fewer_tokens(law, code):
    text = text_of(LAW, seed=2)
    own, foreign = measure(law, text), measure(code, text)
    assert own.num_tokens < 0.7 * foreign.num_tokens
    assert own.tokens_per_word < foreign.tokens_per_word
    assert own.single_piece_share > foreign.single_piece_share
    assert own.fixed_width_bits_per_byte < foreign.fixed_width_bits_per_byte


def test_known_characters_take_no_bytes_and_an_emoji_nothing_else(law):
    known = measure(law, text_of(LAW, seed=3))
    assert known.byte_token_share == 0 and known.byte_character_share == 0
    emoji = measure(law, "🦀🦀")
    assert (emoji.byte_tokens, emoji.byte_characters) == (8, 2)
    assert emoji.byte_token_share == 1 and emoji.byte_character_share == 1
    half = measure(law, "shall 🦀")
    assert half.byte_character_share == pytest.approx(1 / 7)


def test_words_are_counted_between_whitespace():
    words = count_words(["to be,\n\tor", " not to\u00a0be,"])
    assert words == {"to": 2, "be,": 2, "or": 1, "not": 1}


def test_a_text_without_words_is_refused(law):
    with pytest.raises(InputError, match="^text: got 'no words'"):
        measure(law, " \n\t")


def test_costliest_words_are_ordered_by_the_tokens_they_waste(code):
    words = count_words([text_of(LAW, seed=4)])
    cuts = cut_words(code, words)
    ranked = costliest_words(code, words, cuts, top=8)
    wasted = [word.extra_tokens for word in ranked]
    assert wasted == sorted(wasted, reverse=True)
    assert wasted[0] == max(n * (len(code.encode(f" {w}")) - 1) for w, n in words.items())
    for word in ranked:
        assert word.count == words[word.word]
        assert word.pieces == tuple(code.pieces[i] for i in code.encode(f" {word.word}"))
    assert costliest_words(code, words, cuts, top=0) == []


def test_finest_cut_words_are_ordered_by_pieces_per_character(law):
    words = Counter({"🦀ab": 5, "zqzqzq": 9, "shall": 90, "rare🦀rare": 4, "──": 80, "é": 70})
    ranked = finest_cut_words(law, words, cut_words(law, words), top=8, min_count=5)
    # "shall" is whole, rare🦀rare is rare, the last two have fewer than two letters.
    assert [word.word for word in ranked] == ["🦀ab", "zqzqzq"]
    crab, letters = ranked
    assert letters.pieces_per_character == 1, "a space and six letters, none with a neighbour"
    assert crab.pieces_per_character == len(law.encode(" 🦀ab")) / 4 > 1


def test_a_small_text_is_taken_whole_and_in_order():
    documents = [document("b", 10), document("a", 3 * PART_BYTES), document("c", 20)]
    sample = sample_parts(documents, max_bytes=10 * PART_BYTES)
    assert b"".join(part.data for part in sample.parts) == b"".join(d.data for d in documents)
    assert (sample.num_documents, sample.num_bytes) == (3, 3 * PART_BYTES + 30)


def test_a_sample_does_not_depend_on_the_order_of_documents():
    documents = [document(f"d{i}", 500 + 977 * i) for i in range(40)]
    first = sample_parts(documents, max_bytes=8 * PART_BYTES)
    second = sample_parts(documents[::-1], max_bytes=8 * PART_BYTES)
    assert sorted(first.parts) == sorted(second.parts)
    assert 6 * PART_BYTES < sizes(first.parts) <= 8 * PART_BYTES
    assert first.num_bytes == sum(len(d.data) for d in documents)
    other = sample_parts(documents, max_bytes=8 * PART_BYTES, seed=1)
    assert sorted(other.parts) != sorted(first.parts), "another seed draws other parts"


def test_a_smaller_sample_is_part_of_a_larger_one():
    documents = [document(f"d{i}", 500 + 977 * i) for i in range(40)]
    small, large = (sample_parts(documents, max_bytes=n * PART_BYTES).parts for n in (4, 8))
    assert set(small) < set(large)


@pytest.mark.parametrize("unit", ["日", "é", "🦀", "a b ", "line\n"])
def test_parts_are_short_and_cut_no_character(unit):
    text = unit * (3 * PART_BYTES // len(unit.encode()))
    parts = sample_parts([Document("a", text.encode())], max_bytes=10 * PART_BYTES).parts
    assert "".join(part.text for part in parts) == text
    assert len(parts) >= 3 and all(0 < len(part.data) <= PART_BYTES for part in parts)


def test_a_long_source_is_read_only_so_far_from_shards_all_over(tmp_path):
    for i in range(30):
        (tmp_path / f"{i:02}.txt").write_bytes(document("d", 1000).data)
    source = open_source(str(tmp_path))
    read = [d.id for d in draw_documents(source, max_bytes=9500)]
    assert len(read) == 10 and max(read) > "20" > "10" > min(read)
    assert read == [d.id for d in draw_documents(source, max_bytes=9500)]
    assert read != [d.id for d in draw_documents(source, max_bytes=9500, seed=1)]
    everything = {d.id for d in draw_documents(source, max_bytes=10**6)}
    assert everything == {d.id for d in documents_of(source)}


def test_too_small_a_sample_is_refused():
    with pytest.raises(InputError, match="^max_bytes: got 10"):
        sample_parts([], max_bytes=10)


def test_halves_keep_documents_whole_where_there_are_enough():
    documents = [document(f"d{i}", PART_BYTES * (1 + i % 3)) for i in range(MIN_SPLIT_DOCUMENTS)]
    parts = sample_parts(documents, max_bytes=100 * PART_BYTES).parts
    halves = split_in_halves(parts)
    assert halves.unit == "documents"
    train, measured = ({part.document_id for part in half} for half in halves[:2])
    assert not train & measured and len(train | measured) == MIN_SPLIT_DOCUMENTS
    assert sizes(halves.train) == pytest.approx(sizes(parts) / 2, rel=0.2)
    assert sorted([*halves.train, *halves.measured]) == sorted(parts)


@pytest.mark.parametrize(
    "documents",
    [
        [document("only", 9 * PART_BYTES)],
        [document("long", 90 * PART_BYTES), *(document(f"d{i}", 100) for i in range(50))],
    ],
    ids=["a single document", "one that dwarfs the rest"],
)
def test_halves_split_documents_where_they_must(documents):
    parts = sample_parts(documents, max_bytes=200 * PART_BYTES).parts
    halves = split_in_halves(parts)
    assert halves.unit == "parts"
    assert not set(halves.train) & set(halves.measured)
    assert 0.3 < sizes(halves.train) / sizes(parts) < 0.7


def test_a_single_part_cannot_be_halved():
    with pytest.raises(InputError, match="^text: got '100 bytes'"):
        split_in_halves(sample_parts([document("a", 100)], max_bytes=PART_BYTES).parts)
