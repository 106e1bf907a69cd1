"""isoflop tokenizer compare: what tokenizers make of a domain's text, and what that costs."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from configs.errors import InputError, require
from configs.overrides import load_preset_or_file, parse_command, reject_overrides
from configs.schema import ModelConfig
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

PROG = "isoflop tokenizer"
TOKENS_PER_PARAM = 20  # a matmul parameter; the planner's rule below its laws' range
READ_FACTOR = 32  # bytes read for each byte of a sample, at most
MAX_PASSES = 4  # repeats that cost little: Muennighoff et al. 2023, arXiv 2305.16264
_WIDTH = 120
_NO_SPACES = 15  # characters a word, above which whitespace hardly separates words
_BLOOMBERG = (
    "Case study: BloombergGPT (arXiv 2303.17564) pretrained 50.6B parameters on 569B tokens, about "
    "half of them finance, with 131,072 pieces of its own. They were trained on the Pile, not on "
    "finance: OPT's tokenizer took 1.11 times the tokens on the financial text and 1.23 times on "
    "C4, so its size and its pieces of several words seem to explain more than the domain does."
)


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


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a text costs a reference shape with a tokenizer's vocabulary.

    token_ratio and flops_ratio: against the tokenizer with the fewest tokens, and with the fewest
    training FLOPs, for the same text. embedding_params: the table, and the head where it is not
    tied. inference_flops: of the forward pass, a token at a time or at once, in a context of one
    row. own_pretraining_tokens: 20 for each matmul parameter.
    """

    token_ratio: float
    flops_ratio: float
    flops_per_token: float
    training_flops: float
    bytes_per_row: float
    words_per_row: float
    embedding_params: int
    matmul_params: int
    total_params: int
    inference_flops_per_1000_words: float
    own_pretraining_tokens: int
    own_pretraining_bytes: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One tokenizer: what it made of the text and what that costs.

    is_new: trained on the other half of the text just now, so that no model has it yet.
    """

    name: str
    is_new: bool
    use: TokenizerUse
    cost: Cost
    costliest: list[BrokenWord]
    finest: list[BrokenWord]


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The text: what was read of it, and what of that was measured (and trained on).

    num_bytes: of all of it; as its source estimates them where not all was read.
    """

    source: str
    read_documents: int
    read_bytes: int
    num_bytes: int
    measured_bytes: int
    distinct_words: int
    train_bytes: int
    split_by: str | None


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
            "tokenizers": [_record(one) for one in measured],
            "verdict": conclusions,
            "notes": remarks,
        }
        print(json.dumps(record, indent=2))
    else:
        width = None if sys.stdout.isatty() else _WIDTH
        console = Console(width=width, markup=False, highlight=False)
        _print_measures(domain, measured, options.preset, seq_len, console)
        finest = f"cut finest, seen {options.min_count} times or more"
        for one in measured:
            _print_words(
                one.name, "that cost most, by count × (pieces − 1)", one.costliest, console
            )
            _print_words(one.name, finest, one.finest, console)
        for paragraph in [*conclusions, *remarks]:
            console.print(f"\n{paragraph}")
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


def verdict(domain: Domain, measured: Sequence[Measured], seq_len: int) -> list[str]:
    """What the figures mean, in words and with the arithmetic."""
    best = min(measured, key=lambda one: (one.cost.training_flops, one.name))
    others = [one for one in measured if one is not best]
    return [
        *(_against(best, other, seq_len) for other in others),
        _own_pretraining(best, domain),
        *(_payback(best, other) for other in others if not other.is_new and _saving(best, other)),
        "None of this is a loss. Bytes per token say how long the text becomes, not how well a "
        "model predicts it. Perplexities per token do not compare across tokenizers; bits per byte "
        "do: train a small model with each at equal FLOPs and compare those (isoflop pretrain).",
        _BLOOMBERG,
    ]


