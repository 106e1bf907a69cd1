"""What a run reads: sources, tokenizer, corpus, rows, batches. NumPy only, never JAX."""
