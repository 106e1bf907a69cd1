"""isoflop tokenizer compare: what tokenizers make of a domain's text, and what that costs."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from configs.errors import InputError, require
from configs.model_config import ModelConfig
from configs.overrides import load_preset_or_file, parse_command, reject_overrides
from configs.serialize import did_you_mean
from data.sources import open_source
from data.sources.text_source import TextSource
from data.tokenizer import SAMPLE_BYTES, Tokenizer, train_tokenizer
from data.vocabulary import (
    BrokenWord,
    Sample,
    TokenizerUse,
    costliest_words,
    count_words,
    cut_words,
    draw_documents,
    finest_cut_words,
    sample_parts,
    split_in_halves,
    tokenizer_use,
)
from planner.accounting import (
    matmul_params,
    non_embedding_params,
    total_params,
    training_flops_per_token,
)
from planner.budget import parse_count
from workflows.tokenizer_report import (
    TOKENS_PER_PARAM,
    Cost,
    Domain,
    Measured,
    notes,
    print_tables,
    tokenizer_record,
    verdict,
)

PROG = "isoflop tokenizer"
READ_FACTOR = 32  # bytes read for each byte of a sample, at most


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """compare: bytes per token, words that break, and what the same text costs in training.

    Asks when a domain deserves a tokenizer, and a pretraining, of its own.
    """

    text: str
    """The domain's text, named as for `isoflop prepare`: stdlib, a file, folder or glob, tfds:NAME,
    hf:NAME."""
    text_field: str = "text"
    """Field or column of the text, where documents are records."""
    tokenizers: tuple[str, ...] = ()
    """Each a tokenizer.model file, a corpus folder or a run directory; NAME=PATH names it."""
    train_vocab: tuple[int, ...] = ()
    """Also train a tokenizer of each of these sizes on half of the text; then all are measured on
    the other half."""
    preset: str = "decoder_only/small"
    """Shape that costs are counted for, a preset or .json file; its vocabulary is replaced."""
    seq_len: int | None = None
    """Tokens a row; the preset's if not given."""
    max_bytes: str = "8M"
    """Measure on a sample of this many bytes at most, drawn by a hash from the whole text, or from
    32 times as many bytes of it (64 with --train-vocab) where it is longer."""
    top: int = 8
    """Words to list for each tokenizer."""
    min_count: int = 5
    """Words seen less often are left out of those cut finest."""
    seed: int = 0
    """Draws the sample and the halves, and trains the tokenizers."""
    json: bool = False
    """Print one JSON object instead of tables."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop tokenizer`."""
    action = args[0] if args else "nothing"
    if action not in ("compare", "-h", "--help"):
        near = did_you_mean(action, ["compare"])
        raise InputError(f"{PROG}: got {action!r}, expected compare{near}")
    options, overrides = parse_command(
        CompareOptions,
        args[1:] if action == "compare" else args,
        prog=f"{PROG} compare",
        description=CompareOptions.__doc__ or "",
    )
    reject_overrides(overrides, prog=f"{PROG} compare")
    config = load_preset_or_file(options.preset)
    seq_len = config.data.seq_len if options.seq_len is None else options.seq_len
    domain, measured = compare(options, config.model, seq_len)
    remarks = notes(domain, measured)
    conclusions = verdict(domain, measured, seq_len)
    if options.json:
        record = {
            "schema_version": 1,
            "text": asdict(domain),
            "reference": {"preset": options.preset, "seq_len": seq_len, "seed": options.seed},
            "tokenizers": [tokenizer_record(one) for one in measured],
            "verdict": conclusions,
            "notes": remarks,
        }
        print(json.dumps(record, indent=2))
    else:
        print_tables(
            domain,
            measured,
            preset=options.preset,
            seq_len=seq_len,
            min_count=options.min_count,
            paragraphs=[*conclusions, *remarks],
        )
    return 0


