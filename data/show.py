"""Examples as text: what every place holds, which targets carry loss, which inputs were changed.

No objective is known here; the arrays say what happened. Where a segment's targets are its inputs,
one place on, its text is shown once; else its inputs and its targets, each on lines of their own.
Where there is an encoder, what it reads of a segment stands above what the decoder writes of it.

Text is exact where it can be and never ambiguous: special pieces go by their names, a newline is
⏎ and a new line, control characters are their pictures (␉ is a tab), other characters that cannot
be seen are escaped (\\u200b), as are bytes that are not UTF-8 (\\xe2), and so is a character of the
text that would read as one of our signs.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from rich.cells import cell_len

from data.objectives import Example
from data.segments import (
    EncoderSegment,
    Segment,
    describe,
    encoder_segments,
    is_padding,
    is_shifted,
    segments,
)
from data.tokenizer import EOS_ID, Tokenizer

_NEWLINE = "⏎"
_GUTTER = "│ "
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_PIECE_CELLS = 20
_ENOUGH_ALIKE = 0.5  # of a segment's places, for inputs and targets to count as the same text


class Mark(NamedTuple):
    """What is to be seen of a token besides its text.

    loss: whether it is predicted with a loss weight above 0; None where that is not the question.
    changed: not what the text has here (a mask, another token), or a sentinel. target_only: no
    input of this row. prefix: the whole segment may see it, what stands before it too.
    """

    loss: bool | None = None
    changed: bool = False
    target_only: bool = False
    prefix: bool = False


class MarkedToken(NamedTuple):
    """A token and how it is shown."""

    token: int
    mark: Mark


class PieceTable:
    """What each token id looks like.

    Attributes:
        pieces: by id, as SentencePiece writes them.
        specials: ids that stand for no text.
    """

    def __init__(self, pieces: Sequence[str], specials: frozenset[int]):
        self.pieces, self.specials = pieces, specials
        names = (re.escape(pieces[token]) for token in sorted(specials))
        self._names = re.compile("|".join(names) or r"(?!)")

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "PieceTable":
        """The pieces of a tokenizer; special are those that decode to nothing."""
        ids = range(tokenizer.vocab_size)
        return cls(tokenizer.pieces, frozenset(i for i in ids if not tokenizer.decode([i])))

    def is_sentinel(self, token: int) -> bool:
        """Whether it is special, yet none of <pad>, <unk>, <s> and </s>."""
        return token > EOS_ID and token in self.specials

    def name(self, token: int) -> str:
        """The piece on one line; a space is ▁, as SentencePiece writes it."""
        if token in self.specials:
            return self.pieces[token]
        return "".join(_visible(character) for character in self.pieces[token])

    def atoms(self, tokens: Sequence[int]) -> Iterator[str]:
        """What is printed for `tokens`, in parts that no line break may divide."""
        for special, group in groupby(tokens, lambda token: token in self.specials):
            if special:
                yield from (self.pieces[token] for token in group)
                continue
            text = b"".join(map(self._bytes, group)).decode("utf-8", "surrogateescape")
            names = {match.start() for match in self._names.finditer(text)}
            for place, character in enumerate(text):
                yield _escaped(character) if place in names else _visible(character)

    def _bytes(self, token: int) -> bytes:
        piece = self.pieces[token]
        if match := _BYTE_PIECE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return piece.replace("\u2581", " ").encode()


class TextView:
    """Lines of text for a terminal or a file.

    Attributes:
        pieces: what tokens look like.
        color: mark tokens by colour; else by the brackets of `_BRACKETS`.
        width: cells a line at most; 0: as long as it takes.
        classes: their names by number, where targets are classes and no tokens.
    """

    def __init__(
        self, pieces: PieceTable, *, color: bool, width: int = 0, classes: Sequence[str] = ()
    ):
        self.pieces, self.color, self.width, self.classes = pieces, color, width, classes

    def legend(self, *, has_prefix: bool = False) -> str:
        """What the marks mean, on one line."""
        loss = self._marked("carries loss", Mark(loss=True))
        meanings = [
            (loss if self.color else "unmarked: carries loss"),
            self._marked("no loss", Mark(loss=False)),
            self._marked("target only", Mark(loss=True, target_only=True)),
            self._marked("masked, changed or sentinel", Mark(changed=True)),
            *([self._marked("prefix", Mark(prefix=True))] if has_prefix else []),
            f"{_NEWLINE} newline",
        ]
        return " · ".join(meanings)

    def example(self, example: Example, *, with_tokens: bool = False) -> Iterator[str]:
        """The lines of one row, segment by segment.

        Args:
            with_tokens: also a line for every place, with ids and pieces.
        """
        encoder = encoder_segments(example)
        of_decoder = segments(example)
        numbers = {segment.number for segment in of_decoder}
        for segment in of_decoder:
            for source in encoder:
                if source.number == segment.number != 0:
                    yield from self._encoder_lines(source, with_tokens=with_tokens)
            yield f"  {'decoder · ' if encoder else ''}{describe(segment)}"
            if not is_padding(segment) and self.classes:
                yield from self._class_lines(segment)
            elif not is_padding(segment):
                for label, tokens in marked_lines(segment, self.pieces):
                    yield from self.lines(tokens, label=label or ("decoder" if encoder else ""))
            if with_tokens:
                yield from self._token_lines(segment)
        for source in encoder:
            if source.number == 0 or source.number not in numbers:
                yield from self._encoder_lines(source, with_tokens=with_tokens)

    def lines(self, tokens: Sequence[MarkedToken], *, label: str = "") -> list[str]:
        """Tokens as lines behind a gutter; `label` stands beside the first."""
        indent = "    " + (f"{label:<9}" if label else "")
        room = max(1, self.width - cell_len(indent + _GUTTER)) if self.width else 0
        rows: list[list[tuple[str, str]]] = [[]]
        used, is_ended = 0, False
        for atom, style, is_closing in self._styled(tokens):
            cells = cell_len(atom)
            is_full = room and used and used + cells > room
            if is_full or (is_ended and not is_closing):
                rows.append([])
                used, is_ended = 0, False
            rows[-1].append((atom, style))
            used += cells
            is_ended |= atom == _NEWLINE
        blank = " " * len(indent)
        return [
            f"{blank if number else indent}{_GUTTER}{_painted(row)}"
            for number, row in enumerate(rows)
        ]

    def _styled(self, tokens: Sequence[MarkedToken]) -> Iterator[tuple[str, str, bool]]:
        """(what to print, its style, whether it is a closing bracket), in order."""
        for mark, group in groupby(tokens, lambda one: one.mark):
            opening, style, closing = self._signs(mark)
            if opening:
                yield opening, "", False
            for atom in self.pieces.atoms([one.token for one in group]):
                yield atom, style, False
            if closing:
                yield closing, "", True

    def _signs(self, mark: Mark) -> tuple[str, str, str]:
        """Opening bracket, style and closing bracket of a mark."""
        if self.color:
            return "", _style(mark), ""
        opening, closing = _brackets(mark)
        return opening, "", closing

    def _marked(self, text: str, mark: Mark, *, cells: int = 0) -> str:
        """`text` with its mark, filled up with spaces to `cells`."""
        opening, style, closing = self._signs(mark)
        text = f"{opening}{text}{closing}"
        return _painted([(text, style)]) + " " * (cells - cell_len(text))

    def _encoder_lines(self, segment: EncoderSegment, *, with_tokens: bool) -> Iterator[str]:
        yield f"  encoder · {describe(segment)}"
        tokens = segment.inputs.tolist()
        marks = [Mark(changed=self.pieces.is_sentinel(token)) for token in tokens]
        if not is_padding(segment):
            yield from self.lines(list(map(MarkedToken, tokens, marks)), label="encoder")
        if with_tokens:
            yield f"    {'place':>6} {'position':>8}  input"
            for i, (token, mark) in enumerate(zip(tokens, marks, strict=True)):
                place = f"{segment.start + i:>6} {int(segment.positions[i]):>8}"
                yield f"    {place}  {self._cell(token, mark).rstrip()}"

    def _class_lines(self, segment: Segment) -> Iterator[str]:
        """The inputs, and the classes of the places that carry loss."""
        inputs = [MarkedToken(token, Mark()) for token in segment.inputs.tolist()]
        yield from self.lines(inputs, label="inputs")
        everyone = frozenset(range(len(self.classes)))  # whole names, whatever is in them
        names = PieceTable([f"{name} " for name in self.classes], everyone)
        view = TextView(names, color=self.color, width=self.width)
        targets = segment.targets[segment.loss_weights > 0].tolist()
        yield from view.lines([MarkedToken(t, Mark(loss=True)) for t in targets], label="classes")

    def _target_cell(self, target: int, weight: float) -> str:
        mark = Mark(loss=weight > 0)
        if not self.classes:
            return self._cell(target, mark)
        name = self.classes[target] if weight > 0 else ""
        return f"{target:>7} {self._marked(name, mark, cells=_PIECE_CELLS)}"

    def _cell(self, token: int, mark: Mark) -> str:
        return f"{token:>7} {self._marked(self.pieces.name(token), mark, cells=_PIECE_CELLS)}"

    def _token_lines(self, segment: Segment) -> Iterator[str]:
        changed = changed_inputs(segment, self.pieces).tolist()
        heads = f"{'input':<{8 + _PIECE_CELLS}} {'target':<{8 + _PIECE_CELLS}}"
        yield f"    {'place':>6} {'position':>8}  {heads} weight"
        for i, weight in enumerate(segment.loss_weights.tolist()):
            seen = Mark(changed=changed[i], prefix=bool(segment.prefix[i]))
            source = self._cell(int(segment.inputs[i]), seen)
            target = self._target_cell(int(segment.targets[i]), weight)
            place = f"{segment.start + i:>6} {int(segment.positions[i]):>8}"
            yield f"    {place}  {source} {target} {weight:g}"


def marked_lines(segment: Segment, pieces: PieceTable) -> list[tuple[str, list[MarkedToken]]]:
    """What to print of a segment: (label, tokens), one pair for one stream, two for others.

    Example, one stream: inputs [2, 7, 8], targets [7, 8, 9] and weights [1, 0, 1] are 2 and 8
    without loss, 7 with loss, and 9 with loss, which is a target only.
    """
    carries_loss = (segment.loss_weights > 0).tolist()
    changed = changed_inputs(segment, pieces).tolist()
    inputs, targets = segment.inputs.tolist(), segment.targets.tolist()
    prefix = segment.prefix.tolist()
    if not is_shifted(segment):
        input_marks = [Mark(changed=c, prefix=p) for c, p in zip(changed, prefix, strict=True)]
        target_marks = [Mark(loss=loss) for loss in carries_loss]
        return [
            ("inputs", list(map(MarkedToken, inputs, input_marks))),
            ("targets", list(map(MarkedToken, targets, target_marks))),
        ]
    # Nobody predicts the first token. The last target is the next document's, or padding, unless
    # it carries loss.
    predicted = [False, *carries_loss[:-1]]
    marks = [
        Mark(loss=loss, changed=is_changed, prefix=in_prefix)
        for loss, is_changed, in_prefix in zip(predicted, changed, prefix, strict=True)
    ]
    stream = list(map(MarkedToken, inputs, marks))
    if carries_loss[-1]:
        last = Mark(loss=True, changed=pieces.is_sentinel(targets[-1]), target_only=True)
        stream.append(MarkedToken(targets[-1], last))
    return [("", stream)]


def changed_inputs(segment: Segment, pieces: PieceTable) -> np.ndarray:
    """Which inputs are sentinels, or not what the targets say the text has there; bool [n].

    Inputs and targets are compared place by place, or one place on, whichever agrees more; if
    neither agrees in half of the places they are two texts, and only sentinels count.
    """
    changed = np.array([pieces.is_sentinel(token) for token in segment.inputs.tolist()], bool)
    if is_shifted(segment):
        return changed
    same = segment.inputs == segment.targets
    shifted = np.concatenate([[True], segment.inputs[1:] == segment.targets[:-1]])
    alike = max(same, shifted, key=np.mean)
    return changed | ~alike if np.mean(alike) >= _ENOUGH_ALIKE else changed


def _brackets(mark: Mark) -> tuple[str, str]:
    signs = ["⟦⟧"] * (mark.loss is False) + ["⟬⟭"] * mark.prefix
    signs += ["⟪⟫"] * mark.changed + ["⟨⟩"] * mark.target_only
    return "".join(pair[0] for pair in signs), "".join(pair[1] for pair in reversed(signs))


def _style(mark: Mark) -> str:
    """The ANSI codes of a mark: green with loss, dim without, italic for a prefix, bold on yellow
    for what was changed, underlined for a target only."""
    codes = {True: ["32"], False: ["2"], None: []}[mark.loss]
    changed = ["1", "30", "43"] if mark.changed else []
    prefix = ["3"] if mark.prefix else []
    return ";".join([*codes, *prefix, *changed, *(["4"] if mark.target_only else [])])


def _painted(parts: Sequence[tuple[str, str]]) -> str:
    painted = []
    for style, group in groupby(parts, lambda part: part[1]):
        text = "".join(part[0] for part in group)
        painted.append(f"\x1b[{style}m{text}\x1b[0m" if style else text)
    return "".join(painted)


def _visible(character: str) -> str:
    """A character of the text as it is printed."""
    if character == "\n":
        return _NEWLINE
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return chr(0x2400 + code) if code < 0x20 else "␡"
    if 0xDC80 <= code <= 0xDCFF:  # how surrogateescape keeps a byte
        return f"\\x{code - 0xDC00:02x}"
    is_ours = character in "⏎⟦⟧⟬⟭⟪⟫⟨⟩" or 0x2400 <= code <= 0x2421
    return _escaped(character) if is_ours or not character.isprintable() else character


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
