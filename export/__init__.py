"""How a model leaves: Hugging Face folders out (verified) and in, one table per family."""
