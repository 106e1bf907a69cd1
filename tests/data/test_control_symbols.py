"""Control symbols by group and name, and what a tokenizer's pieces mean to objectives."""

import numpy as np
import pytest

from configs.errors import InputError
from configs.objective_config import FIM_MARKERS, MASK, SpanCorruptionConfig, UL2Config
from data.control_symbols import (
    MAX_SENTINELS,
    make_symbols,
    parse_symbols,
    require_symbols,
    symbol_groups,
)


def test_groups_name_their_symbols_in_one_order_whatever_theirs():
    assert parse_symbols(["sentinels:2", "mask"]) == ("<mask>", "<extra_id_0>", "<extra_id_1>")
    assert parse_symbols(["mask", "sentinels:2", "mask"]) == parse_symbols(["sentinels:2", "mask"])
    assert parse_symbols(["ul2"]) == ("<R>", "<S>", "<X>")
    assert parse_symbols(["fim"]) == FIM_MARKERS
    assert parse_symbols(["sentinels:3", "sentinels:1"])[-1] == "<extra_id_2>"
    assert parse_symbols([]) == ()


@pytest.mark.parametrize(
    "group",
    [
        "masks",
        "<mask>",
        "sentinels",
        "sentinels:0",
        f"sentinels:{MAX_SENTINELS + 1}",
        "sentinels:x",
    ],
)
def test_a_group_there_is_not_names_the_choices(group):
    with pytest.raises(InputError, match=rf"^symbols: got '{group}', expected .*sentinels:"):
        parse_symbols([group])


@pytest.mark.parametrize("groups", [(), ("mask",), ("mask", "fim", "ul2", "sentinels:28")])
def test_groups_of_names_are_the_groups_that_gave_them(groups):
    assert symbol_groups(parse_symbols(groups)) == groups


@pytest.mark.parametrize("objective", [SpanCorruptionConfig(), UL2Config()])
def test_what_an_objective_needs_is_what_its_groups_give(objective):
    names = objective.symbols(512)
    assert parse_symbols(symbol_groups(names)) == names


def symbols_of(texts, specials=(), named=()):
    return make_symbols(texts, specials=specials, named=named)


def test_missing_symbols_are_one_line_with_the_remedy():
    symbols = symbols_of(["<pad>", "<mask>", "a"], specials=[0, 1], named=[1])
    require_symbols(symbols, [MASK], "objective masked_lm")
    with pytest.raises(InputError) as error:
        require_symbols(symbols, SpanCorruptionConfig().symbols(512), "objective span_corruption")
    assert str(error.value) == (
        "tokenizer: got one without <extra_id_0>, <extra_id_1>, <extra_id_2> and 25 more, expected "
        "one with the control symbols of objective span_corruption "
        "(isoflop prepare SOURCE --out FOLDER --symbols mask sentinels:28)"
    )


def test_pieces_say_where_words_and_sentences_end():
    texts = [
        "<s>",
        " the",
        "end.",
        '."',
        "?\n",
        "x\n",
        " ",
        "a.b",
        "。",
        "",
        "<mask>",
        "\t",
        " )!»",
    ]
    symbols = symbols_of(texts, specials=[0, 10], named=[10])
    assert symbols.vocab_size == len(texts) and symbols.ids == {"<mask>": 10}

    def chosen(field: np.ndarray) -> list[str]:
        return [text for text, is_chosen in zip(texts, field, strict=True) if is_chosen]

    assert chosen(symbols.is_special) == ["<s>", "<mask>"]
    assert chosen(symbols.starts_with_space) == [" the", " ", "\t", " )!»"]
    assert chosen(symbols.ends_with_space) == ["?\n", "x\n", " ", "\t"]
    assert chosen(symbols.ends_sentence) == ["end.", '."', "?\n", "x\n", "。", " )!»"]
