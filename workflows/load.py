"""A run directory, or a Hugging Face folder, to what it takes to use the model."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from configs.errors import InputError
from configs.model_config import ModelConfig
from data.tokenizer import Tokenizer
from export.import_ import import_folder
from model.build import Params, abstract_params
from train.checkpoint import restore_params
from train.run_directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model ready to use.

    seq_len: the row length it was trained with. prompt_is_prefix: whether it learned to read what
    it continues both ways (a decoder-only run with the prefix_lm objective).
    """

    config: ModelConfig
    params: Params
    tokenizer: Tokenizer
    seq_len: int
    prompt_is_prefix: bool = False


def load(path: Path) -> Loaded:
    """Reads a run (its newest intact checkpoint) or a Hugging Face folder of a known family.

    Raises:
      InputError: neither of the two, or damaged.
    """
    if (path / "run.json").is_file():
        return _load_run(RunDirectory.open(path))
    if not (path / "config.json").is_file():
        raise InputError(
            f"run: got {path}, expected a run directory (with a run.json) or a Hugging Face "
            "folder (with a config.json)"
        )
    imported = import_folder(path)
    if imported.tokenizer is None:
        raise InputError(
            f"tokenizer: got {path} without a tokenizer.model, expected the SentencePiece model "
            "an isoflop export carries"
        )
    return Loaded(
        config=imported.config,
        params=imported.params,
        tokenizer=imported.tokenizer,
        seq_len=imported.seq_len,
    )


def _load_run(run: RunDirectory) -> Loaded:
    config = run.config()
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        abstract_params(config.model),
    )
    params = restore_params(run.checkpoints, abstract)
    return Loaded(
        config=config.model,
        params=params,
        tokenizer=Tokenizer.load(run.tokenizer),
        seq_len=config.data.seq_len,
        prompt_is_prefix=config.lengths.has_prefix,
    )


def on_host(params: Params) -> Params:
    """The parameters as NumPy arrays."""
    return jax.tree.map(np.asarray, params)
