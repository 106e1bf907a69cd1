"""A Hugging Face folder -> config, parameters, tokenizer.

Nothing in the folder is trusted: safetensors only, no code, strict names and shapes, checksums
where the folder is an export of ours.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from configs.errors import InputError
from configs.model_config import ModelConfig
from data.foreign_tokenizer import TOKENIZER_FILE, ForeignTokenizer
from data.tokenizer import Tokenizer
from export.convert import from_hf, table_name
from export.families import family_of
from export.manifest import MANIFEST, read_json, require_checksums
from export.tensors import read_tensors


class ImportedModel(NamedTuple):
    """What a folder holds.

    Attributes:
      config: the model.
      params: nested dict of fp32 arrays, as `model.build` lays them out.
      tokenizer: ours where tokenizer.model is one of ours, else that of tokenizer.json; None where
        there is neither.
      seq_len: the longest context, in tokens.
    """

    config: ModelConfig
    params: dict[str, Any]
    tokenizer: Tokenizer | None
    seq_len: int


def import_folder(folder: str | Path) -> ImportedModel:
    """Reads a folder of a family we have a table for.

    The tokenizer is read from tokenizer.model if it is a SentencePiece model with our special ids,
    from tokenizer.json otherwise.

    Raises:
      InputError: no such folder or file, a config we cannot express, pickled weights only, names
        that leave the folder, missing or unused tensors, damage.
    """
    folder = Path(folder)
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    if manifest is not None:
        require_checksums(folder, manifest)
    theirs = read_json(folder / "config.json")
    family = family_of(theirs)
    config, seq_len = family.from_config(theirs)
    tensors = read_tensors(folder, partial(table_name, config=config, family=family))
    params = from_hf(tensors, config, family)
    return ImportedModel(config, params, _tokenizer(folder, ours=manifest is not None), seq_len)


def _tokenizer(folder: Path, *, ours: bool) -> Tokenizer | None:
    path = folder / "tokenizer.model"
    if path.is_file():
        try:
            return Tokenizer.load(path)
        except InputError:
            if ours:
                raise
    return ForeignTokenizer(folder) if (folder / TOKENIZER_FILE).is_file() else None
