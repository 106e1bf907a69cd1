"""From answers to scores: accuracies of choices made by likelihood, metrics of written answers.

A standard error is binomial for an accuracy, that of a mean for a metric, and for BLEU, which is no
mean, the spread over resampled examples (bootstrap).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from data.tasks.task import FreeAnswer, MultipleChoice
from inference.few_shot_prompts import FittedQuestion
from inference.sampling import Sampling
from inference.text_metrics import METRICS, bleu

_BATCH_SIZE = 50
_BLEU_RESAMPLES = 100
_CHANCE_DRAWS = 20
_ACCURACIES = {
    "none": "accuracy",
    "token": "accuracy_per_token",
    "byte": "accuracy_per_byte",
    "unconditional": "accuracy_unconditional",
}


@runtime_checkable
class ScoresAnswers(Protocol):
    """What is needed of a scorer: log p(answer | prompt) of (prompt, answer) pairs."""

    def log_likelihoods(self, pairs: Sequence[tuple[str, str]]) -> Sequence[Any]: ...


@runtime_checkable
class WritesAnswers(Protocol):
    """What is needed of a generator."""

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        sampling: Sampling,
        stop: Sequence[str],
    ) -> Sequence[Any]: ...


class Estimate(NamedTuple):
    """A mean over examples, its standard error, and what chance gives, where that is defined."""

    value: float
    standard_error: float
    chance: float | None


def choose_answers(
    answer: MultipleChoice, questions: Sequence[FittedQuestion], scorer: ScoresAnswers
) -> dict[str, Estimate]:
    """Accuracies by several measures, the answer's normalisation first; the probability of the
    target among the choices; the target's negative log-likelihood a token.

    "unconditional" takes as many likelihoods again, so it is only there where the task asks for it.
    """
    asked = [fitted.question for fitted in questions]
    scored = scorer.log_likelihoods([(q.prompt, choice) for q in asked for choice in q.choices])
    likelihood = np.array([one.log_likelihood for one in scored], np.float64)
    tokens = np.array([one.tokens for one in scored], np.float64)
    measures = {
        "none": likelihood,
        "token": likelihood / tokens,
        "byte": likelihood / np.array([one.bytes for one in scored], np.float64),
    }
    if answer.normalisation == "unconditional":
        bare = scorer.log_likelihoods([(q.bare_prompt, c) for q in asked for c in q.choices])
        measures["unconditional"] = likelihood - np.array([one.log_likelihood for one in bare])
    sizes = np.array([len(question.choices) for question in asked])
    ends = np.cumsum(sizes)
    rights = [question.choices.index(question.target) for question in asked]
    chance = float(np.mean(1 / sizes))
    estimates = {}
    for name in sorted(measures, key=lambda name: name != answer.normalisation):
        parts = np.split(measures[name], ends[:-1])
        credit = [_credit(part, right) for part, right in zip(parts, rights, strict=True)]
        accuracy = float(np.mean(credit))
        error = float(np.sqrt(accuracy * (1 - accuracy) / len(credit)))
        estimates[_ACCURACIES[name]] = Estimate(accuracy, error, chance)
    # Moves long before the likeliest choice changes.
    raw, places = np.split(likelihood, ends[:-1]), ends - sizes + np.array(rights)
    share = np.array([_share(part, right) for part, right in zip(raw, rights, strict=True)])
    estimates["probability_of_target"] = Estimate(*_mean(share), chance)
    loss = -likelihood[places] / tokens[places]
    estimates["target_nats_per_token"] = Estimate(*_mean(loss), None)
    return estimates


def _credit(measure: np.ndarray, right: int) -> float:
    """1 where the right choice is best, its share where several are."""
    best = measure == measure.max()
    return float(best[right] / best.sum())


def _share(likelihood: np.ndarray, right: int) -> float:
    """Probability of the right choice among the choices."""
    weights = np.exp(likelihood - likelihood.max())
    return float(weights[right] / weights.sum())


def write_answers(
    answer: FreeAnswer, questions: Sequence[FittedQuestion], generator: WritesAnswers, seed: int
) -> dict[str, Estimate]:
    """The metrics of what is written greedily."""
    prompts = [fitted.question.prompt for fitted in questions]
    answers = []
    for first in range(0, len(prompts), _BATCH_SIZE):
        written = generator.generate(
            prompts[first : first + _BATCH_SIZE],
            max_tokens=answer.max_tokens,
            sampling=Sampling(temperature=0.0),
            stop=answer.stop,
        )
        answers += [one.text.strip() for one in written]
    targets = [fitted.question.target.strip() for fitted in questions]
    rng = np.random.default_rng([seed, len(targets)])
    return {metric: _measured(metric, answers, targets, rng) for metric in answer.metrics}


def _measured(
    metric: str, answers: list[str], targets: list[str], rng: np.random.Generator
) -> Estimate:
    """A metric's mean; chance answers each question with another one's target, if there is one."""
    others = [_shifted(targets, rng) for _ in range(_CHANCE_DRAWS)] if len(targets) > 1 else []
    if metric != "bleu":
        drawn = [METRICS[metric](other, targets).mean() for other in others]
        value, error = _mean(METRICS[metric](answers, targets))
    else:
        drawn = [bleu(other, targets) for other in others]
        value, error = bleu(answers, targets), _bleu_error(answers, targets, rng)
    return Estimate(value, error, float(np.mean(drawn)) if drawn else None)


def _bleu_error(answers: list[str], targets: list[str], rng: np.random.Generator) -> float:
    resampled = []
    for _ in range(_BLEU_RESAMPLES):
        chosen = rng.integers(len(answers), size=len(answers))
        resampled.append(bleu([answers[i] for i in chosen], [targets[i] for i in chosen]))
    return float(np.std(resampled))


def _shifted(targets: list[str], rng: np.random.Generator) -> list[str]:
    """Each target in the place of another, all in random order."""
    order = rng.permutation(len(targets))
    shifted = [""] * len(targets)
    for place, source in zip(order, np.roll(order, 1), strict=True):
        shifted[place] = targets[source]
    return shifted


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error; the error of one value is not known: 0."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(error)
