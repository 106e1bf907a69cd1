"""Tasks a trained model is tried on or adapted to: labelled examples, and how they are asked.

Those that come with isoflop need no download: their examples are made of the standard library's
source, cut into train and held-out files as the corpus is, or drawn at random.
"""
