"""Best fit: whole documents packed into rows, within windows of the stream.

An epoch cuts the circular stream, from an offset drawn from (seed, epoch), into windows of about
the same number of tokens, and each window has the same number of rows: which window a row belongs
to is arithmetic, and packing one window needs only the places where its documents start. So rows
are random access, and no index of documents is held. Windows and rows are shuffled as
`permuted_in_blocks` says.

A document longer than a row is cut into pieces of a row from its start on, each repeating the
overlap. A piece belongs to the window it starts in. Pieces go, longest first, into the fullest row
with room (best-fit decreasing; Johnson 1973). A window's rows have room for 1 / FILL times its
tokens: where the packing wastes more than that, the pieces that found no room are cut to fill what
gaps there are, so no token is ever left out. Ding et al. 2024 (arXiv 2404.10830) cut long documents
the same way and show what fewer cuts are worth; they pack a whole corpus at once.
"""

import math
from bisect import bisect_left, insort
from functools import lru_cache

from configs.data_config import BestFitConfig
from configs.errors import require
from data.packing import Piece, Row, RowShape, pieces_row
from data.permutation import epoch_keys, permuted_in_blocks
from data.token_chunks import CHUNK_TOKENS
from data.token_stream import CACHED_CHUNKS, TokenSource

FILL = 0.975
# What is asked of the whole, rounding to whole windows and rows included.
_ENOUGH = 0.972
_WINDOW_ROWS = range(48, 257)
_MAX_BLOCK_WINDOWS = 16


class BestFit:
    """A `Packing` (packing.py)."""

    dropped_per_epoch = 0

    def __init__(
        self,
        config: BestFitConfig,
        stream: TokenSource,
        shape: RowShape,
        *,
        seq_len: int,
        seed: int,
    ):
        """Raises InputError if rows are too short to pack or the stream has no tokens."""
        self.stream, self._config, self._shape = stream, config, shape
        self._seq_len, self._seed = seq_len, seed
        require(
            shape.stride > shape.overlap, "data.seq_len", shape.stride, "a longer row for best_fit"
        )
        self._num_windows, self._window_rows = window_layout(stream.num_tokens, shape)
        self.rows_per_epoch = self._num_windows * self._window_rows
        window_chunks = 1 + stream.num_tokens // self._num_windows // CHUNK_TOKENS
        self._block_windows = min(_MAX_BLOCK_WINDOWS, max(1, CACHED_CHUNKS // 2 // window_chunks))
        self._packed = lru_cache(maxsize=4 * _MAX_BLOCK_WINDOWS)(self._pack_window)

    def length(self, number: int) -> int:
        return self._seq_len

    def row(self, number: int) -> Row:
        epoch, index = divmod(number, self.rows_per_epoch)
        window, row = permuted_in_blocks(
            index,
            num_windows=self._num_windows,
            window_rows=self._window_rows,
            block_windows=self._block_windows,
            keys=epoch_keys(self._seed, epoch)[1:],
        )
        return pieces_row(
            self.stream,
            self._packed(epoch, window)[row],
            size=self._shape.tokens,
            documents=self._config.documents,
            epoch=epoch,
        )

    def _pack_window(self, epoch: int, window: int) -> list[list[Piece]]:
        num_tokens = self.stream.num_tokens
        offset = epoch_keys(self._seed, epoch)[0] % num_tokens
        start = offset + num_tokens * window // self._num_windows
        stop = offset + num_tokens * (window + 1) // self._num_windows
        pieces = window_pieces(self.stream, start, stop, self._shape)
        return pack(pieces, num_rows=self._window_rows, shape=self._shape)


def window_layout(num_tokens: int, shape: RowShape) -> tuple[int, int]:
    """Into how many windows to cut a stream, and how many rows each gets.

    The smallest windows that leave the rows full enough; for a stream of less than some 50 rows,
    which no layout fills as well, the fullest.
    """
    best = (0.0, 0, 0)
    for size in _WINDOW_ROWS:
        num_windows = max(1, math.ceil(num_tokens / (FILL * size * shape.tokens)))
        rows = rows_needed(math.ceil(num_tokens / num_windows), shape)
        fill = num_tokens / (num_windows * rows * shape.tokens)
        best = max(best, (fill, num_windows, rows))
        if fill >= _ENOUGH:
            break
    return best[1:]


def rows_needed(window_tokens: int, shape: RowShape) -> int:
    """Rows that hold any window of so many tokens, and at least FILL's share of slack.

    In the worst case a piece that starts at the window's end adds a row, and every row loses the
    overlap: to a gap too small for a piece, to the piece cut to fill it, or, where a long document
    fills it, to the repeat that follows.
    """
    worst = window_tokens + shape.stride + 2 * shape.overlap
    return math.ceil(max(window_tokens / (FILL * shape.tokens), worst / shape.stride))


def window_pieces(stream: TokenSource, start: int, stop: int, shape: RowShape) -> list[Piece]:
    """The pieces that start from `start` to `stop` - 1, in the order of the stream.

    Example: a document of 8 tokens at 100, rows of 4 tokens, overlap 1: pieces of 4 tokens at 100
    and 103, and one of 2 at 106.
    """
    beyond = stop + shape.tokens + 1
    starts = stream.document_starts(start, beyond).tolist()
    into = stream.document_offset(start)
    if into:  # the window opens inside a document
        starts.insert(0, start - into)
    pieces = []
    # A document that goes on beyond what was looked at is long enough for every piece here.
    for first, end in zip(starts, [*starts[1:], beyond], strict=True):
        if first >= stop:
            break
        skipped = -(-max(0, start - first) // shape.stride)
        for begin in range(first + skipped * shape.stride, min(end, stop), shape.stride):
            is_cut = begin > first
            repeated = shape.overlap if is_cut else 0
            if end - begin > repeated:
                pieces.append(Piece(begin, min(shape.tokens, end - begin), repeated, is_cut))
    return pieces


def pack(pieces: list[Piece], *, num_rows: int, shape: RowShape) -> list[list[Piece]]:
    """Best-fit decreasing into `num_rows` rows; what finds no room whole is cut to fill gaps.

    Example: pieces of 5, 4, 3 and 2 tokens into 2 rows of 7: 5 + 2 and 4 + 3.
    """
    rows: list[list[Piece]] = [[] for _ in range(num_rows)]
    gaps = [(shape.tokens, row) for row in range(num_rows)]  # sorted

    def fill(place: int, piece: Piece) -> None:
        gap, row = gaps.pop(place)
        rows[row].append(piece)
        if gap > piece.length:
            insort(gaps, (gap - piece.length, row))

    homeless = []
    for piece in sorted(pieces, key=lambda piece: -piece.length):
        place = bisect_left(gaps, (piece.length, -1))
        if place < len(gaps):
            fill(place, piece)
        else:
            homeless.append(piece)
    for rest in homeless:
        while (place := bisect_left(gaps, (rest.length, -1))) == len(gaps):
            size = gaps[-1][0]
            assert size > max(rest.repeated, shape.overlap), "rows_needed leaves room for all"
            fill(len(gaps) - 1, rest._replace(length=size))
            done = size - shape.overlap
            rest = Piece(rest.start + done, rest.length - done, shape.overlap, True)
        fill(place, rest)
    for row in rows:
        row.sort()
    return rows
