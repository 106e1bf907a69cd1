"""More text for a pretrained run: its config, its corpora, and more pieces for its tokenizer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from configs.errors import require
from configs.schema import RunConfig
from data.corpus import open_corpus
from data.dataset import Corpora, open_corpora
from data.extend_tokenizer import extend_tokenizer
from data.preparation import Preparation
from data.sources.corpus_text import CorpusSource
from data.tokenizer import Tokenizer
from model.build import Params
from train.run_directory import RunDirectory
from workflows.adapt_config import Schedule, continued_config, corpora_config
from workflows.extend_vocabulary import extend_params
from workflows.load import load
from workflows.prepare import prepare


class TextAdaptation(NamedTuple):
    """params: the run's where its tokenizer has more pieces now; None: as they are."""

    config: RunConfig
    corpora: Corpora
    params: Params | None


def adapt_to_text(
    pretrained: RunDirectory,
    corpus: Path,
    schedule: Schedule,
    *,
    replay: float,
    name: str,
) -> TextAdaptation:
    """Goes on with the run's objective on a corpus, and with `replay` of the rows on its own.

    Raises:
      InputError: a corpus has another tokenizer than the run.
    """
    config = pretrained.config()
    folders = (str(corpus), *(config.data.corpora if replay else ()))
    corpora = open_corpora(corpora_config(folders))
    require(
        corpora[next(iter(corpora))].tokenizer.sha == Tokenizer.load(pretrained.tokenizer).sha,
        "corpus",
        str(corpus),
        f"one made with the run's tokenizer (isoflop prepare … --tokenizer {pretrained.path})",
    )
    config = continued_config(config, corpora, folders, schedule, replay=replay, name=name)
    return TextAdaptation(config, corpora, None)


def adapt_to_text_with_pieces(
    pretrained: RunDirectory,
    corpus: Path,
    schedule: Schedule,
    *,
    replay: float,
    name: str,
    new_pieces: int,
    out: Path,
    console: Console,
) -> TextAdaptation:
    """As `adapt_to_text`, with pieces added to the tokenizer for the corpus's training text.

    Args:
      out: folder to write the corpora into, prepared again with the longer tokenizer.
    """
    config = pretrained.config()
    old = Tokenizer.load(pretrained.tokenizer)
    opened = open_corpus(corpus)
    texts = (opened.tokenizer.decode(d.tokens) for d in opened.documents("train"))
    with console.status(f"adding {new_pieces:,} pieces to the tokenizer"):
        new = extend_tokenizer(old, texts, new_pieces=new_pieces)
        loaded = load(pretrained.path)
        model, params = extend_params(config.model, loaded.params, old=old, new=new)
    sources = [corpus, *(map(Path, config.data.corpora) if replay else ())]
    folders = _prepared(sources, new, out, console)
    corpora = open_corpora(corpora_config(folders))
    config = replace(config, model=model)
    config = continued_config(config, corpora, folders, schedule, replay=replay, name=name)
    return TextAdaptation(config, corpora, params)


def _prepared(
    sources: Sequence[Path], tokenizer: Tokenizer, out: Path, console: Console
) -> tuple[str, ...]:
    preparation = Preparation(vocab_size=tokenizer.vocab_size, tokenizer=tokenizer)
    folders = []
    for number, source in enumerate(sources):
        folder = out / f"{number}-{source.name}"
        prepare(CorpusSource(source), folder, preparation, console)
        folders.append(str(folder))
    return tuple(folders)