def compare(
    options: CompareOptions, shape: ModelConfig, seq_len: int
) -> tuple[Domain, list[Measured]]:
    """Reads the text, trains what is to be trained, and measures every tokenizer.

    Raises:
        InputError: fewer than two tokenizers, two of one name, no text, or an option out of range.
    """
    require(seq_len >= 2, "seq_len", seq_len, "2 or more tokens")
    require(options.top >= 0, "top", options.top, "0 or more words")
    require(options.min_count >= 1, "min_count", options.min_count, "1 or more")
    max_bytes = int(parse_count("max_bytes", options.max_bytes))
    tokenizers = _load_tokenizers(options.tokenizers, options.train_vocab)
    progress = Console(stderr=True)
    # With tokenizers to train, half of the sample is theirs.
    sample_bytes = 2 * max_bytes if options.train_vocab else max_bytes
    read_bytes = READ_FACTOR * sample_bytes
    with progress.status("reading the text"):
        source = open_source(options.text, text_field=options.text_field)
        documents = draw_documents(source, max_bytes=read_bytes, seed=options.seed)
        sample = sample_parts(documents, max_bytes=sample_bytes, seed=options.seed)
    parts, train, split_by = sample.parts, [], None
    if options.train_vocab:
        train, parts, split_by = split_in_halves(sample.parts, seed=options.seed)
    new = {f"domain-{size}": size for size in options.train_vocab}
    for name, size in new.items():
        with progress.status(f"training {name}"):
            tokenizers[name] = _train([part.text for part in train], size, options.seed)
    texts = [part.text for part in parts]
    words = count_words(texts)
    uses: dict[str, TokenizerUse] = {}
    broken: dict[str, tuple[list[BrokenWord], list[BrokenWord]]] = {}
    top, min_count = options.top, options.min_count
    for name, tokenizer in tokenizers.items():
        with progress.status(f"measuring {name}"):
            cuts = cut_words(tokenizer, words)
            uses[name] = tokenizer_use(tokenizer, texts, words, cuts)
            broken[name] = (
                costliest_words(tokenizer, words, cuts, top=top),
                finest_cut_words(tokenizer, words, cuts, top=top, min_count=min_count),
            )
    domain = Domain(
        source=options.text,
        read_documents=sample.num_documents,
        read_bytes=sample.num_bytes,
        num_bytes=_all_bytes(source, sample, read_bytes),
        measured_bytes=sum(len(part.data) for part in parts),
        distinct_words=len(words),
        train_bytes=min(sum(len(part.data) for part in train), SAMPLE_BYTES),
        split_by=split_by,
    )
    all_costs = costs(uses, shape, seq_len)
    return domain, [
        Measured(
            name=name,
            is_new=name in new,
            use=uses[name],
            cost=all_costs[name],
            costliest=broken[name][0],
            finest=broken[name][1],
        )
        for name in tokenizers
    ]


def costs(uses: Mapping[str, TokenizerUse], shape: ModelConfig, seq_len: int) -> dict[str, Cost]:
    """What the text costs a shape with each tokenizer's vocabulary in place of its own.

    Training FLOPs are the planner's: 6 for each matmul parameter (the head, which grows with the
    vocabulary, included) and causal attention at `seq_len`, for each token.
    """
    shapes = {name: replace(shape, vocab_size=use.vocab_size) for name, use in uses.items()}
    per_token = {name: training_flops_per_token(s, seq_len).total for name, s in shapes.items()}
    flops = {name: use.num_tokens * per_token[name] for name, use in uses.items()}
    fewest_tokens = min(use.num_tokens for use in uses.values())
    fewest_flops = min(flops.values())

    def cost(name: str) -> Cost:
        use, model = uses[name], shapes[name]
        own_tokens = TOKENS_PER_PARAM * matmul_params(model)
        return Cost(
            token_ratio=use.num_tokens / fewest_tokens,
            flops_ratio=flops[name] / fewest_flops,
            flops_per_token=per_token[name],
            training_flops=flops[name],
            bytes_per_row=seq_len * use.bytes_per_token,
            words_per_row=seq_len / use.tokens_per_word,
            embedding_params=total_params(model) - non_embedding_params(model),
            matmul_params=matmul_params(model),
            total_params=total_params(model),
            inference_flops_per_1000_words=1000 * use.tokens_per_word * per_token[name] / 3,
            own_pretraining_tokens=own_tokens,
            own_pretraining_bytes=own_tokens * use.bytes_per_token,
        )

    return {name: cost(name) for name in uses}


def _load_tokenizers(specs: Sequence[str], train_vocab: Sequence[int]) -> dict[str, Tokenizer]:
    """Name -> tokenizer, in the order given; those still to be trained only have their name."""
    places = [_named_path(spec) for spec in specs]
    names = [name for name, _ in places] + [f"domain-{size}" for size in train_vocab]
    require(
        len(names) >= 2, "tokenizers", ", ".join(names) or "none", "two or more to compare "
        "(--train-vocab SIZE trains one on the text)",
    )  # fmt: skip
    for name in names:
        require(names.count(name) == 1, "tokenizers", name, "a name of its own: NAME=PATH")
    return {name: Tokenizer.load(path) for name, path in places}


def _named_path(spec: str) -> tuple[str, Path]:
    """("law", corpora/law/tokenizer.model) for "corpora/law", "law=corpora/law" or the file."""
    name, equals, rest = spec.partition("=")
    if not equals or os.path.exists(spec) or os.sep in name:
        name, rest = "", spec
    elif not name or not rest:
        raise InputError(f"tokenizers: got {spec!r}, expected NAME=PATH")
    path = Path(os.path.abspath(rest))
    model = path / "tokenizer.model" if path.is_dir() else path
    require(
        model.is_file(),
        "tokenizers",
        rest,
        "a tokenizer.model file, or a corpus folder or run directory that holds one",
    )
    in_folder = model.name == "tokenizer.model"
    return name or (model.parent.name if in_folder else model.stem), model


def _train(texts: Sequence[str], size: int, seed: int) -> Tokenizer:
    try:
        return train_tokenizer(texts, size, seed=seed)
    except InputError as error:
        raise InputError(str(error).replace("vocab_size", "train_vocab", 1)) from error


def _all_bytes(source: TextSource, sample: Sample, read_bytes: int) -> int:
    if sample.num_bytes < read_bytes:
        return sample.num_bytes
    return max(source.size_bytes() or 0, sample.num_bytes)
