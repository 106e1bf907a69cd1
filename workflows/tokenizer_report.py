"""What `isoflop tokenizer compare` says: its figures as tables or JSON, a verdict and warnings."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from data.vocabulary import BrokenWord, TokenizerUse
from report.formatting import count, significant

TOKENS_PER_PARAM = 20  # a matmul parameter; the planner's rule below its laws' range
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


def tokenizer_record(one: Measured) -> dict[str, object]:
    """One tokenizer's entry in the JSON object."""
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


def print_tables(
    domain: Domain,
    measured: Sequence[Measured],
    *,
    preset: str,
    seq_len: int,
    min_count: int,
    paragraphs: Sequence[str],
) -> None:
    """Prints the figures, the words that break and `paragraphs` for a person to read."""
    width = None if sys.stdout.isatty() else _WIDTH
    console = Console(width=width, markup=False, highlight=False)
    _print_measures(domain, measured, preset, seq_len, console)
    finest = f"cut finest, seen {min_count} times or more"
    for one in measured:
        _print_words(one.name, "that cost most, by count × (pieces − 1)", one.costliest, console)
        _print_words(one.name, finest, one.finest, console)
    for paragraph in paragraphs:
        console.print(f"\n{paragraph}")


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
        f"A vocabulary of {use.vocab_size:,} pieces costs {count(cost.embedding_params)} "
        f"embedding parameters, {share:.1%} of the shape. New pieces need new embeddings, so no "
        f"trained model can take them over: one has to be pretrained. {TOKENS_PER_PARAM} tokens (a "
        f"rule of thumb) for each of {count(cost.matmul_params)} matmul parameters are "
        f"{count(cost.own_pretraining_tokens)} tokens, {_size(cost.own_pretraining_bytes)} of "
        f"such text. You gave {_size(domain.num_bytes)}, which would be read "
        f"{passes:,.{digits}f} times. Up to {MAX_PASSES} times are nearly free (Muennighoff et al. "
        f"2023, arXiv 2305.16264); that pretrains {count(affordable)} matmul parameters"
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
        f"3·{TOKENS_PER_PARAM}·{count(best.cost.matmul_params)} / {saved:.3g} = {count(tokens)} "
        f"tokens, {_size(tokens * best.use.bytes_per_token)} of text read or written in use. "
        "Assumed: equal shapes, N matmul parameters, a backward pass of two forward passes, "
        "FLOPs as the price, and both models equally good, which has to be measured."
    )


def _saving(best: Measured, other: Measured) -> float:
    """r − 1: what `other` costs more for the same text, in FLOPs of `best`."""
    return other.cost.training_flops / best.cost.training_flops - 1


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
        ("  embedding and head parameters", lambda u, c: count(c.embedding_params)),
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


def _size(num_bytes: float) -> str:
    """'7.12 GB', in decimal units."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= 0.9995 * scale:
            return f"{significant(num_bytes / scale)} {unit}"
    return f"{num_bytes:.0f} B"
