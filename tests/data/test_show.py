"""Golden pages of hand-made rows, with brackets and with colours, and what becomes of odd text."""

import re

import numpy as np
import pytest

from data.objectives import Example
from data.segments import encoder_segments, is_shifted, segments
from data.show import Mark, MarkedToken, PieceTable, TextView, changed_inputs

# Ids 0 to 3 as in every tokenizer of ours, 11 to 13 are special too.
PIECES = [
    "<pad>", "<unk>", "<s>", "</s>", "▁def", "\n", "x", "▁y", "\t", "<s", ">",
    "<mask>", "<extra_0>", "<extra_1>", "<0xE2>", "<0x82>", "<0xAC>", "<0x00>",
]  # fmt: skip
TABLE = PieceTable(PIECES, frozenset({0, 1, 2, 3, 11, 12, 13}))
DEF, NEWLINE, X, Y, TAB, MASK, A, B = 4, 5, 6, 7, 8, 11, 12, 13
EURO = [14, 15, 16]


def example(inputs, targets, loss_weights, segment_ids=None, positions=None) -> Example:
    ids = np.array(segment_ids or [1] * len(inputs), np.int32)
    places = np.arange(len(inputs))
    first = np.array([np.flatnonzero(ids == number)[0] for number in ids])
    return Example(
        inputs=np.array(inputs, np.int32),
        targets=np.array(targets, np.int32),
        loss_weights=np.array(loss_weights, np.float32),
        positions=np.array(places - first if positions is None else positions, np.int32),
        segment_ids=ids,
    )


def page(one: Example, *, color: bool = False, width: int = 0, with_tokens: bool = False):
    view = TextView(TABLE, color=color, width=width)
    return list(view.example(one, with_tokens=with_tokens))


def text(*tokens: int, color: bool = False, width: int = 0, mark: Mark = Mark()) -> list[str]:  # noqa: B008
    view = TextView(TABLE, color=color, width=width)
    lines = view.lines([MarkedToken(token, mark) for token in tokens])
    return [line.removeprefix("    │ ") for line in lines]


# The end of one document, a whole one, the start of a third whose next token is in the row's last
# target only; then a row that ends in padding.
CAUSAL = example(
    inputs=[X, NEWLINE, 3, 2, DEF, X, 3, 2, Y],
    targets=[NEWLINE, 3, 2, DEF, X, 3, 2, Y, X],
    loss_weights=[1, 1, 0, 1, 1, 1, 0, 1, 1],
    segment_ids=[1, 1, 1, 2, 2, 2, 2, 3, 3],
)
PADDED = example(
    inputs=[2, X, 3, 0, 0],
    targets=[X, 3, 0, 0, 0],
    loss_weights=[1, 1, 0, 0, 0],
    segment_ids=[1, 1, 1, 0, 0],
    positions=[0, 1, 2, 0, 0],
)
MASKED = example(
    inputs=[2, DEF, MASK, NEWLINE, Y, 3],
    targets=[2, DEF, X, NEWLINE, X, 3],
    loss_weights=[0, 0, 1, 0, 1, 0],
)


PREFIXED = example(
    inputs=[2, DEF, X, Y, 2, X],
    targets=[DEF, X, Y, 3, X, 3],
    loss_weights=[0, 0, 1, 1, 0, 1],
    segment_ids=[1, 1, 1, 1, 2, 2],
)._replace(prefix=np.array([1, 1, 1, 0, 1, 1], np.int32))

# Span corruption of two documents: "def x y \n" loses "x", "x y" loses nothing; then padding.
CORRUPTED = example(
    inputs=[2, A, X, 2, 0],
    targets=[A, X, 3, 3, 0],
    loss_weights=[1, 1, 1, 1, 0],
    segment_ids=[1, 1, 1, 2, 0],
    positions=[0, 1, 2, 0, 0],
)._replace(
    encoder_inputs=np.array([DEF, A, Y, NEWLINE, 3, X, Y, 3, 0], np.int32),
    encoder_positions=np.array([0, 1, 2, 3, 4, 0, 1, 2, 0], np.int32),
    encoder_segment_ids=np.array([1, 1, 1, 1, 1, 2, 2, 2, 0], np.int32),
)


