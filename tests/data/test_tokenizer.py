import hashlib
import random

import numpy as np
import pytest

from configs.errors import InputError
from data.control_symbols import parse_symbols
from data.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return corpus.tokenizer


def test_decode_of_encode_gives_nasty_text_back(tokenizer, nasty_texts):
    for text in nasty_texts:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not {tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id} & set(
            ids
        ), "text must not produce a special id"


def test_decode_of_encode_gives_random_unicode_back(tokenizer):
    rng = random.Random(0)
    code_points = [*range(0xD800), *range(0xE000, 0x110000)]
    for _ in range(300):
        text = "".join(map(chr, rng.choices(code_points, k=rng.randrange(40))))
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_piece_bytes_add_up_to_the_length_in_utf8(tokenizer, nasty_texts):
    for text in nasty_texts:
        ids = np.array(tokenizer.encode(text), int)
        assert tokenizer.piece_bytes[ids].sum() == len(text.encode())


def test_specials_are_dropped_when_decoding(tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("a row"), tokenizer.eos_id, tokenizer.pad_id]
    assert tokenizer.decode(ids) == "a row"
    assert tokenizer.decode(np.array(ids, np.int32)) == "a row"
    assert tokenizer.pieces[:4] == ("<pad>", "<unk>", "<s>", "</s>")
    assert len(tokenizer.pieces) == tokenizer.vocab_size == 600


def test_indentation_and_line_ends_share_tokens(tokenizer):
    assert len(tokenizer.encode(" " * 64)) < 64
    assert tokenizer.sha == hashlib.sha256(tokenizer.model_bytes).hexdigest()


def test_training_is_a_pure_function_of_text_vocabulary_and_seed():
    texts = [f"document {i} says {i * i} and more words {'ab' * (i % 7)}\n" * 3 for i in range(200)]
    first, second = (train_tokenizer(texts, 400, seed=1, sample_bytes=5000) for _ in range(2))
    assert first.model_bytes == second.model_bytes
    other = train_tokenizer(texts, 400, seed=2, sample_bytes=5000)
    assert other.model_bytes != first.model_bytes, "another seed samples other pages"


SYMBOLS = parse_symbols(["mask", "fim", "ul2", "sentinels:30"])


@pytest.fixture(scope="module")
def with_symbols():
    texts = [f"document {i} says {i * i} and more words {'ab' * (i % 7)}\n" * 3 for i in range(200)]
    return train_tokenizer(texts, 400, symbols=SYMBOLS)


def test_control_symbols_count_as_pieces_and_are_found_by_name(with_symbols):
    assert with_symbols.vocab_size == 400
    assert tuple(with_symbols.symbols.ids) == SYMBOLS
    for name, piece_id in with_symbols.symbols.ids.items():
        assert with_symbols.pieces[piece_id] == name
    reloaded = Tokenizer(with_symbols.model_bytes)
    assert dict(reloaded.symbols.ids) == dict(with_symbols.symbols.ids)


def test_text_cannot_produce_control_symbols(with_symbols, nasty_texts):
    special = np.flatnonzero(with_symbols.symbols.is_special).tolist()
    assert len(special) == 4 + len(SYMBOLS)
    for text in [*nasty_texts, *SYMBOLS, "a<mask>b <extra_id_0><extra_id_1> <R><s>"]:
        ids = with_symbols.encode(text)
        assert not set(ids) & set(special)
        assert with_symbols.decode(ids) == text
        assert with_symbols.piece_bytes[ids].sum() == len(text.encode())


def test_control_symbols_decode_to_nothing_and_have_no_bytes(with_symbols):
    symbols = with_symbols.symbols
    ids = [2, symbols.id_of("<mask>"), *with_symbols.encode("more"), symbols.id_of("<R>"), 3]
    assert with_symbols.decode(ids) == with_symbols.decode(np.array(ids, np.int32)) == "more"
    assert (with_symbols.piece_bytes == 0).tolist() == symbols.is_special.tolist()


def test_bytes_are_found_wherever_they_are(with_symbols):
    symbols, pieces = with_symbols.symbols, with_symbols.pieces
    assert symbols.ends_sentence[pieces.index("<0x0A>")]
    assert symbols.starts_with_space[pieces.index("<0x20>")]
    assert not symbols.ends_sentence[pieces.index("<0xC3>")]
    assert not symbols.is_special[pieces.index("<0x00>")]
    spaced = [piece.startswith("\u2581") for piece in pieces]
    assert (symbols.starts_with_space >= spaced).all()


def test_a_tokenizer_without_symbols_knows_its_specials_only(tokenizer):
    assert tokenizer.symbols.ids == {}
    assert np.flatnonzero(tokenizer.symbols.is_special).tolist() == [0, 1, 2, 3]


def test_symbols_make_the_smallest_vocabulary_larger():
    with pytest.raises(InputError, match="^vocab_size: got 261, expected 262 to"):
        train_tokenizer(["some words"], 261, symbols=["<mask>"])


@pytest.mark.parametrize("names", [["<s>"], ["<0x41>"], ["mask"], ["<a,b>"], ["<m>", "<m>"]])
def test_symbols_that_would_be_another_piece_are_refused(names):
    with pytest.raises(InputError, match="^symbols: got"):
        train_tokenizer(["some words and more\n"] * 50, 300, symbols=names)


@pytest.mark.parametrize("vocab_size", [0, 100, 50_000, 2**30])
def test_a_vocabulary_the_text_cannot_fill_names_vocab_size(vocab_size):
    with pytest.raises(InputError, match=rf"^vocab_size: got {vocab_size}, expected .+$"):
        train_tokenizer(["a few words of text\n"] * 20, vocab_size)


def test_a_vocabulary_smaller_than_the_alphabet_names_vocab_size():
    alphabet = "".join(chr(0x4E00 + i) for i in range(300))
    with pytest.raises(InputError, match="^vocab_size: got 300, expected more than"):
        train_tokenizer([alphabet * 20], 300)


def test_missing_empty_and_damaged_models_name_the_file(tmp_path, tokenizer):
    path = tmp_path / "tokenizer.model"
    with pytest.raises(InputError, match="^tokenizer: got .*tokenizer.model.*No such file"):
        Tokenizer.load(path)
    half = tokenizer.model_bytes[: len(tokenizer.model_bytes) // 2]
    for contents in (b"", b"garbage", b"\x00" * 100, half):
        path.write_bytes(contents)
        with pytest.raises(
            InputError, match="^tokenizer: got .*tokenizer.model.*, expected [^\n]+$"
        ):
            Tokenizer.load(path)


def test_a_model_with_other_specials_is_refused(tmp_path):
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["some words and more words\n"] * 50),
        model_writer=model,
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(InputError, match="id 0 is the control symbol <pad>"):
        Tokenizer(model.getvalue(), "other.model")


def test_half_a_character_is_refused_in_one_line(tokenizer):
    with pytest.raises(InputError, match=r"^text: got '\\udce2' at character 2, expected"):
        tokenizer.encode("ab" + b"\xe2".decode(errors="surrogateescape"))
