"""From a run's config to the rows it trains on: corpora opened and checked, mixed and packed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from configs.data_config import (
    BestFitConfig,
    ConcatenateConfig,
    DataConfig,
    LengthBucketsConfig,
    ProportionalMixtureConfig,
    SingleCorpusConfig,
    WeightedMixtureConfig,
)
from configs.errors import InputError, Problems, require
from configs.objective_config import ObjectiveConfig
from configs.schema import RunConfig, TrainingConfig
from data.best_fit import BestFit
from data.concatenate import Concatenate
from data.control_symbols import require_symbols
from data.corpus import Corpus, open_corpus
from data.length_buckets import LengthBuckets
from data.mixture import (
    REPEATS_NEARLY_FREE,
    Assignment,
    epochs_ahead,
    proportional_weights,
)
from data.objectives.symbols import Symbols
from data.packing import Packing, RowShape
from data.rows import RowSource
from data.token_stream import TokenSource

Corpora = Mapping[str, Corpus]


def open_corpora(config: DataConfig) -> dict[str, Corpus]:
    """Opens the corpora a config names: name -> corpus, in order.

    A corpus's name is its folder's, or the whole path where two folders share a name.

    Raises:
        InputError: none is named, some are damaged, or their tokenizers differ.
    """
    require(bool(config.corpora), "data.corpus", "", "a prepared corpus")
    folders = [Path(path) for path in config.corpora]
    names = [folder.name for folder in folders]
    problems, corpora = Problems(), {}
    for name, folder in zip(names, folders, strict=True):
        with problems.gathered():
            corpora[name if names.count(name) == 1 else str(folder)] = open_corpus(folder)
    problems.raise_any()
    first, *others = corpora
    for other in others:
        if corpora[other].tokenizer.sha != corpora[first].tokenizer.sha:
            raise InputError(
                f"data.mixture.corpora: got other tokenizers in {first!r} and {other!r}, expected "
                f"the same (isoflop prepare ... --tokenizer {corpora[first].path})"
            )
    return corpora


def with_corpora(config: RunConfig, folders: Sequence[Path]) -> RunConfig:
    """The config with its corpora in other folders; as it is where none are given.

    Raises:
      InputError: another number of folders than the config has corpora.
    """
    if not folders:
        return config
    paths = tuple(map(str, folders))
    if isinstance(config.data.mixture, SingleCorpusConfig):
        require(len(paths) == 1, "corpus", paths, "one folder, or a config with a mixture")
        return replace(config, data=replace(config.data, corpus=paths[0]))
    expected = len(config.data.corpora)
    require(len(paths) == expected, "corpus", paths, f"the mixture's {expected} folders, in order")
    mixture = replace(config.data.mixture, corpora=paths)
    return replace(config, data=replace(config.data, mixture=mixture))


def corpora_record(corpora: Corpora) -> list[dict[str, str]]:
    """What a run's fingerprint.json says of its corpora."""
    return [
        {"name": name, "path": str(corpus.path), "sha": corpus.sha}
        for name, corpus in corpora.items()
    ]


def require_same_corpora(corpora: Corpora, record: object) -> None:
    """Raises InputError unless `record`, a run's `corpora_record`, is of these very corpora."""
    entries = record if isinstance(record, list) else []
    began_with = [entry.get("sha") for entry in entries if isinstance(entry, dict)]
    shas = [corpus.sha for corpus in corpora.values()]
    require(shas == began_with, "data.corpus", shas, f"{began_with}, what fingerprint.json names")


