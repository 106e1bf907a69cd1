"""What an export family is: a table from our parameters to theirs, and configs both ways.

An entry names the axes of an array in our layout and in theirs; both transforms and both shapes
follow from the two strings, so an inverse cannot disagree with its transform.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.model_config import ModelConfig

Sizes = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """Token ids of the specials; None where the tokenizer has no such token."""

    pad: int | None = None
    bos: int | None = None
    eos: int | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of a family's table.

    Attributes:
      ours: path of our parameter, "decoder/layers/attention/query/kernel".
      theirs: name of their tensor; with "{layer}" there is one tensor per layer, and ours carries
        the layers on a leading axis that the axes below leave out.
      our_axes: a letter per axis of ours, "D H C".
      their_axes: the same letters as they lie in theirs; parentheses join axes: "(H C) D".
    """

    ours: str
    theirs: str
    our_axes: str
    their_axes: str

    @property
    def per_layer(self) -> bool:
        """Whether there is one of their tensors per layer."""
        return "{layer}" in self.theirs

    def our_shape(self, sizes: Sizes) -> tuple[int, ...]:
        """Shape of one layer of our array (of the whole array if not per layer)."""
        return tuple(sizes[axis] for axis in self.our_axes.split())

    def their_shape(self, sizes: Sizes) -> tuple[int, ...]:
        """Shape of their tensor."""
        return tuple(math.prod(sizes[a] for a in group) for group in _groups(self.their_axes))

    def to_theirs(self, array: np.ndarray, sizes: Sizes) -> np.ndarray:
        """Our array (one layer of it) in their layout, contiguous.

        (D, H, C) -> "(H C) D" -> (H*C, D)
        """
        ours, theirs = self.our_axes.split(), _letters(self.their_axes)
        moved = array.transpose([ours.index(axis) for axis in theirs])
        return np.ascontiguousarray(moved.reshape(self.their_shape(sizes)))

    def to_ours(self, array: np.ndarray, sizes: Sizes) -> np.ndarray:
        """Inverse of `to_theirs`."""
        ours, theirs = self.our_axes.split(), _letters(self.their_axes)
        split = array.reshape([sizes[axis] for axis in theirs])
        return np.ascontiguousarray(split.transpose([theirs.index(axis) for axis in ours]))


@dataclass(frozen=True, kw_only=True)
class Family:
    """A Hugging Face model family.

    Attributes:
      name: what `--family` takes.
      model_type: `model_type` in their config.json.
      entries: the table for a config (a tied model has no head).
      sizes: axis letter -> length for a config.
      to_config: (config, seq_len, ids) -> their config.json; raises InputError on what the family
        cannot express.
      from_config: their config.json -> (config, seq_len); raises InputError on what we cannot.
    """

    name: str
    model_type: str
    entries: Callable[[ModelConfig], tuple[Entry, ...]]
    sizes: Callable[[ModelConfig], Sizes]
    to_config: Callable[[ModelConfig, int, SpecialIds], dict[str, Any]]
    from_config: Callable[[Mapping[str, Any]], tuple[ModelConfig, int]]


def _groups(axes: str) -> list[list[str]]:
    """ "(H C) D" -> [["H", "C"], ["D"]]."""
    groups: list[list[str]] = []
    joining = False
    for part in axes.replace("(", " ( ").replace(")", " ) ").split():
        if part == "(":
            groups.append([])
            joining = True
        elif part == ")":
            joining = False
        elif joining:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _letters(axes: str) -> list[str]:
    return [axis for group in _groups(axes) for axis in group]
