"""Parameters, config and tokenizer -> a verified Hugging Face folder, all or nothing."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import InputError
from configs.folders import require_writable_folder
from configs.model_config import ModelConfig
from data.tokenizer import Tokenizer
from export.convert import to_hf
from export.express import express
from export.families import get_family
from export.families.family import SpecialIds
from export.manifest import MANIFEST, checksums, write_json
from export.reference import ApplyFn, model_apply
from export.tensors import MAX_SHARD_BYTES, write_tensors
from export.tokenizer import special_ids, write_tokenizer
from export.verify import TEMPLATES, VerificationReport, verify_export


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """Where the folder is and how it was verified.

    Attributes:
      path: the folder.
      family: the table used.
      num_params: numbers written.
      num_bytes: bytes of all files.
      verification: what was compared, and with what.
    """

    path: Path
    family: str
    num_params: int
    num_bytes: int
    verification: VerificationReport


def export_run(
    params: Mapping[str, Any],
    config: ModelConfig,
    tokenizer: Tokenizer,
    out_dir: str | Path,
    *,
    family: str = "llama",
    seq_len: int,
    lines: Sequence[str] = (),
    apply_fn: ApplyFn | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> ExportResult:
    """Writes a folder that `transformers` loads with its tokenizer, and verifies it from disk.

    Everything happens in a temporary folder beside `out_dir`, which takes the name only once
    verified: a failure leaves an earlier export as it was.

    Args:
      params: nested fp32 parameters.
      config: their model.
      tokenizer: what it was trained with; its ids must fit the vocabulary.
      out_dir: new, empty, or an earlier export, which is replaced.
      family: name in `export.families.FAMILIES`.
      seq_len: tokens in a training row, written as the longest context.
      lines: text, best held out, on which the tokenizers are compared.
      apply_fn: our forward pass; made from the config by default.
      max_shard_bytes: largest tensor file before another is begun.

    Raises:
      InputError: what the family cannot express, parameters that do not fit the config, or an
        `out_dir` that holds something else.
      VerificationError: what is on disk is not the model.
    """
    out_dir = Path(out_dir).absolute()
    table = get_family(family)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"tokenizer: got {tokenizer.vocab_size} pieces, expected at most the model's "
            f"vocab_size ({config.vocab_size})"
        )
    _require_replaceable(out_dir)
    ids = special_ids(tokenizer.model_bytes)
    configs = {
        "config.json": express(config, table, seq_len, ids),
        "generation_config.json": _generation_config(config, ids),
    }
    tensors = to_hf(params, config, table)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", dir=out_dir.parent))
    temporary = private / out_dir.name
    try:
        temporary.mkdir()  # with the usual permissions, which mkdtemp does not give
        for name, content in configs.items():
            write_json(temporary / name, content)
        write_tensors(tensors, temporary, max_shard_bytes)
        template = TEMPLATES[config.architecture]
        write_tokenizer(tokenizer.model_bytes, temporary, seq_len, template=template)
        report = verify_export(
            temporary, params, config, tokenizer, apply_fn or model_apply(config), lines
        )
        write_json(temporary / MANIFEST, _manifest(temporary, family, report))
        num_bytes = sum(_synced_bytes(path) for path in temporary.iterdir())
        _put_in_place(temporary, out_dir)
    finally:
        shutil.rmtree(private, ignore_errors=True)
    return ExportResult(
        path=out_dir,
        family=family,
        num_params=sum(tensor.size for tensor in tensors.values()),
        num_bytes=num_bytes,
        verification=report,
    )


def _generation_config(config: ModelConfig, ids: SpecialIds) -> dict[str, Any]:
    has_both = config.architecture == "encoder_decoder"
    return {
        **({"decoder_start_token_id": ids.bos} if has_both else {}),
        "bos_token_id": ids.bos,
        "eos_token_id": ids.eos,
        "pad_token_id": ids.pad,
        "do_sample": False,
    }


def _manifest(folder: Path, family: str, report: VerificationReport) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "family": family,
        "verified_against": report.reference,
        "max_abs_logit_difference": report.max_abs_logit_difference,
        "xxh3_128": checksums(folder),
    }


def _require_replaceable(out_dir: Path) -> None:
    """An earlier export may be replaced; anything else a user keeps there may not."""
    if out_dir.is_dir() and not out_dir.is_symlink():
        if not (out_dir / MANIFEST).is_file() and any(out_dir.iterdir()):
            raise InputError(f"out: got {out_dir}, expected a new or empty folder, or an export")
    elif out_dir.exists() or out_dir.is_symlink():
        raise InputError(f"out: got {out_dir}, expected a folder")
    require_writable_folder("out", out_dir.parent)


def _synced_bytes(path: Path) -> int:
    """Flushes a file to disk; returns its size."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path.stat().st_size


def _put_in_place(temporary: Path, out_dir: Path) -> None:
    """Renames the new folder to its name; an earlier one steps aside and is removed after."""
    if not out_dir.exists():
        temporary.rename(out_dir)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", dir=out_dir.parent))
    earlier = out_dir.rename(aside / out_dir.name)
    try:
        temporary.rename(out_dir)
    except OSError:
        earlier.rename(out_dir)
        raise
    finally:
        if out_dir.exists():
            shutil.rmtree(aside, ignore_errors=True)