def test_a_prefix_is_marked_whether_or_not_it_carries_loss():
    assert page(PREFIXED) == [
        "  segment 1 · places 0 to 3 · positions 0 to 3 · prefix of 3 · 2 of 4 targets carry loss",
        "    │ ⟦⟬<s> defx⟭⟧ y⟨</s>⟩",
        "  segment 2 · places 4 to 5 · positions 0 to 1 · prefix of 2 · 1 of 2 targets carry loss",
        "    │ ⟦⟬<s>x⟭⟧⟨</s>⟩",
    ]
    assert page(PREFIXED, color=True)[1] == (
        "    │ \x1b[2;3m<s> defx\x1b[0m\x1b[32m y\x1b[0m\x1b[32;4m</s>\x1b[0m"
    )


def test_what_the_encoder_reads_stands_above_what_the_decoder_writes():
    assert page(CORRUPTED) == [
        "  encoder · segment 1 · places 0 to 4 · positions 0 to 4",
        "    encoder  │  def⟪<extra_0>⟫ y⏎",
        "             │ </s>",
        "  decoder · segment 1 · places 0 to 2 · positions 0 to 2 · 3 of 3 targets carry loss",
        "    decoder  │ ⟦<s>⟧⟪<extra_0>⟫x⟨</s>⟩",
        "  encoder · segment 2 · places 5 to 7 · positions 0 to 2",
        "    encoder  │ x y</s>",
        "  decoder · segment 2 · places 3 to 3 · positions 0 to 0 · 1 of 1 targets carry loss",
        "    decoder  │ ⟦<s>⟧⟨</s>⟩",
        "  decoder · padding · 1 place",
        "  encoder · padding · 1 place",
    ]


def test_an_encoder_segment_nobody_decodes_is_shown_all_the_same():
    alone = CORRUPTED._replace(encoder_segment_ids=np.array([1] * 5 + [3] * 3 + [0], np.int32))
    assert page(alone)[-3:] == [
        "  encoder · segment 3 · places 5 to 7 · positions 0 to 2",
        "    encoder  │ x y</s>",
        "  encoder · padding · 1 place",
    ]


def test_every_place_of_the_encoder_is_listed_on_request():
    lines = page(CORRUPTED, with_tokens=True)
    assert lines[3:6] == [
        "     place position  input",
        "         0        0        4 ▁def",
        "         1        1       12 ⟪<extra_0>⟫",
    ]
    listed = [line for line in lines if re.match(r" {5,}\d+ +\d+ +\d", line)]
    assert len(listed) == 9 + 5


def test_the_encoders_segments_are_every_place_in_order():
    found = encoder_segments(CORRUPTED)
    assert [(s.number, s.start) for s in found] == [(1, 0), (2, 5), (0, 8)]
    assert CORRUPTED.encoder_inputs is not None
    np.testing.assert_array_equal(
        np.concatenate([s.inputs for s in found]), CORRUPTED.encoder_inputs
    )
    assert encoder_segments(CAUSAL) == []


def test_one_stream_is_shown_once_with_brackets_around_what_has_no_loss():
    assert page(CAUSAL) == [
        "  segment 1 · places 0 to 2 · positions 0 to 2 · 2 of 3 targets carry loss",
        "    │ ⟦x⟧⏎",
        "    │ </s>",
        "  segment 2 · places 3 to 6 · positions 0 to 3 · 3 of 4 targets carry loss",
        "    │ ⟦<s>⟧ defx</s>",
        "  segment 3 · places 7 to 8 · positions 0 to 1 · 2 of 2 targets carry loss",
        "    │ ⟦<s>⟧ y⟨x⟩",
    ]


def test_one_stream_in_colours_says_the_same():
    assert page(CAUSAL, color=True)[1::2] == [
        "    │ \x1b[2mx\x1b[0m\x1b[32m⏎\x1b[0m",
        "  segment 2 · places 3 to 6 · positions 0 to 3 · 3 of 4 targets carry loss",
        "  segment 3 · places 7 to 8 · positions 0 to 1 · 2 of 2 targets carry loss",
    ]
    assert (
        page(CAUSAL, color=True)[-1] == "    │ \x1b[2m<s>\x1b[0m\x1b[32m y\x1b[0m\x1b[32;4mx\x1b[0m"
    )


