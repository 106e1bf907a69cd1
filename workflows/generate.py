"""isoflop generate: a prompt to its continuation, its answer, or what its masks stand for."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from configs.overrides import parse_command, reject_overrides
from inference.fill_mask import fill_mask
from inference.generate import generate
from inference.sampling import Sampling
from workflows.load import Loaded, load

PROG = "isoflop generate"


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Continues prompts; one prompt streams to the terminal as it is written.

    An encoder-decoder answers its prompts; sentinels may be spelled: "def f(<extra_id_0>):".
    An encoder fills in what is masked: "import <mask>".
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, or a Hugging Face folder that isoflop exported."""
    prompts: Annotated[tuple[str, ...], tyro.conf.Positional]
    """One or more prompts; several are continued in one batch."""
    max_tokens: int = 128
    """At most so many new tokens; the end-of-sequence token ends sooner."""
    temperature: float = 0.8
    """Divides the logits; 0 is greedy."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    top_p: float = 0.95
    """Keep only the most likely tokens that together reach this probability; 1 keeps all."""
    seed: int = 0
    """The same seed gives the same text."""
    json: bool = False
    """Print one JSON object a prompt."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop generate`."""
    options, overrides = parse_command(
        GenerateOptions, args, prog=PROG, description=GenerateOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    sampling = Sampling(
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=options.seed,
    )
    loaded = load(options.run)
    architecture = loaded.config.architecture
    if architecture == "encoder_only":
        return _fill_in(options, loaded)
    continues = architecture == "decoder_only"
    stream = len(options.prompts) == 1 and not options.json
    if stream and continues:
        print(options.prompts[0], end="", flush=True)
    generations = generate(
        loaded.config,
        loaded.params,
        loaded.tokenizer,
        options.prompts,
        max_tokens=options.max_tokens,
        sampling=sampling,
        prompt_is_prefix=loaded.prompt_is_prefix,
        on_text=_print_now if stream else None,
    )
    if stream:
        print()
    elif options.json:
        for generation in generations:
            record = asdict(generation) | {"sampling": asdict(sampling)}
            print(json.dumps({"schema_version": 1, **record}))
    else:
        for number, generation in enumerate(generations, start=1):
            print(f"--- {number}\n{generation.prompt if continues else ''}{generation.text}")
    return 0


def _fill_in(options: GenerateOptions, loaded: Loaded) -> int:
    filled = fill_mask(loaded.config, loaded.params, loaded.tokenizer, options.prompts)
    for one in filled:
        if options.json:
            print(json.dumps({"schema_version": 1, **asdict(one)}))
            continue
        print(one.text)
        for number, candidates in enumerate(one.candidates, start=1):
            shown = ", ".join(f"{c.text!r} {c.probability:.3f}" for c in candidates)
            print(f"  mask {number}: {shown}")
    return 0


def _print_now(_: int, text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