def notes(domain: Domain, measured: Sequence[Measured]) -> list[str]:
    """What to beware of in these figures."""
    found: list[str] = []
    sizes = sorted({one.use.vocab_size for one in measured})
    if len(sizes) > 1:
        found.append(
            f"Beware: the vocabularies have {sizes[0]:,} to {sizes[-1]:,} pieces. A larger one "
            "usually makes any text shorter; what the domain does shows between equal sizes "
            "(--train-vocab SIZE)."
        )
    found.append(
        "Beware: a tokenizer that was trained on the very text it is measured on looks better than "
        "it is" + (" (domain-SIZE was not)." if domain.split_by else ".")
    )
    if domain.split_by == "parts":
        found.append(
            "Beware: the halves share documents, since there are few or one is very long; that "
            "flatters domain-SIZE."
        )
    use = measured[0].use
    if use.num_characters > _NO_SPACES * use.num_words:
        found.append(
            f"Beware: {use.num_characters / use.num_words:.0f} characters stand between spaces on "
            "average. Words mean little here; read bytes per token."
        )
    for one in measured:
        if one.use.spelled_bytes != one.use.num_bytes:
            found.append(
                f"Beware: {one.name} does not give the text back: its tokens spell "
                f"{one.use.spelled_bytes:,} bytes of {one.use.num_bytes:,}."
            )
    return found


def _against(best: Measured, other: Measured, seq_len: int) -> str:
    tokens = other.use.num_tokens / best.use.num_tokens
    flops = other.cost.training_flops / best.cost.training_flops
    return (
        f"{other.name} needs {tokens:.2f} times the tokens of {best.name} on this text "
        f"({other.use.num_tokens:,} against {best.use.num_tokens:,}) and {flops:.2f} times the "
        f"training FLOPs ({other.cost.flops_per_token:.3g} a token against "
        f"{best.cost.flops_per_token:.3g}). At equal FLOPs a model with {best.name} reads "
        f"{flops:.2f} times as much of such text; a row of {seq_len:,} tokens holds "
        f"{best.cost.bytes_per_row:,.0f} bytes of it instead of {other.cost.bytes_per_row:,.0f}."
    )


def _own_pretraining(best: Measured, domain: Domain) -> str:
    cost, use = best.cost, best.use
    share = cost.embedding_params / cost.total_params
    passes = cost.own_pretraining_bytes / domain.num_bytes
    digits = 0 if passes >= 10 else 2
    affordable = MAX_PASSES * domain.num_bytes / use.bytes_per_token / TOKENS_PER_PARAM
    too_small = ", fewer than the embedding has" if affordable < cost.embedding_params else ""
    return (
        f"A vocabulary of {use.vocab_size:,} pieces costs {_short(cost.embedding_params)} "
        f"embedding parameters, {share:.1%} of the shape. New pieces need new embeddings, so no "
        f"trained model can take them over: one has to be pretrained. {TOKENS_PER_PARAM} tokens (a "
        f"rule of thumb) for each of {_short(cost.matmul_params)} matmul parameters are "
        f"{_short(cost.own_pretraining_tokens)} tokens, {_size(cost.own_pretraining_bytes)} of "
        f"such text. You gave {_size(domain.num_bytes)}, which would be read "
        f"{passes:,.{digits}f} times. Up to {MAX_PASSES} times are nearly free (Muennighoff et al. "
        f"2023, arXiv 2305.16264); that pretrains {_short(affordable)} matmul parameters"
        f"{too_small}. Other text can fill up the rest; then how the pieces fit that counts too."
    )


def _payback(best: Measured, other: Measured) -> str:
    """Own pretraining against an existing model of the same shape: when shorter text pays for it.

    Pretraining is 20·N tokens of three forward passes each; in use every token of `best` saves
    r − 1 forward passes, with r the ratio of FLOPs for the same text.
    """
    saved = _saving(best, other)
    tokens = 3 * best.cost.own_pretraining_tokens / saved
    return (
        f"Were there a model with {other.name} already, shorter text alone would pay back a "
        f"pretraining with {best.name} after 3·{TOKENS_PER_PARAM}·N / (r − 1) = "
        f"3·{TOKENS_PER_PARAM}·{_short(best.cost.matmul_params)} / {saved:.3g} = {_short(tokens)} "
        f"tokens, {_size(tokens * best.use.bytes_per_token)} of text read or written in use. "
        "Assumed: equal shapes, N matmul parameters, a backward pass of two forward passes, "
        "FLOPs as the price, and both models equally good, which has to be measured."
    )


def _saving(best: Measured, other: Measured) -> float:
    """r − 1: what `other` costs more for the same text, in FLOPs of `best`."""
    return other.cost.training_flops / best.cost.training_flops - 1


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


def _record(one: Measured) -> dict[str, object]:
    derived = (
        *("bytes_per_token", "tokens_per_word", "byte_token_share", "byte_character_share"),
        *("vocabulary_used", "single_piece_share", "fixed_width_bits_per_byte"),
    )
    return {
        "name": one.name,
        "is_new": one.is_new,
        **asdict(one.use),
        **{name: getattr(one.use, name) for name in derived},
        "cost": asdict(one.cost),
        "costliest_words": [_word_record(word) for word in one.costliest],
        "finest_cut_words": [_word_record(word) for word in one.finest],
    }


