"""How long an objective's examples are, in tokens taken and in places filled."""

from typing import NamedTuple


class ExampleLengths(NamedTuple):
    """Lengths of one example, in places.

    tokens: that the objective takes from the corpus. overlap: how many of them the next row of a
    cut text repeats. length: of inputs and targets, the decoder's where there are two sides.
    encoder_length: of the encoder's inputs; 0 without a side of its own. has_prefix: whether the
    example says which places see one another both ways.
    """

    tokens: int
    overlap: int
    length: int
    encoder_length: int = 0
    has_prefix: bool = False

    @property
    def places(self) -> int:
        """Of both sides together: what a model computes for an example."""
        return self.length + self.encoder_length
