"""What an export family is: a table from our parameters to theirs, and configs both ways.

An entry names the axes of an array in our layout and in theirs; both transforms and both shapes
follow from the two strings, so an inverse cannot disagree with its transform.

Axes: V vocab, D model, O model again (outputs of a square matrix), H heads, K kv heads, C head
dim, F mlp, E experts, P positions, T token types, R relative buckets. Their linear layers keep
weights as (out, in); ours keep (in, out), with heads as an axis of their own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from configs.mlp_config import MoEConfig
from configs.model_config import Architecture, ModelConfig
from configs.position_config import LearnedPositionConfig, RelativeBiasConfig

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
      theirs: name of their tensor; with "{layer}" there is one tensor per layer, with "{expert}"
        one per expert, and ours carries layers, then experts, on leading axes that the axes below
        leave out.
      our_axes: a letter per axis of ours, "D H C".
      their_axes: the same letters as they lie in theirs; parentheses join axes: "(H C) D". A
        number is an axis of theirs that ours has not: 1 a constant one, n > 1 the n equal parts
        of a tensor that several of ours share: "D (3 H C)" is query, key and value in one.
      part: which of the n parts this entry is.
      first_layer: the layers before it have no tensor in theirs.
      fill: what ours is filled with where theirs has nothing: in the layers before `first_layer`,
        or, where that is 0, if files lack the tensor; None: they must have it.
    """

    ours: str
    theirs: str
    our_axes: str
    their_axes: str
    part: int = 0
    first_layer: int = 0
    fill: float | None = None

    def __post_init__(self):
        letters = [axis for axis in self._their_letters if not axis.isdigit()]
        assert sorted(letters) == sorted(self.our_axes.split()), self
        assert self.part < self.num_parts, self
        assert not self.first_layer or (self.fill is not None and self.per_layer), self

    @property
    def per_layer(self) -> bool:
        """Whether there is one of their tensors per layer."""
        return "{layer}" in self.theirs

    @property
    def per_expert(self) -> bool:
        """Whether there is one of their tensors per expert."""
        return "{expert}" in self.theirs

    @property
    def num_parts(self) -> int:
        """How many of our parameters share their tensor."""
        return math.prod(int(axis) for axis in self._their_letters if axis.isdigit())

    @property
    def may_be_missing(self) -> bool:
        """Whether files may lack the tensor."""
        return self.fill is not None and self.first_layer == 0

    def our_shape(self, sizes: Sizes) -> tuple[int, ...]:
        """Shape of our array, without the leading axes of layers and experts."""
        return tuple(sizes[axis] for axis in self.our_axes.split())

    def their_shape(self, sizes: Sizes) -> tuple[int, ...]:
        """Shape of their tensor, all parts of it."""
        groups = _groups(self.their_axes)
        return tuple(math.prod(_size(axis, sizes) for axis in group) for group in groups)

    def put(self, array: np.ndarray, tensor: np.ndarray, sizes: Sizes) -> None:
        """Writes our array, one layer and expert of it, into its part of their tensor.

        (D, H, C) -> "(H C) D" -> (H*C, D)
        """
        ours, theirs = self.our_axes.split(), self._their_letters
        moved = array.transpose([ours.index(axis) for axis in theirs if not axis.isdigit()])
        split = tensor.reshape([_size(axis, sizes) for axis in theirs], copy=False)
        split[self._index] = moved

    def take(self, tensor: np.ndarray, sizes: Sizes) -> np.ndarray:
        """Our array from its part of their tensor, contiguous; inverse of `put`."""
        ours = self.our_axes.split()
        letters = [axis for axis in self._their_letters if not axis.isdigit()]
        split = tensor.reshape([_size(axis, sizes) for axis in self._their_letters])
        moved = split[self._index].transpose([letters.index(axis) for axis in ours])
        return np.ascontiguousarray(moved)

    @property
    def _their_letters(self) -> list[str]:
        return [axis for group in _groups(self.their_axes) for axis in group]

    @property
    def _index(self) -> tuple[int | slice, ...]:
        """Picks this part from their tensor with all its axes apart."""
        return tuple(
            (0 if axis == "1" else self.part) if axis.isdigit() else slice(None)
            for axis in self._their_letters
        )


@dataclass(frozen=True, kw_only=True)
class Family:
    """A Hugging Face model family.

    Attributes:
      name: what `--family` takes.
      model_type: `model_type` in their config.json.
      architectures: what `architectures` in a config.json may be; the first if it is missing.
      architecture: ours.
      blocks: field of ModelConfig -> the variants that the family has, checked before `to_config`.
      entries: the table for a config. Entries of parameters that the config's model lacks are left
        out, so a table may list what only some configs have.
      to_config: (config, seq_len, ids) -> their config.json. It need not check what the family
        cannot express: `export.express` reads the result back and compares.
      from_config: their config.json -> (config, seq_len); raises InputError on what we cannot.
      renames: (pattern, replacement), as `re.sub` takes them, from other names in files to the
        table's, in order.
      left_out: pattern of a tensor's name (after renaming) -> why it is not read.
      copies: name -> the tensor it repeats where files hold both; they must be equal.
    """

    name: str
    model_type: str
    architectures: tuple[str, ...]
    architecture: Architecture
    blocks: Mapping[str, type | tuple[type, ...]]
    entries: Callable[[ModelConfig], Sequence[Entry]]
    to_config: Callable[[ModelConfig, int, SpecialIds], dict[str, Any]]
    from_config: Callable[[Mapping[str, Any]], tuple[ModelConfig, int]]
    renames: Callable[[ModelConfig], Sequence[tuple[str, str]]] = lambda config: ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    copies: Callable[[ModelConfig], Mapping[str, str]] = lambda config: {}


def entries_of(*rows: tuple[str, str, str, str]) -> tuple[Entry, ...]:
    """Entries from (ours, theirs, our_axes, their_axes)."""
    return tuple(
        Entry(ours=ours, theirs=theirs, our_axes=our_axes, their_axes=their_axes)
        for ours, theirs, our_axes, their_axes in rows
    )


def sizes_of(config: ModelConfig) -> Sizes:
    """Axis letter -> length, for the axes that the model has."""
    sizes = {
        "V": config.vocab_size,
        "D": config.emb_dim,
        "O": config.emb_dim,
        "H": config.attention.num_heads,
        "K": config.attention.num_kv_heads,
        "C": config.attention.head_dim,
        "F": config.mlp.mlp_dim,
    }
    if isinstance(config.mlp, MoEConfig):
        sizes["E"] = config.mlp.num_experts
    if isinstance(config.position, LearnedPositionConfig):
        sizes["P"] = config.position.num_positions
    if isinstance(config.position, RelativeBiasConfig):
        sizes["R"] = config.position.num_buckets
    if config.embedding.num_token_types:
        sizes["T"] = config.embedding.num_token_types
    return sizes


def num_layers_of(config: ModelConfig, ours: str) -> int:
    """Layers of the side that a parameter's path begins with."""
    if config.architecture == "encoder_decoder" and ours.startswith("encoder/"):
        return config.num_encoder_layers
    return config.num_layers


def _size(axis: str, sizes: Sizes) -> int:
    return int(axis) if axis.isdigit() else sizes[axis]


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
