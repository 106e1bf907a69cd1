"""What the model is: Linen modules composed from one concept per file.

Shape legend, the same letters in every file of this room:
B batch rows, L query length, M key length, D model width (emb_dim), H query heads, K key/value
heads, G query heads per key/value head (H / K), C head dimension, c half of it, F MLP width,
V vocabulary, N layers, E experts, S slots of a key/value cache, P rows of a position table.
"""
