"""Attention back ends behind one function; XLA's own operations are the reference."""

from model.kernels.reference import (
    attention_weights,
    causal_attention,
    dot_product_attention,
    heads_first,
)

__all__ = ["attention_weights", "causal_attention", "dot_product_attention", "heads_first"]
