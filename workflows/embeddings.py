"""isoflop embeddings: what is near what, among tokens and among texts, and a map of the tokens."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress

from configs.errors import require
from configs.folders import require_writable_folder
from configs.overrides import parse_command, reject_overrides
from data.corpus import open_corpus
from data.tokenizer import Tokenizer
from inference.embedding_space import (
    nearest,
    project_pca,
    project_umap,
    random_cosines,
    token_table,
)
from inference.sentence_embeddings import Pooling, sentence_embeddings
from inference.token_labels import (
    TOKEN_KINDS,
    ordinary_ids,
    token_kind,
    token_label,
    token_labels,
)
from report.pictures.canvas import save_png, write_html
from report.pictures.embedding_map import EmbeddingMap, map_figure, map_page
from workflows.load import Loaded, load
from workflows.text_lines import read_lines

PROG = "isoflop embeddings"
_MAP_NEIGHBOURS = 10


@dataclass(frozen=True, kw_only=True)
class EmbeddingsOptions:
    """Nearest neighbours of tokens and texts, and a map of the token table.

    What is one token is looked up in the token table; what is more is a text: its activations are
    pooled and compared with those of the other texts.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, or a Hugging Face folder that isoflop exported."""
    queries: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Tokens ("self.", " return", "<mask>") and texts."""
    texts: Path | None = None
    """A UTF-8 file with a text a line, among which texts have their neighbours."""
    neighbours: int = 8
    """So many neighbours, at most."""
    pooling: Pooling = "mean"
    """How a text's activations become one vector; first: an encoder's first place."""
    tokens: int = 2000
    """So many tokens on the map: the most frequent of --corpus, or the first of the vocabulary that
    are neither special nor single bytes."""
    corpus: Path | None = None
    """A corpus made with the same tokenizer; its held-out text says which tokens are frequent."""
    method: Literal["pca", "umap"] = "pca"
    """pca: the plane of the largest variance; umap keeps neighbours (needs umap-learn)."""
    out: Path = Path("embeddings")
    """Folder for the map (PNG and HTML) and the vectors of texts (.npz)."""
    json: bool = False
    """Print one JSON object."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop embeddings`."""
    options, overrides = parse_command(
        EmbeddingsOptions, args, prog=PROG, description=EmbeddingsOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    require(options.neighbours > 0, "neighbours", options.neighbours, "1 or more")
    require(options.tokens > 2, "tokens", options.tokens, "3 or more")
    require_writable_folder("out", options.out)
    lines = read_lines(options.texts, field="texts") if options.texts else []
    loaded = load(options.run)
    queries = {query: loaded.tokenizer.encode_with_symbols(query) for query in options.queries}
    for query, tokens in queries.items():
        require(bool(tokens), "queries", query, "a token or a text")
    chosen = [tokens[0] for tokens in queries.values() if len(tokens) == 1]
    texts = [query for query, tokens in queries.items() if len(tokens) > 1]
    table_VD = token_table(loaded.params)[: loaded.tokenizer.vocab_size]
    near_tokens = _near_tokens(loaded.tokenizer, table_VD, chosen, options.neighbours)
    near_texts, files = _near_texts(loaded, texts, lines, options)
    files += _draw_map(loaded.tokenizer, table_VD, chosen, options)
    spread = random_cosines(table_VD)
    if options.json:
        record = {"tokens": near_tokens, "texts": near_texts}
        record |= {"random_tokens": spread._asdict(), "files": list(map(str, files))}
        print(json.dumps({"schema_version": 1} | record))
        return 0
    for name, near in {**near_tokens, **near_texts}.items():
        print(f"nearest to {name!r}")
        print("".join(f"  {cosine:6.3f}  {other!r}\n" for other, cosine in near.items()))
    print(f"two tokens at random: cosine {spread.mean:.3f} ± {spread.deviation:.3f}")
    print("\n".join(map(str, files)))
    return 0


Near = dict[str, dict[str, float]]  # query -> neighbour -> cosine, nearest first


def _near_tokens(
    tokenizer: Tokenizer, table_VD: np.ndarray, chosen: Sequence[int], count: int
) -> Near:
    if not chosen:
        return {}
    found = nearest(table_VD, np.array(chosen), min(count, len(table_VD) - 1))
    return {
        token_label(tokenizer, token): {
            token_label(tokenizer, other): round(cosine, 4)
            for other, cosine in zip(indices, cosines, strict=True)
        }
        for token, indices, cosines in zip(
            chosen, found.indices_QK.tolist(), found.cosines_QK.tolist(), strict=True
        )
    }


def _near_texts(
    loaded: Loaded, texts: Sequence[str], lines: Sequence[str], options: EmbeddingsOptions
) -> tuple[Near, list[Path]]:
    """Neighbours of texts among all others; and the file their vectors went to."""
    everything = list(dict.fromkeys([*texts, *lines]))
    if not everything:
        return {}, []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("embedding texts", total=len(everything))
        vectors_ND = sentence_embeddings(
            loaded.config,
            loaded.params,
            loaded.tokenizer,
            everything,
            pooling=options.pooling,
            prompt_format=loaded.prompt_format,
            progress=lambda done: bars.update(bar, completed=done),
        )
    path = options.out / "texts.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, embeddings=vectors_ND, texts=np.array(everything), pooling=options.pooling)
    if not texts or len(everything) < 2:
        return {}, [path]
    count = min(options.neighbours, len(everything) - 1)
    found = nearest(vectors_ND, np.arange(len(texts)), count)
    near = {
        text: {
            everything[other]: round(cosine, 4)
            for other, cosine in zip(indices, cosines, strict=True)
        }
        for text, indices, cosines in zip(
            texts, found.indices_QK.tolist(), found.cosines_QK.tolist(), strict=True
        )
    }
    return near, [path]


def _draw_map(
    tokenizer: Tokenizer, table_VD: np.ndarray, chosen: Sequence[int], options: EmbeddingsOptions
) -> list[Path]:
    ids = list(dict.fromkeys([*_on_map(tokenizer, options), *chosen]))
    vectors_ND = table_VD[ids]
    projection = project_umap(vectors_ND) if options.method == "umap" else project_pca(vectors_ND)
    axes = ("UMAP 1", "UMAP 2")
    if projection.explained is not None:
        first, second = (f"{share:.1%} of the variance" for share in projection.explained)
        axes = (f"first principal component, {first}", f"second principal component, {second}")
    near = nearest(vectors_ND, np.arange(len(ids)), min(_MAP_NEIGHBOURS, len(ids) - 1))
    shown = EmbeddingMap(
        points_N2=projection.points_N2,
        labels=token_labels(tokenizer, ids),
        kinds=[TOKEN_KINDS.index(token_kind(tokenizer, token)) for token in ids],
        kind_names=TOKEN_KINDS,
        axes=axes,
        neighbours_NK=near.indices_QK,
        cosines_NK=near.cosines_QK,
        marked=[ids.index(token) for token in chosen],
    )
    order = "most frequent tokens" if options.corpus else "first tokens"
    title = f"Token table of {options.run.name}: {len(ids)} {order} of {len(table_VD)}"
    return [
        save_png(map_figure(title, shown), options.out / "tokens.png"),
        write_html(map_page(title, shown), options.out / "tokens.html"),
    ]


def _on_map(tokenizer: Tokenizer, options: EmbeddingsOptions) -> list[int]:
    """Ids of the tokens to be drawn, the most frequent first where a corpus tells."""
    if options.corpus is None:
        return ordinary_ids(tokenizer)[: options.tokens].tolist()
    corpus = open_corpus(options.corpus)
    require(
        corpus.tokenizer.sha == tokenizer.sha,
        "corpus",
        str(options.corpus),
        "one made with the run's tokenizer",
    )
    counts: Counter[int] = Counter()
    for document in corpus.documents("held_out"):
        counts.update(document.tokens.tolist())
    return [token for token, _ in counts.most_common(options.tokens)]
