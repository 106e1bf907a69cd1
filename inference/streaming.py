"""The text of tokens that come one at a time: in whole characters, up to a stop string."""

from collections.abc import Callable, Sequence

from configs.errors import require

_CUT = "\ufffd"  # what bytes decode to that are no character, or none yet


class TextStream:
    """One growing text.

    Only the tokens since the last whole character are decoded, and a few before them, so a text's
    cost grows with its length and not with the square of it.

    Attributes:
      text: the characters that are settled.
      has_stopped: whether a stop string has come; the text ends before it.
    """

    _CONTEXT = 4  # tokens decoded anew with what follows: a decoder may drop a leading space

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()):
        """Begins an empty text.

        Args:
          decode: ids to text.
          stop: strings, none empty, the first of which ends the text.
        """
        for string in stop:
            require(bool(string), "stop", string, "some text")
        self._decode, self._stop = decode, tuple(stop)
        self._longest = max(map(len, self._stop), default=0)
        self._context: list[int] = []
        self._pending: list[int] = []
        self._unsettled = ""  # whole characters that may be the beginning of a stop string
        self._settled: list[str] = []
        self.has_stopped = False

    @property
    def text(self) -> str:
        return "".join(self._settled)

    def add(self, token: int) -> str:
        """Adds a token; returns the characters that became certain, often none."""
        assert not self.has_stopped
        self._pending.append(token)
        new = self._pending_text()
        if new.endswith(_CUT):
            return ""
        self._context = (self._context + self._pending)[-self._CONTEXT :]
        self._pending = []
        return self._settle(new)

    def end(self) -> str:
        """Returns what was held back, cut characters too; to be called once."""
        if self.has_stopped:
            return ""
        new = self._settle(self._pending_text())
        if self.has_stopped:
            return new
        rest, self._unsettled = self._unsettled, ""
        self._settled.append(rest)
        return new + rest

    def _pending_text(self) -> str:
        before = self._decode(self._context)
        return self._decode(self._context + self._pending)[len(before) :]

    def _settle(self, new: str) -> str:
        text = self._unsettled + new
        places = [place for place in map(text.find, self._stop) if place >= 0]
        if places:
            self.has_stopped = True
            certain, self._unsettled = text[: min(places)], ""
        else:
            held = self._held_back(text)
            certain, self._unsettled = text[: len(text) - held], text[len(text) - held :]
        self._settled.append(certain)
        return certain

    def _held_back(self, text: str) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(string.startswith(text[-length:]) for string in self._stop):
                return length
        return 0
