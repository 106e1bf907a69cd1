"""A run directory, or a Hugging Face folder, to what it takes to use the model."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from configs.errors import InputError, require
from configs.model_config import ModelConfig
from data.foreign_tokenizer import ForeignTokenizer
from data.labelled_corpus import LABELS_NAME, read_labels
from data.tokenizer import Tokenizer
from export.import_ import import_folder
from export.manifest import read_json
from inference.prompts import PromptFormat
from model.build import Params, abstract_params
from train.checkpoint_reading import restore_params
from train.run_directory import RunDirectory

_GENERATION_FILE = "generation_config.json"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model ready to use.

    seq_len: the row length it was trained with. prompt_is_prefix: whether it learned to read what
    it continues both ways (a decoder-only run with the prefix_lm objective). prompt_format: what
    stands around texts where others made the tokenizer; None: as in our own training. labels:
    names of the classes of a run that was adapted to some.
    """

    config: ModelConfig
    params: Params
    tokenizer: Tokenizer
    seq_len: int
    prompt_is_prefix: bool = False
    prompt_format: PromptFormat | None = None
    labels: tuple[str, ...] = ()


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
            f"tokenizer: got {path} with neither tokenizer.json nor an isoflop export's "
            "tokenizer.model, expected one of them"
        )
    size, vocab_size = imported.tokenizer.vocab_size, imported.config.vocab_size
    require(
        size <= vocab_size,
        "tokenizer",
        f"{size} tokens in {path}",
        f"{vocab_size} at most (vocab_size)",
    )
    foreign = imported.tokenizer if isinstance(imported.tokenizer, ForeignTokenizer) else None
    return Loaded(
        config=imported.config,
        params=imported.params,
        tokenizer=imported.tokenizer,
        seq_len=imported.seq_len,
        prompt_format=foreign and _prompt_format(path, foreign, imported.config),
    )


def _prompt_format(folder: Path, tokenizer: ForeignTokenizer, config: ModelConfig) -> PromptFormat:
    """What transformers puts around texts: the tokenizer's own, and ids of the config files."""
    settings = read_json(folder / "config.json")
    if (folder / _GENERATION_FILE).is_file():
        given = read_json(folder / _GENERATION_FILE)
        settings |= {name: value for name, value in given.items() if value is not None}
    before, after = tokenizer.added_around
    start, end = settings.get("decoder_start_token_id"), settings.get("eos_token_id")
    ends = end if isinstance(end, list) else [tokenizer.eos_id if end is None else end]
    start = tokenizer.bos_id if start is None else start
    for name, number in [("decoder_start_token_id", start), *(("eos_token_id", n) for n in ends)]:
        is_id = type(number) is int and -1 <= number < config.vocab_size
        require(is_id, name, number, f"a token id, below {config.vocab_size}")
    return PromptFormat(
        before=before,
        after=after,
        encoder_before=before,
        encoder_after=after,
        decoder_start=start,
        eos_ids=tuple(ends),
        pad_id=tokenizer.pad_id,
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
        labels=read_labels(run.path)[1] if run.has(LABELS_NAME) else (),
    )


def on_host(params: Params) -> Params:
    """The parameters as NumPy arrays."""
    return jax.tree.map(np.asarray, params)
