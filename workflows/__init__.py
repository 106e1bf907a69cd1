"""Flows that cross rooms, one command each; `isoflop.py` calls the `main` of each."""
