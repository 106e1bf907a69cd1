"""How big: from a budget to a plan. NumPy and the standard library only."""
