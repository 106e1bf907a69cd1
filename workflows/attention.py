"""isoflop attention: who looks at whom in a text, and what each head does."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from configs.errors import require
from configs.folders import require_writable_folder
from configs.overrides import parse_command, reject_overrides
from inference.attention_maps import (
    SELF,
    AttentionMap,
    HeadStatistics,
    ModelInput,
    attention_maps,
    head_statistics,
    induction_scores,
    uniform_weight,
)
from inference.generate import generate
from inference.prompts import PromptFormat
from inference.sampling import Sampling
from inference.sentence_embeddings import read_text
from inference.token_labels import ordinary_ids, token_labels
from report.pictures.attention import (
    HeadWeights,
    attention_page,
    head_figure,
    heads_figure,
    page_bytes,
)
from report.pictures.canvas import save_png, write_html
from workflows.load import Loaded, load

PROG = "isoflop attention"
_ANSWER_TOKENS = 32
_MAX_PAGE_BYTES = 64_000_000
_COLUMNS = {
    "entropy": "entropy",
    "relative_entropy": "relative",
    "first": "first",
    "diagonal": "itself",
    "previous": "previous",
    "following": "following",
    "induction": "induction",
}


@dataclass(frozen=True, kw_only=True)
class AttentionOptions:
    """Attention weights of every layer and head for a text, as pictures and as a page.

    Per head: entropy of its weights (nats; relative: over the log of the number of keys seen),
    mean weight of the first key, of the token itself, the one before, the one after, and its
    induction score on random tokens repeated once.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, or a Hugging Face folder that isoflop exported."""
    text: Annotated[str, tyro.conf.Positional]
    """What the model reads (an encoder-decoder: in its encoder)."""
    target: str = ""
    """What an encoder-decoder's decoder reads; its own greedy answer unless given."""
    layers: tuple[int, ...] = ()
    """Show these layers, from 0; all unless given."""
    heads: tuple[int, ...] = ()
    """Show these heads, from 0; all unless given."""
    out: Path = Path("attention")
    """Folder for the pictures and the page."""
    seed: int = 0
    """Draws the random tokens of the induction score."""
    json: bool = False
    """Print the statistics as one JSON object."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop attention`."""
    options, overrides = parse_command(
        AttentionOptions, args, prog=PROG, description=AttentionOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    require(bool(options.text), "text", options.text, "some text")
    require_writable_folder("out", options.out)
    loaded = load(options.run)
    is_two_sided = loaded.config.architecture == "encoder_decoder"
    require(
        is_two_sided or not options.target,
        "target",
        options.target,
        "none: the model has no encoder beside a decoder",
    )
    for name, layers in (("layers", loaded.config.num_layers), ("heads", _num_heads(loaded))):
        for number in getattr(options, name):
            # Sides of different depth: the deeper one decides, the other shows what it has.
            most = max(layers, loaded.config.num_encoder_layers if name == "layers" else 0)
            require(0 <= number < most, name, number, f"0 to {most - 1}")
    around = loaded.prompt_format or PromptFormat.of(loaded.config, loaded.tokenizer)
    maps = attention_maps(loaded.config, loaded.params, _read(loaded, around, options))
    statistics = _statistics(loaded, around, maps, options.seed)
    shown = [
        _chosen(loaded, one, found, options) for one, found in zip(maps, statistics, strict=True)
    ]
    shown = [one for one in shown if one.layers]
    page = page_bytes(shown)
    require(
        page <= _MAX_PAGE_BYTES,
        "text",
        f"a page of {page >> 20} MiB",
        f"at most {_MAX_PAGE_BYTES >> 20}: a shorter text, or fewer --layers or --heads",
    )
    files = _write(options, shown)
    if options.json:
        print(json.dumps(_record(maps, statistics, files)))
    else:
        for one, found in zip(maps, statistics, strict=True):
            print(_table(one, found))
        print("\n".join(map(str, files)))
    return 0


def _num_heads(loaded: Loaded) -> int:
    return loaded.config.attention.num_heads


def _read(loaded: Loaded, around: PromptFormat, options: AttentionOptions) -> ModelInput:
    """The text with what stands around it in training."""
    config, tokenizer = loaded.config, loaded.tokenizer
    read = tuple(read_text(config, tokenizer, options.text, around))
    if config.architecture != "encoder_decoder":
        return ModelInput(tokens=read, is_prefix=loaded.prompt_is_prefix)
    if options.target:
        target = tuple(tokenizer.encode_with_symbols(options.target))
    else:
        (answer,) = generate(
            config,
            loaded.params,
            tokenizer,
            [options.text],
            max_tokens=_ANSWER_TOKENS,
            sampling=Sampling(temperature=0.0),
            prompt_format=loaded.prompt_format,
        )
        target = answer.tokens
    return ModelInput(tokens=(around.decoder_start, *target), encoder_tokens=read)


def _statistics(
    loaded: Loaded, around: PromptFormat, maps: Sequence[AttentionMap], seed: int
) -> list[list[HeadStatistics]]:
    begins = {
        "decoder_only": around.before,
        "encoder_only": around.encoder_before,
        "encoder_decoder": (around.decoder_start,),
    }
    inductions = induction_scores(
        loaded.config,
        loaded.params,
        begin=begins[loaded.config.architecture],
        ordinary_ids=ordinary_ids(loaded.tokenizer).tolist(),
        seed=seed,
    )
    return [
        head_statistics(one, inductions[one.stack] if one.kind == SELF else None) for one in maps
    ]


def _chosen(
    loaded: Loaded,
    one: AttentionMap,
    statistics: Sequence[HeadStatistics],
    options: AttentionOptions,
) -> HeadWeights:
    """The layers and heads asked for, with tokens as they read."""
    num_layers, num_heads = one.weights_NHLM.shape[:2]
    layers = [n for n in options.layers or range(num_layers) if n < num_layers]
    heads = list(options.heads or range(num_heads))
    return HeadWeights(
        kind=one.name,
        weights_NHLM=one.weights_NHLM[np.ix_(layers, heads)],
        queries=token_labels(loaded.tokenizer, one.queries),
        keys=token_labels(loaded.tokenizer, one.keys),
        layers=layers,
        heads=heads,
        statistics={
            (found.layer, found.head): {
                name: getattr(found, field) for field, name in _COLUMNS.items()
            }
            for found in statistics
        },
    )


def _write(options: AttentionOptions, shown: Sequence[HeadWeights]) -> list[Path]:
    """For each kind all heads and one large; one page for all."""
    files = []
    for one in shown:
        name = one.kind.replace(" ", "-")
        layer, head = _most_telling(one)
        files += [
            save_png(heads_figure(one), options.out / f"{name}.png"),
            save_png(head_figure(one, layer, head), options.out / f"{name}-{layer}.{head}.png"),
        ]
    title = f"Attention of {options.run.name}"
    return [*files, write_html(attention_page(title, shown), options.out / "attention.html")]


def _most_telling(shown: HeadWeights) -> tuple[int, int]:
    """(layer, head) whose weights are the least even, of those that do not rest on one token."""

    def evenness(place: tuple[int, int]) -> float:
        found = shown.statistics[place]
        resting = max(found["first"] or 0, found["itself"] or 0)
        return (found["relative"] or 0) + resting

    return min(((n, h) for n in shown.layers for h in shown.heads), key=evenness)


def _record(
    maps: Sequence[AttentionMap],
    statistics: Sequence[Sequence[HeadStatistics]],
    files: Sequence[Path],
) -> dict:
    kinds = [
        {
            "kind": one.name,
            "queries": one.queries,
            "keys": one.keys,
            "uniform_weight": uniform_weight(one),
            "heads": [asdict(head) for head in found],
        }
        for one, found in zip(maps, statistics, strict=True)
    ]
    return {"schema_version": 1, "attention": kinds, "files": list(map(str, files))}


def _table(one: AttentionMap, statistics: Sequence[HeadStatistics]) -> str:
    lines = [
        f"{one.name}: {len(one.queries)} queries, {len(one.keys)} keys; a head that looks at all "
        f"alike would give {uniform_weight(one):.3f} to each",
        "  layer.head" + "".join(f"{name:>11}" for name in _COLUMNS.values()),
    ]
    for found in statistics:
        values = [getattr(found, field) for field in _COLUMNS]
        cells = ["–" if value is None else f"{value:.3f}" for value in values]
        lines.append(f"  {f'{found.layer}.{found.head}':10}" + "".join(f"{c:>11}" for c in cells))
    return "\n".join([*lines, ""])