def test_padding_is_counted_rather_than_shown():
    assert page(PADDED) == [
        "  segment 1 · places 0 to 2 · positions 0 to 2 · 2 of 3 targets carry loss",
        "    │ ⟦<s>⟧x</s>",
        "  padding · 2 places",
    ]


def test_padding_that_carries_loss_is_shown_in_full():
    wrong = PADDED._replace(loss_weights=np.array([1, 1, 0, 1, 0], np.float32))
    assert page(wrong)[-2:] == [
        "  padding that is not empty · places 3 to 4 · positions out of order · "
        "1 of 2 targets carry loss",
        "    │ ⟦<pad>⟧<pad>",
    ]


def test_loss_on_the_next_document_is_not_hidden():
    leaky = CAUSAL._replace(loss_weights=np.ones(9, np.float32))
    assert page(leaky)[2] == "    │ </s>⟨<s>⟩"


def test_masked_inputs_stand_over_their_targets():
    assert page(MASKED) == [
        "  segment 1 · places 0 to 5 · positions 0 to 5 · 2 of 6 targets carry loss",
        "    inputs   │ <s> def⟪<mask>⟫⏎",
        "             │ ⟪ y⟫</s>",
        "    targets  │ ⟦<s> def⟧x⟦⏎⟧",
        "             │ x⟦</s>⟧",
    ]


def test_masked_inputs_are_highlighted_in_colours():
    _, first, second, *_ = page(MASKED, color=True)
    assert first == "    inputs   │ <s> def\x1b[1;30;43m<mask>\x1b[0m⏎"
    assert second == "             │ \x1b[1;30;43m y\x1b[0m</s>"


def test_a_shifted_stream_with_other_inputs_is_compared_one_place_on():
    [segment] = segments(
        example([2, DEF, MASK, Y, X], [DEF, X, Y, X, 3], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1])
    )
    assert not is_shifted(segment)
    np.testing.assert_array_equal(changed_inputs(segment, TABLE), [0, 0, 1, 0, 0])


def test_of_two_different_texts_only_sentinels_are_marked():
    one = example([2, DEF, A, Y, B, 3], [A, X, X, B, NEWLINE, 3], [1, 1, 1, 1, 1, 1])
    assert page(one)[1:] == [
        "    inputs   │ <s> def⟪<extra_0>⟫ y⟪<extra_1>⟫</s>",
        "    targets  │ <extra_0>xx<extra_1>⏎",
        "             │ </s>",
    ]


def test_sentinels_in_one_stream_are_marked():
    one = example([2, A, X, B], [A, X, B, A], [0, 0, 1, 1])
    assert page(one)[1] == "    │ ⟦<s>⟧⟦⟪<extra_0>⟫⟧⟦x⟧⟪<extra_1>⟫⟪⟨<extra_0>⟩⟫"


def test_weights_other_than_one_are_named():
    one = example([2, X, Y], [X, Y, 3], [0.25, 0, 0.5])
    assert page(one)[0].endswith("2 of 3 targets carry loss · weights 0.25 to 0.5")


def test_every_place_is_listed_on_request():
    one = example([2, DEF, MASK], [2, DEF, NEWLINE], [0, 0, 0.5], positions=[4, 5, 6])
    assert page(one, with_tokens=True)[-4:] == [
        "     place position  input                        target                       weight",
        "         0        4        2 <s>                        2 ⟦<s>⟧                0",
        "         1        5        4 ▁def                       4 ⟦▁def⟧               0",
        "         2        6       11 ⟪<mask>⟫                   5 ⏎                    0.5",
    ]
    colored = [
        re.sub("\x1b\\[[0-9;]*m", "", line) for line in page(one, color=True, with_tokens=True)[-3:]
    ]
    assert colored[-1] == (
        "         2        6       11 <mask>                     5 ⏎                    0.5"
    )


def test_segments_are_every_place_in_order():
    one = example(range(6), range(6), [1] * 6, [1, 1, 2, 1, 0, 0])
    found = segments(one)
    assert [segment.number for segment in found] == [1, 2, 1, 0]
    assert [segment.start for segment in found] == [0, 2, 3, 4]
    np.testing.assert_array_equal(np.concatenate([s.inputs for s in found]), one.inputs)


