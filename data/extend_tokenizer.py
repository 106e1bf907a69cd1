"""More pieces for a tokenizer: byte-pair encoding goes on, on a domain's text, where it had ended.

Characters that the tokenizer spells in bytes become pieces first. Then the text is encoded, and the
most frequent pair of neighbours becomes a piece, again and again. A new piece scores below all
others, so the old merges come first, the pieces it is made of exist, and an id means what it meant.
"""

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from configs.errors import InputError, require
from data.tokenizer import MAX_VOCAB_SIZE, SAMPLE_BYTES, Tokenizer

# No piece spans a place where a space follows something else (see data/tokenizer.py).
_WORD = re.compile(" *[^ ]+| +$")
_SPACE_MARK = "\u2581"
_MAX_CHARACTERS = 16  # of a piece, as SentencePiece trains them
_SMALLEST_COUNT = 2
_COVERAGE = 0.9999  # of a text's characters, as SentencePiece trains it


def extend_tokenizer(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    new_pieces: int,
    sample_bytes: int = SAMPLE_BYTES,
) -> Tokenizer:
    """A tokenizer with further pieces after those of `tokenizer`, whose ids it keeps.

    Example: pieces `…, ▁f, o, b, ar` and text full of ` foobar` give `oo, ▁foo, bar, ▁foobar`.

    Args:
        tokenizer: one of ours; any text still round-trips.
        texts: documents of the domain.
        new_pieces: how many to add.
        sample_bytes: UTF-8 bytes of the texts that are read, from the first on.

    Raises:
        InputError: more pieces than the text has pairs of pieces that come twice, or fewer than 1.
    """
    largest = MAX_VOCAB_SIZE - tokenizer.vocab_size
    require(1 <= new_pieces <= largest, "new_pieces", new_pieces, f"1 to {largest}")
    counts = _word_counts(texts, sample_bytes)
    pieces = _new_characters(tokenizer, counts)[:new_pieces]
    merges = _Merges(_with_pieces(tokenizer, pieces), counts)
    while len(pieces) < new_pieces:
        piece = merges.next_piece()
        if piece is None:
            raise InputError(
                f"new_pieces: got {new_pieces}, expected at most {len(pieces)} for so little text"
            )
        pieces.append(piece)
    return _with_pieces(tokenizer, pieces)


class _Merges:
    """Words as pieces, and how often neighbours stand together; a pair goes by its text."""

    def __init__(self, tokenizer: Tokenizer, counts: Counter[str]):
        special = tokenizer.symbols.is_special
        self._is_ordinary = {
            piece: not special[i] and not _is_byte(piece)
            for i, piece in enumerate(tokenizer.pieces)
        }
        self._words = [
            [tokenizer.pieces[i] for i in tokenizer.encode(word)] for word in sorted(counts)
        ]
        self._word_counts = [counts[word] for word in sorted(counts)]
        self._pair_counts: Counter[str] = Counter()
        self._words_with: dict[str, set[int]] = defaultdict(set)
        for number in range(len(self._words)):
            self._count(number, 1)
        self._heap = [(-count, piece) for piece, count in self._pair_counts.items()]
        heapq.heapify(self._heap)

    def next_piece(self) -> str | None:
        """The most frequent pair, which is a piece from now on; None where none comes twice."""
        while self._heap:
            negative, piece = heapq.heappop(self._heap)
            count = self._pair_counts[piece]
            if count < _SMALLEST_COUNT or piece in self._is_ordinary:
                continue
            if count != -negative:  # it has changed since it was put there
                heapq.heappush(self._heap, (-count, piece))
                continue
            self._is_ordinary[piece] = True
            self._merge(piece)
            return piece
        return None

    def _merge(self, piece: str) -> None:
        touched = set()
        for number in self._words_with.pop(piece, ()):
            self._count(number, -1)
            word = _merged(self._words[number], piece)
            # A pair that the new piece makes with its neighbour may be a piece already.
            while known := next(filter(self._is_known, map("".join, _pairs(word))), None):
                word = _merged(word, known)
            self._words[number] = word
            touched.update(self._count(number, 1))
        for pair in touched:
            heapq.heappush(self._heap, (-self._pair_counts[pair], pair))

    def _count(self, number: int, sign: int) -> list[str]:
        """Adds a word's pairs to the counts, or takes them off; gives what they spell."""
        pairs = []
        for left, right in _pairs(self._words[number]):
            pair = left + right
            is_made_of_pieces = self._is_known(left) and self._is_known(right)
            if is_made_of_pieces and len(pair) <= _MAX_CHARACTERS and pair not in self._is_ordinary:
                self._pair_counts[pair] += sign * self._word_counts[number]
                self._words_with[pair].add(number)
                pairs.append(pair)
        return pairs

    def _is_known(self, piece: str) -> bool:
        return self._is_ordinary.get(piece, False)


def _word_counts(texts: Iterable[str], sample_bytes: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        sample_bytes -= len(text.encode())
        if sample_bytes < 0 and counts:
            break
        counts.update(_WORD.findall(text))
    return counts


def _new_characters(tokenizer: Tokenizer, counts: Counter[str]) -> list[str]:
    """The text's characters that are no pieces yet, the most frequent first; rare ones are left to
    the bytes, as in training."""
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for character in word:
            characters[character] += count
    left = _COVERAGE * characters.total()
    found, known = [], {*tokenizer.pieces, " ", _SPACE_MARK}
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        is_wanted = left > 0 and count >= _SMALLEST_COUNT and character.isprintable()
        if is_wanted and character not in known:
            found.append(character)
        left -= count
    return found


def _pairs(word: Sequence[str]) -> Iterable[tuple[str, str]]:
    return zip(word[:-1], word[1:], strict=True)


def _merged(word: Sequence[str], piece: str) -> list[str]:
    """A word in which neighbours that spell the piece are one, from the left on."""
    merged: list[str] = []
    at = 0
    while at < len(word):
        if at + 1 < len(word) and word[at] + word[at + 1] == piece:
            merged.append(piece)
            at += 2
        else:
            merged.append(word[at])
            at += 1
    return merged


def _is_byte(piece: str) -> bool:
    return re.fullmatch("<0x[0-9A-F]{2}>", piece) is not None


def _with_pieces(tokenizer: Tokenizer, pieces: Sequence[str]) -> Tokenizer:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    proto.ParseFromString(tokenizer.model_bytes)
    score = min(piece.score for piece in proto.pieces)
    for number, text in enumerate(pieces, start=1):
        proto.pieces.add(piece=text, score=score - number, type=proto.SentencePiece.NORMAL)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    return Tokenizer(proto.SerializeToString())
