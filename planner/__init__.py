"""How big: from a budget to a plan, and from finished runs to a law. NumPy and SciPy only."""
