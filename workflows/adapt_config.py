"""From a pretrained run's config to that of a run that adapts it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from configs.data_config import (
    BestFitConfig,
    DataConfig,
    LengthBucketsConfig,
    PackingConfig,
    WeightedMixtureConfig,
)
from configs.errors import require
from configs.labelled_config import (
    InstructionTuningConfig,
    LabelledConfig,
    SequenceClassificationConfig,
    SequenceToSequenceConfig,
    TokenClassificationConfig,
)
from configs.model_config import (
    Architecture,
    HeadConfig,
    LinearHeadConfig,
    SequenceClassificationHeadConfig,
    TokenClassificationHeadConfig,
)
from configs.optimizer_config import AdamWConfig, CosineConfig
from configs.schema import RunConfig, TrainingConfig
from data.corpus import Corpus
from data.dataset import Corpora, training_rows
from data.labelled import Kind

WARMUP_FRACTION = 0.1
# Where documents fill more than this of a row, packing would cut many and gain little.
_ALONE_FROM = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How an adaptation trains.

    learning_rate: peak; 0: 0.1 / emb_dim, a rule of thumb (docs/adaptation.md). num_steps: 0: as
    many as `epochs` take.
    """

    learning_rate: float = 0.0
    epochs: float = 3.0
    num_steps: int = 0
    batch_size: int = 32
    seed: int = 0


def objective_for(kind: Kind, architecture: Architecture) -> LabelledConfig:
    """The objective of a kind of task for an architecture.

    Raises:
      InputError: the architecture is not one for the kind.
    """
    if kind == "classification" and architecture != "encoder_decoder":
        return SequenceClassificationConfig(architecture=architecture)
    by_kind: dict[str, LabelledConfig] = {
        "classification": SequenceClassificationConfig(),
        "token_classification": TokenClassificationConfig(),
        "sequence_to_sequence": SequenceToSequenceConfig(),
        "instruction": InstructionTuningConfig(),
    }
    objective = by_kind[kind]
    needed = "an encoder or a decoder" if kind == "classification" else objective.architectures[0]
    fits = architecture in objective.architectures
    require(fits, "kind", kind, f"a kind for {architecture} ({kind} is for {needed})")
    return objective


def head_for(kind: Kind, labels: Sequence[str], pretrained: HeadConfig) -> HeadConfig:
    """The head of a kind of task: classes', or the one that is there, which writes text.

    Raises:
      InputError: a task of texts for a model without a head for tokens.
    """
    if kind == "classification":
        return SequenceClassificationHeadConfig(num_labels=len(labels))
    if kind == "token_classification":
        return TokenClassificationHeadConfig(num_labels=len(labels))
    has_tokens = isinstance(pretrained, LinearHeadConfig)
    require(has_tokens, "model.head.kind", pretrained.kind, f"linear for {kind}")
    return pretrained


def supervised_config(
    pretrained: RunConfig,
    kind: Kind,
    labels: Sequence[str],
    corpus: Corpus,
    schedule: Schedule,
    *,
    name: str,
) -> RunConfig:
    """The config of a run that learns a task: the pretrained model's shape under a head, objective,
    data and schedule of its own.

    Where documents are short beside a row they are packed, best fit; else each has a row of its
    own, so that none is cut.

    Raises:
      InputError: a kind that the architecture is not for.
    """
    objective = objective_for(kind, pretrained.model.architecture)
    head = head_for(kind, labels, pretrained.model.head)
    seq_len = pretrained.data.seq_len
    split = corpus.splits["train"]
    row_tokens = objective.lengths(seq_len).tokens
    is_alone = split.tokens / split.documents > _ALONE_FROM * row_tokens
    alone = LengthBucketsConfig(lengths=(seq_len,), group_rows=schedule.batch_size)
    packing: PackingConfig = alone if is_alone else BestFitConfig()
    config = replace(
        pretrained,
        name=name,
        model=replace(pretrained.model, head=head),
        objective=objective,
        data=DataConfig(
            corpus=str(corpus.path), packing=packing, seq_len=seq_len, seed=schedule.seed
        ),
        # Until the number of steps is known, what fits any.
        optimizer=AdamWConfig(schedule=CosineConfig(warmup_steps=0)),
        training=TrainingConfig(batch_size=schedule.batch_size, seed=schedule.seed),
    )
    return scheduled(config, {corpus.path.name: corpus}, schedule)


def continued_config(
    pretrained: RunConfig,
    corpora: Corpora,
    folders: Sequence[str],
    schedule: Schedule,
    *,
    replay: float,
    name: str,
) -> RunConfig:
    """The config of a run that goes on with its own objective on another corpus.

    Args:
      folders: of the new corpus, and with `replay` those it was pretrained on.
      replay: share of the rows that come from what it was pretrained on, so that less of that is
        forgotten (Ibrahim et al. 2024, arXiv 2403.08763: a few per cent do much).
    """
    data = corpora_config(folders, replay)
    data = replace(
        data,
        packing=pretrained.data.packing,
        seq_len=pretrained.data.seq_len,
        seed=schedule.seed,
    )
    config = replace(
        pretrained,
        name=name,
        data=data,
        optimizer=AdamWConfig(schedule=CosineConfig(warmup_steps=0)),
        training=TrainingConfig(
            batch_size=schedule.batch_size, seed=schedule.seed, z_loss=pretrained.training.z_loss
        ),
    )
    return scheduled(config, corpora, schedule)


def corpora_config(folders: Sequence[str], replay: float = 0.0) -> DataConfig:
    """Where rows come from: the first folder, but for a share of `replay` that the others have,
    evenly."""
    if len(folders) == 1:
        return DataConfig(corpus=folders[0])
    weights = (1 - replay, *(replay / (len(folders) - 1) for _ in folders[1:]))
    return DataConfig(mixture=WeightedMixtureConfig(corpora=tuple(folders), weights=weights))


def scheduled(config: RunConfig, corpora: Corpora, schedule: Schedule) -> RunConfig:
    """The config with its steps and learning rates: a warm-up, then half a cosine down to 0.

    Epochs are the first corpus's, whatever share of the rows it has.
    """
    num_steps = schedule.num_steps
    if not num_steps:
        rows_per_epoch = training_rows(config, corpora).facts[0].rows_per_epoch
        mixture = config.data.mixture
        share = mixture.weights[0] if isinstance(mixture, WeightedMixtureConfig) else 1.0
        rows = schedule.epochs * rows_per_epoch / share
        num_steps = max(2, math.ceil(rows / schedule.batch_size))
    optimizer = AdamWConfig(
        learning_rate=schedule.learning_rate or 0.1 / config.model.emb_dim,
        weight_decay=0.01,
        schedule=CosineConfig(
            warmup_steps=max(1, round(WARMUP_FRACTION * num_steps)), final_fraction=0.0
        ),
    )
    training = replace(config.training, num_steps=num_steps)
    return replace(config, optimizer=optimizer, training=training)
