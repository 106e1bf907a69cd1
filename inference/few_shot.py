"""In-context learning: what a model answers after k examples of a task, for several k.

A multiple choice is answered by likelihood (Brown et al. 2020, arXiv 2005.14165, section 2.4): the
choice whose log p(choice | prompt) is largest, as it is or divided by its tokens or its bytes; or
that gains most from the question, log p(choice | prompt) − log p(choice | prompt without it), as
pointwise mutual information does (Holtzman et al. 2021, arXiv 2104.08315; we keep the shots in
both). A free answer is written greedily and compared with its target.

Every score comes with a standard error and with what chance gives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import require
from configs.model_config import ModelConfig
from data.tasks.task import FreeAnswer, Task
from inference.few_shot_measures import (
    Estimate,
    ScoresAnswers,
    WritesAnswers,
    choose_answers,
    write_answers,
)
from inference.few_shot_prompts import Encodes, fitted_questions


@dataclass(frozen=True, kw_only=True)
class ShotScores:
    """A task's scores after so many shots.

    num_shots: asked for; mean_shots: shown, on average over the examples (a context holds no more,
    or the task has no more). num_cut: examples with fewer. estimates: by measure, the task's score
    first.
    """

    num_shots: int
    mean_shots: float
    num_cut: int
    num_examples: int
    estimates: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """A task's scores for each number of shots, fewest first."""

    task: str
    description: str
    kind: str
    measure: str
    points: tuple[ShotScores, ...]


def evaluate_task(
    task: Task,
    config: ModelConfig,
    tokenizer: Encodes,
    *,
    scorer: ScoresAnswers,
    generator: WritesAnswers,
    shots: Sequence[int],
    max_tokens: int,
    num_examples: int = 200,
    seed: int = 0,
    on_examples: Callable[[int], None] = lambda count: None,
) -> TaskScores:
    """Scores a model on a task after each number of shots, on the same examples.

    Args:
      max_tokens: of a prompt and its answer together.
      num_examples: the task's first so many, or all that are there.
      seed: decides which shots are shown.
      on_examples: told how many examples have been answered since, for progress.

    Raises:
      InputError: no or negative shots, a model without a decoder, a question too long for the
        context.
    """
    require_shots(shots)
    require_decoder(config)
    answer = task.answer
    points = []
    for num_shots in sorted(set(shots)):
        questions = fitted_questions(
            task,
            tokenizer,
            num_shots=num_shots,
            num_examples=num_examples,
            seed=seed,
            max_tokens=max_tokens,
        )
        if isinstance(answer, FreeAnswer):
            estimates = write_answers(answer, questions, generator, seed)
        else:
            estimates = choose_answers(answer, questions, scorer)
        shown = np.array([fitted.num_shots for fitted in questions])
        points.append(
            ShotScores(
                num_shots=num_shots,
                mean_shots=float(shown.mean()),
                num_cut=int((shown < num_shots).sum()),
                num_examples=len(questions),
                estimates=estimates,
            )
        )
        on_examples(len(questions))
    return TaskScores(
        task=task.name,
        description=task.description,
        kind=answer.kind,
        measure=next(iter(points[0].estimates)),
        points=tuple(points),
    )


def require_shots(shots: Sequence[int]) -> None:
    """Raises InputError unless there are numbers of shots, none negative."""
    require(len(shots) > 0, "shots", list(shots), "one or more numbers, such as 0 1 4")
    for count in shots:
        require(count >= 0, "shots", count, "0 or more")


def require_decoder(config: ModelConfig) -> None:
    """Raises InputError for a model that gives an answer after a prompt no likelihood."""
    require(
        config.architecture != "encoder_only",
        "model.architecture",
        config.architecture,
        "a model with a decoder (an encoder fills in masks: it does not continue a prompt)",
    )
    head = config.head.kind
    require(config.has_vocab_head, "model.head.kind", head, "a head that gives logits of tokens")
