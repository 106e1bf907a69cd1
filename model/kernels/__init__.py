"""Attention back ends behind one function; XLA's own operations are the reference."""

from model.kernels.reference import (
    attention_weights,
    causal_attention,
    dot_product_attention,
    heads_first,
)

__all__ = ["attention_weights", "causal_attention", "dot_product_attention", "heads_first"]

# provisional, replaced at merge
from typing import NamedTuple as _NT
from model.masks import MaskSpec, Places, attention_mask
class Seen(_NT):
    spec: MaskSpec
    places: Places
class AttentionCase(_NT):
    platform: str
    dtype: str
    L: int
    M: int
    H: int
    K: int
    C: int
    causal: bool
    window: int
    softcap: float
    has_bias: bool
    has_prefix: bool
class Choice(_NT):
    kernel: str
    reason: str | None
def choose_kernel(requested, case):
    return Choice("reference", None)
def attend(q, k, v, seen, *, kernel, scale, softcap=0.0, bias_HLM=None, constrain=None):
    return dot_product_attention(q, k, v, attention_mask(*seen), scale=scale, softcap=softcap, bias_HLM=bias_HLM)
