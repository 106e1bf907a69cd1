"""How a trained model is used: sampling, generation, scoring."""
