"""Who sees whom, before any array of queries by keys is made."""

from typing import NamedTuple

from jaxtyping import Array, Bool

from model.masks import MaskSpec, Places, attention_mask


class Seen(NamedTuple):
    """What a kernel needs to know of an attention's mask.

    spec: causal and window, static. places: slots and segments of queries and keys. Kernels other
    than the reference take slots for granted: 0, 1, 2, … along the queries and along the keys.
    """

    spec: MaskSpec
    places: Places

    @property
    def mask_BLM(self) -> Bool[Array, "B L M"]:
        """The whole mask, for kernels that cannot do without."""
        return attention_mask(self.spec, self.places)
