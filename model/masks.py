"""Who may attend to whom: one boolean mask from one spec."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


@dataclass(frozen=True, kw_only=True)
class MaskSpec:
    """What decides whether a query sees a key, besides both being of one segment.

    causal: the key must not come after the query, unless it is of the prefix. window: the key must
    be less than so many places away; 0 for any distance.
    """

    causal: bool
    window: int = 0


class Places(NamedTuple):
    """Where the L queries and M keys of an attention stand.

    Slots are places in the row or in the cache and order queries against keys; positions would
    not do, since they restart at every document. Segment 0 is padding. key_prefix_BM is 1 where a
    key may be seen by all of its segment; None where there is no such key.
    """

    query_slots_L: Int[Array, " L"]
    key_slots_M: Int[Array, " M"]
    query_segments_BL: Int[Array, "B L"]
    key_segments_BM: Int[Array, "B M"]
    key_prefix_BM: Int[Array, "B M"] | None = None

    @property
    def distance_LM(self) -> Int[Array, "L M"]:
        """Key slot minus query slot."""
        return self.key_slots_M[None, :] - self.query_slots_L[:, None]


def row_places(
    segments_BL: Int[Array, "B L"], prefix_BL: Int[Array, "B L"] | None = None
) -> Places:
    """A row that attends to itself."""
    return segment_places(segments_BL, segments_BL)._replace(key_prefix_BM=prefix_BL)


def segment_places(
    query_segments_BL: Int[Array, "B L"], key_segments_BM: Int[Array, "B M"]
) -> Places:
    """A row that attends to another one, whose order is none of its own."""
    slots_L, slots_M = (jnp.arange(s.shape[1]) for s in (query_segments_BL, key_segments_BM))
    return Places(slots_L, slots_M, query_segments_BL, key_segments_BM)


def attention_mask(spec: MaskSpec, places: Places) -> Bool[Array, "B L M"]:
    """True where query l may attend to key m.

    Nobody attends to padding (a padding query attends to nothing; its output is meaningless and
    carries no loss).
    """
    allowed = segment_mask(places.query_segments_BL, places.key_segments_BM)
    if spec.causal:
        visible = (places.distance_LM <= 0)[None, :, :]
        if places.key_prefix_BM is not None:
            visible = visible | (places.key_prefix_BM > 0)[:, None, :]
        allowed &= visible
    if spec.window:
        allowed &= (jnp.abs(places.distance_LM) < spec.window)[None, :, :]
    return allowed


def segment_mask(
    query_segments_BL: Int[Array, "B L"], key_segments_BM: Int[Array, "B M"]
) -> Bool[Array, "B L M"]:
    """True where query and key are of one segment, and not of padding."""
    same_segment = query_segments_BL[:, :, None] == key_segments_BM[:, None, :]
    return same_segment & (key_segments_BM != 0)[:, None, :]