def _word_record(word: BrokenWord) -> dict[str, object]:
    return asdict(word) | {
        "extra_tokens": word.extra_tokens,
        "pieces_per_character": word.pieces_per_character,
    }


def _print_measures(
    domain: Domain, measured: Sequence[Measured], preset: str, seq_len: int, console: Console
) -> None:
    use = measured[0].use
    of_all = f" of about {domain.num_bytes:,}" if domain.num_bytes > domain.read_bytes else ""
    trained = (
        f"; domain-SIZE trained on up to {domain.train_bytes:,} bytes of the other half "
        f"({domain.split_by} kept whole)"
        if domain.split_by
        else ""
    )
    console.print(
        f"{domain.source}: read {domain.read_documents:,} documents, {domain.read_bytes:,} bytes"
        f"{of_all}; measured on {domain.measured_bytes:,}{trained}.\n"
        f"Words are what stands between whitespace: {use.num_words:,}, "
        f"{domain.distinct_words:,} of them distinct.\n"
    )
    rows: list[tuple[str, Callable[[TokenizerUse, Cost], str]]] = [
        ("pieces", lambda u, c: f"{u.vocab_size:,}"),
        ("tokens", lambda u, c: f"{u.num_tokens:,}"),
        ("bytes per token", lambda u, c: f"{u.bytes_per_token:.3f}"),
        ("tokens per word", lambda u, c: f"{u.tokens_per_word:.3f}"),
        ("tokens that are bytes", lambda u, c: f"{u.byte_token_share:.3%}"),
        ("  characters they spell", lambda u, c: f"{u.byte_character_share:.3%}"),
        ("pieces that occur", lambda u, c: f"{u.vocabulary_used:.1%}"),
        ("words of a single piece", lambda u, c: f"{u.single_piece_share:.1%}"),
        ("bits a byte at log2(pieces) a token", lambda u, c: f"{u.fixed_width_bits_per_byte:.3f}"),
        (f"in {preset}, {seq_len:,} tokens a row:", lambda u, c: ""),
        ("  tokens against the fewest", lambda u, c: f"{c.token_ratio:.3f}×"),
        ("  training FLOPs per token", lambda u, c: f"{c.flops_per_token:.4g}"),
        ("  training FLOPs for this text", lambda u, c: f"{c.training_flops:.4g}"),
        ("  FLOPs against the fewest", lambda u, c: f"{c.flops_ratio:.3f}×"),
        ("  bytes per row", lambda u, c: f"{c.bytes_per_row:,.0f}"),
        ("  words per row", lambda u, c: f"{c.words_per_row:,.0f}"),
        ("  embedding and head parameters", lambda u, c: _short(c.embedding_params)),
        ("  share of all parameters", lambda u, c: f"{c.embedding_params / c.total_params:.1%}"),
        (
            "  inference FLOPs per 1,000 words",
            lambda u, c: f"{c.inference_flops_per_1000_words:.4g}",
        ),
    ]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for one in measured:
        table.add_column(one.name, justify="right")
    for label, cell in rows:
        table.add_row(label, *(cell(one.use, one.cost) for one in measured))
    console.print(table)


def _print_words(name: str, ranked_by: str, words: Sequence[BrokenWord], console: Console) -> None:
    if not words:
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("extra tokens", "count", "pieces/character"):
        table.add_column(heading, justify="right")
    table.add_column("word")
    table.add_column("pieces")
    for word in words:
        table.add_row(
            f"{word.extra_tokens:,}",
            f"{word.count:,}",
            f"{word.pieces_per_character:.2f}",
            _visible(word.word, 24),
            _visible(" ".join(word.pieces), 48),
        )
    console.print(f"\n{name}: words {ranked_by}")
    console.print(table)


def _visible(text: str, width: int) -> str:
    """`text` with what a terminal would act on escaped, cut to `width`."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= width else shown[: width - 1] + "…"


def _short(value: float) -> str:
    """'6.29M', '1.94B' or '512'."""
    return _scaled(value, ("T", "B", "M", "k"))


def _size(num_bytes: float) -> str:
    """'7.12 GB'."""
    return f"{_scaled(num_bytes, (' T', ' G', ' M', ' k'))}B"


def _scaled(value: float, prefixes: Sequence[str]) -> str:
    for prefix, size in zip(prefixes, (1e12, 1e9, 1e6, 1e3), strict=True):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"
