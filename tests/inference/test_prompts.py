"""Control symbols spelled in prompts come back spelled the same."""

import pytest

from configs.errors import InputError
from configs.position_config import LearnedPositionConfig
from inference.prompts import decode_with_symbols, num_places, require_places
from tests.model.samples import tiny_model


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no symbol",
        "<mask>",
        "x = <mask>\n",
        "<extra_id_0> a<extra_id_1><extra_id_2>  b <extra_id_0>",
        "<extra_id_99> <masked> < mask> <extra_id_0",
        "é <mask>漢🎉",
    ],
)
def test_encoding_and_decoding_go_round(symbols_tokenizer, text):
    ids = symbols_tokenizer.encode_with_symbols(text)
    assert decode_with_symbols(symbols_tokenizer, ids) == text


def test_each_symbol_is_one_id_and_the_text_around_it_as_it_is_alone(symbols_tokenizer):
    t = symbols_tokenizer
    ids = t.encode_with_symbols("a <mask> b<extra_id_1>")
    names = t.symbols.ids
    assert ids == [*t.encode("a "), names["<mask>"], *t.encode(" b"), names["<extra_id_1>"]]


def test_plain_encoding_never_gives_a_symbol(symbols_tokenizer):
    ids = symbols_tokenizer.encode("a <mask> b <extra_id_0>")
    assert not set(ids) & set(symbols_tokenizer.symbols.ids.values())


def test_without_symbols_their_names_are_text(tokenizer):
    text = "a <mask> b"
    assert tokenizer.encode_with_symbols(text) == tokenizer.encode(text)
    assert decode_with_symbols(tokenizer, tokenizer.encode(text)) == text


def test_specials_are_not_spelled(symbols_tokenizer):
    t = symbols_tokenizer
    ids = [t.bos_id, *t.encode("a"), t.symbols.ids["<mask>"], t.eos_id, t.pad_id]
    assert decode_with_symbols(t, ids) == "a<mask>"


def test_only_learned_positions_end():
    assert num_places(tiny_model()) is None
    learned = tiny_model(position=LearnedPositionConfig(num_positions=34, offset=2))
    assert num_places(learned) == 32
    require_places(learned, 32)
    with pytest.raises(InputError, match="^prompt: got '33 tokens', expected 32 at most"):
        require_places(learned, 33)


def test_the_shorter_of_context_and_table_ends_a_prompt():
    learned = tiny_model(position=LearnedPositionConfig(num_positions=32))
    for config, context, most in ((learned, 20, 20), (learned, 64, 32), (tiny_model(), 20, 20)):
        require_places(config, most, context)
        with pytest.raises(InputError, match=f"expected {most} at most"):
            require_places(config, most + 1, context)
    require_places(tiny_model(), 10**6)
