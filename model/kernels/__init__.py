"""Attention kernels behind one function; XLA's own operations are the reference."""

from model.kernels.attend import attend, kernel_for
from model.kernels.choice import KERNELS, AttentionCase, Choice, attention_case, choose_kernel
from model.kernels.reference import (
    attention_weights,
    causal_attention,
    dot_product_attention,
    heads_first,
)
from model.kernels.seen import Seen

__all__ = [
    "KERNELS",
    "AttentionCase",
    "Choice",
    "Seen",
    "attend",
    "attention_case",
    "attention_weights",
    "causal_attention",
    "choose_kernel",
    "dot_product_attention",
    "heads_first",
    "kernel_for",
]
