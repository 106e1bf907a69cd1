"""isoflop score: how likely texts are."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from configs.errors import InputError, require
from configs.overrides import parse_command, reject_overrides
from inference.scoring import score
from workflows.load import load

PROG = "isoflop score"


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Log-likelihood (nats), perplexity and bits per byte of texts."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, or a Hugging Face folder that isoflop exported."""
    texts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Texts to score."""
    files: tuple[Path, ...] = ()
    """Text files (UTF-8) to score, each as one text."""
    json: bool = False
    """Print one JSON object a text."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop score`."""
    options, overrides = parse_command(
        ScoreOptions, args, prog=PROG, description=ScoreOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    texts = [(text if len(text) <= 40 else text[:37] + "…", text) for text in options.texts]
    texts += [(str(path), _read(path)) for path in options.files]
    require(bool(texts), "texts", "none", "at least one text or --files")
    loaded = load(options.run)
    for name, text in texts:
        result = score(loaded.config, loaded.params, loaded.tokenizer, text, seq_len=loaded.seq_len)
        if options.json:
            record = {"name": name} | asdict(result)
            record |= {"perplexity": result.perplexity, "bits_per_byte": result.bits_per_byte}
            print(json.dumps({"schema_version": 1, **record}))
        else:
            print(
                f"{name!r}: log-likelihood {result.log_likelihood:.3f} nats, perplexity "
                f"{result.perplexity:.3f}, {result.bits_per_byte:.4f} bits per byte "
                f"({result.tokens} tokens, {result.bytes} bytes)"
            )
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"files: got {path} ({error}), expected a readable UTF-8 file") from error