def test_bytes_of_a_character_are_joined_and_others_are_escaped():
    assert text(*EURO) == ["€"]
    assert text(X, *EURO[:2], X) == [r"x\xe2\x82x"]
    halves = [MarkedToken(token, Mark(loss=token != 16)) for token in EURO]
    assert TextView(TABLE, color=False).lines(halves) == [r"    │ \xe2\x82⟦\xac⟧"]


def test_what_cannot_be_seen_is_made_visible():
    assert text(TAB, X, 17) == ["␉x␀"]
    odd = ["\r", "\x7f", "\x85", "\xa0", "\u200b", "\u202e", "⏎", "⟦", "␀", "\U0010ffff", "é", "日"]
    table = PieceTable([*PIECES, *odd], TABLE.specials)
    assert list(table.atoms(range(len(PIECES), len(table.pieces)))) == [
        "␍", "␡", r"\u0085", r"\u00a0", r"\u200b", r"\u202e", r"\u23ce", r"\u27e6", r"\u2400",
        r"\U0010ffff", "é", "日",
    ]  # fmt: skip


def test_text_that_spells_a_special_is_told_apart_from_it():
    assert text(2, 9, 10) == [r"<s>\u003cs>"]


def test_a_last_newline_opens_no_line():
    assert text(X, NEWLINE) == ["x⏎"]
    assert text(X, NEWLINE, mark=Mark(loss=False)) == ["⟦x⏎⟧"]
    assert text(NEWLINE, NEWLINE, X) == ["⏎", "⏎", "x"]


@pytest.mark.parametrize("color", [False, True])
def test_lines_are_no_wider_than_asked_and_lose_nothing(color):
    tokens = [2, *[DEF, X, Y, TAB] * 12, NEWLINE, MASK, *EURO * 9]
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in text(*tokens, color=color, width=40)]
    assert max(map(len, lines)) == 40 - len("    │ ")
    assert "".join(lines) == "".join(text(*tokens))


def test_wide_characters_take_two_cells():
    table = PieceTable([*PIECES, "日" * 30], TABLE.specials)
    lines = TextView(table, color=False, width=40).lines([MarkedToken(len(PIECES), Mark())])
    assert [len(line.removeprefix("    │ ")) for line in lines] == [17, 13]


def test_the_legend_uses_the_marks_it_explains():
    assert "⟦no loss⟧" in TextView(TABLE, color=False).legend()
    assert "⟬" not in TextView(TABLE, color=False).legend()
    assert "⟬prefix⟭" in TextView(TABLE, color=False).legend(has_prefix=True)
    assert "\x1b[2mno loss\x1b[0m" in TextView(TABLE, color=True).legend()


def test_a_real_tokenizers_specials_are_found_and_any_text_is_printable(corpus, nasty_texts):
    table = PieceTable.of(corpus.tokenizer)
    assert table.specials == {0, 1, 2, 3}
    view = TextView(table, color=False)
    for nasty in nasty_texts:
        tokens = corpus.tokenizer.encode(nasty)
        lines = view.lines([MarkedToken(token, Mark()) for token in tokens])
        assert all(line.isprintable() for line in lines)
        shown = "".join(line.removeprefix("    │ ") for line in lines)
        assert not any(special in shown for special in ("<s>", "</s>", "<pad>", "<unk>"))
        if nasty.isascii() and nasty.replace("\n", "").isprintable() and "<s>" not in nasty:
            assert shown == nasty.replace("\n", "⏎")


def test_classes_are_shown_by_name_where_they_carry_loss():
    one = example([2, 7, 8, 3], [0, 2, 0, 0], [0, 1, 1, 0])
    pieces = PieceTable([f"p{number}" for number in range(9)], frozenset(range(4)))
    view = TextView(pieces, color=False, classes=("O", "B-X", "I-X"))
    lines = list(view.example(one, with_tokens=True))
    assert lines[1:3] == ["    inputs   │ p2p7p8p3", "    classes  │ I-X O "]
    assert "I-X" in lines[5] and lines[5].endswith(" 1")
    assert "O" not in lines[4] and lines[4].endswith(" 0")
