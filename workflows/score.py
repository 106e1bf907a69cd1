"""isoflop score: how likely texts are."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import Progress

from configs.errors import InputError, require
from configs.overrides import parse_command, reject_overrides
from inference.scoring import Continuation, Score, Scorer
from workflows.load import load
from workflows.runtime import RuntimeOptions, prepare_runtime

PROG = "isoflop score"


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(RuntimeOptions):
    """Log-likelihood (nats), perplexity and bits per byte of texts.

    An encoder gives its pseudo-log-likelihood: each token's given all others. An encoder-decoder
    scores answers to a --context.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, or a Hugging Face folder with a tokenizer."""
    texts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Texts to score."""
    files: tuple[Path, ...] = ()
    """Text files (UTF-8) to score, each as one text."""
    context: str | None = None
    """Score the texts as what follows this one, or answers it; each in one row."""
    window: int = 0
    """Tokens in a row; 0: as many as in training."""
    stride: int = 0
    """Tokens from one window's begin to the next one's; 0: the window, so that windows see nothing
    of one another, as in held-out evaluation. A token past the first window sees window − stride
    tokens before it or more."""
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
    for name, text in texts:
        require(bool(text), "texts", name, "some text (this one is empty)")
    if options.context is not None:
        windows = (options.window, options.stride)
        require(windows == (0, 0), "context", options.context, "no --window and --stride beside it")
    prepare_runtime(options, Console(quiet=True))
    loaded = load(options.run)
    scorer = Scorer(
        loaded.config,
        loaded.params,
        loaded.tokenizer,
        seq_len=loaded.seq_len,
        prompt_is_prefix=loaded.prompt_is_prefix,
        prompt_format=loaded.prompt_format,
    )
    for (name, _), result in zip(texts, _scored(scorer, texts, options), strict=True):
        if options.json:
            record: dict[str, Any] = {"schema_version": 1, "name": name} | asdict(result)
            record |= {"perplexity": result.perplexity, "bits_per_byte": result.bits_per_byte}
            print(json.dumps(record))
        else:
            print(f"{name!r}: {_describe(result)}")
    return 0


def _scored(
    scorer: Scorer, texts: Sequence[tuple[str, str]], options: ScoreOptions
) -> Sequence[Score | Continuation]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("scoring", total=None)

        def advance(num_rows: int, of: int) -> None:
            progress.update(task, advance=num_rows, total=of)

        if options.context is not None:
            pairs = [(options.context, text) for _, text in texts]
            return scorer.log_likelihoods(pairs, advance=advance)
        return scorer.scores(
            [text for _, text in texts],
            window=options.window,
            stride=options.stride,
            advance=advance,
        )


def _describe(result: Score | Continuation) -> str:
    kind, size = "", f"{result.tokens} tokens, {result.bytes} bytes"
    if isinstance(result, Score):
        kind = "pseudo-" if result.measure == "pseudo_log_likelihood" else ""
        if result.tokens > result.window:
            size += f", windows of {result.window} every {result.stride}"
    else:
        size += f", greedy: {'yes' if result.is_greedy else 'no'}"
    return (
        f"{kind}log-likelihood {result.log_likelihood:.3f} nats, {kind}perplexity "
        f"{result.perplexity:.3f}, {result.bits_per_byte:.4f} {kind}bits per byte ({size})"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"files: got {path} ({error}), expected a readable UTF-8 file") from error
