"""Parameters for a tokenizer with more pieces: rows for the new ones, made of the old ones'."""

from dataclasses import replace

import numpy as np

from configs.errors import require
from configs.model_config import ModelConfig
from data.tokenizer import Tokenizer
from model.build import Params

# Arrays with an entry for each token, and the axis it is on.
_VOCABULARY_AXES = {
    ("token_embedding", "embedding"): 0,
    ("head", "kernel"): 1,
    ("head", "bias"): 0,
}


def extend_params(
    config: ModelConfig, params: Params, *, old: Tokenizer, new: Tokenizer
) -> tuple[ModelConfig, Params]:
    """A model for `new`, which gives the old tokens the logits they had.

    A new piece's row is the mean of the rows of the old pieces that spell it, as in IndoBERTweet
    (Koto et al. 2021, arXiv 2109.04607); so its first logit is the mean of theirs (before a
    softcap).

    Args:
      config: its vocabulary may be larger than `old`'s; the rows in excess are used up first.
      params: as `model.build` lays them out; arrays of the host or of devices.
      new: begins with the pieces of `old` (`data.extend_tokenizer`).

    Returns:
      The config with a vocabulary that holds `new`, and parameters on the host, fp32. Optimizer
      state is the caller's: it has other shapes now.

    Raises:
      InputError: `new` does not begin with `old`'s pieces, or the model has fewer rows than `old`.
    """
    size = old.vocab_size
    require(
        size <= config.vocab_size, "tokenizer", f"{size} pieces", f"{config.vocab_size} at most"
    )
    require(
        new.vocab_size >= size and new.pieces[:size] == old.pieces,
        "tokenizer",
        f"{new.vocab_size} pieces of others",
        f"one that begins with the {size} there were",
    )
    spellings = [old.encode(piece.replace("\u2581", " ")) for piece in new.pieces[size:]]
    larger = replace(config, vocab_size=max(config.vocab_size, new.vocab_size))
    extended = dict(params)
    for (module, name), axis in _VOCABULARY_AXES.items():
        if name in params.get(module, {}):
            table = np.asarray(params[module][name], np.float32)
            rows = _with_means(np.moveaxis(table, axis, 0), spellings, size)
            extended[module] = extended[module] | {name: np.moveaxis(rows, 0, axis)}
    return larger, extended


def _with_means(rows: np.ndarray, spellings: list[list[int]], size: int) -> np.ndarray:
    """[V, …] with a mean row for each spelling after the first `size` rows."""
    if not spellings:
        return rows
    means = np.stack([rows[ids].mean(0) for ids in spellings])
    return np.concatenate([rows[:size], means, rows[size + len(spellings) :]])
