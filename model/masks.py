"""Who may attend to whom: one boolean mask from one spec."""

from dataclasses import dataclass

from jaxtyping import Array, Bool, Int


@dataclass(frozen=True, kw_only=True)
class MaskSpec:
    """What decides whether a query sees a key, besides both being of one segment.

    causal: the key must not come after the query.
    """

    causal: bool


def attention_mask(
    spec: MaskSpec,
    *,
    query_slots_L: Int[Array, " L"],
    key_slots_M: Int[Array, " M"],
    query_segments_BL: Int[Array, "B L"],
    key_segments_BM: Int[Array, "B M"],
) -> Bool[Array, "B L M"]:
    """True where query l may attend to key m.

    Slots are places in the row or in the cache and order queries against keys; positions would
    not do, since they restart at every document. Segment 0 is padding: nobody attends to it (a
    padding query attends to nothing; its output is meaningless and carries no loss).
    """
    same_segment = query_segments_BL[:, :, None] == key_segments_BM[:, None, :]
    allowed = same_segment & (key_segments_BM != 0)[:, None, :]
    if spec.causal:
        allowed &= (query_slots_L[:, None] >= key_slots_M[None, :])[None, :, :]
    return allowed
