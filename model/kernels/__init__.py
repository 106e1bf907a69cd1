"""Attention back ends behind one function; XLA's own operations are the reference."""

from model.kernels.reference import causal_attention, dot_product_attention

__all__ = ["causal_attention", "dot_product_attention"]