def make_packing(config: DataConfig, stream: TokenSource, objective: ObjectiveConfig) -> Packing:
    """The rows of one stream as `config.packing` makes them, shaped for the objective.

    Raises:
        InputError: rows of that length cannot be made of the stream.
    """
    shapes = {length: RowShape.of(objective.lengths(length)) for length in config.row_lengths}
    packing, seed, shape = config.packing, config.seed, shapes[config.seq_len]
    match packing:
        case ConcatenateConfig():
            return Concatenate(packing, stream, shape, seq_len=config.seq_len, seed=seed)
        case BestFitConfig():
            return BestFit(packing, stream, shape, seq_len=config.seq_len, seed=seed)
        case LengthBucketsConfig():
            return LengthBuckets(packing, stream, shapes, seed=seed)


def training_rows(config: RunConfig, corpora: Corpora) -> RowSource:
    """The rows a run trains on.

    Raises:
        InputError: rows of that length cannot be made of a corpus, or the tokenizer lacks control
            symbols that the objective needs.
    """
    symbols = next(iter(corpora.values())).tokenizer.symbols
    require_objective_symbols(config, symbols)
    streams = {name: corpus.stream("train") for name, corpus in corpora.items()}
    return RowSource(
        {
            name: make_packing(config.data, stream, config.objective)
            for name, stream in streams.items()
        },
        seed=config.data.seed,
        objective=config.objective,
        symbols=symbols,
        assignment=_assignment(
            config.data, config.training, [s.num_tokens for s in streams.values()]
        ),
    )


def require_objective_symbols(config: RunConfig, symbols: Symbols) -> None:
    """Raises InputError, with the remedy, unless the tokenizer has what the objective writes."""
    names = config.objective.symbols(config.data.seq_len)  # shorter rows need no more
    require_symbols(symbols, names, f"objective {config.objective.kind}")


def corpus_warnings(config: RunConfig, source: RowSource) -> list[str]:
    """A sentence for each corpus that the whole run reads more than four times, or never.

    Raises:
        InputError: one would be read more often than data.max_epochs.
    """
    num_rows = config.training.rows_before(config.training.num_steps)
    facts = source.facts
    rows_per_epoch = [corpus.rows_per_epoch for corpus in facts]
    if source.assignment is None:
        epochs = [num_rows / rows_per_epoch[0]]
    else:
        epochs = epochs_ahead(source.assignment, num_rows, rows_per_epoch)
    warnings = []
    for corpus, times in zip(facts, epochs, strict=True):
        require(
            not 0 < config.data.max_epochs < times,
            "data.max_epochs",
            config.data.max_epochs,
            f"{times:.2f} or more: this run reads {corpus.name} that often (fewer steps, more "
            "text, or a smaller weight)",
        )
        if times == 0:
            warnings.append(
                f"{corpus.name} serves none of this run's rows: its weight is too small"
            )
        if times > REPEATS_NEARLY_FREE:
            warnings.append(
                f"{corpus.name} will be read {times:.1f} times: beyond {REPEATS_NEARLY_FREE} "
                "epochs, repeated text is worth less than new (Muennighoff et al. 2023)"
            )
    return warnings


def check_corpora(config: RunConfig, corpora: Corpora) -> None:
    """Raises InputError with every way in which config and corpora do not belong together."""
    problems = Problems()
    for corpus in corpora.values():
        with problems.gathered():
            require(
                config.model.vocab_size >= corpus.tokenizer.vocab_size,
                "model.vocab_size",
                config.model.vocab_size,
                f"the tokenizer's {corpus.tokenizer.vocab_size} or more",
            )
    with problems.gathered():
        corpus_warnings(config, training_rows(config, corpora))
    problems.raise_any()


def _assignment(
    config: DataConfig, training: TrainingConfig, sizes: list[int]
) -> Assignment | None:
    mixture = config.mixture
    match mixture:
        case WeightedMixtureConfig():
            starts = [0, *(training.rows_before(step) for step in mixture.stage_steps)]
            return Assignment(mixture.stages, starts)
        case ProportionalMixtureConfig():
            weights = proportional_weights(
                sizes, temperature=mixture.temperature, cap=mixture.cap_tokens or None
            )
            return Assignment([weights])
    return None
