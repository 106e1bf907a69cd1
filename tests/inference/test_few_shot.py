"""Scores are those of the answers given: fake models whose answers are known say what to expect."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from data.tasks.task import Example, FreeAnswer, MultipleChoice, Normalisation, Task
from inference.few_shot import evaluate_task
from inference.few_shot_measures import Estimate
from inference.few_shot_prompts import fitted_questions
from tests.model.samples import tiny_model

DECODER = tiny_model()


@dataclass
class Scored:
    log_likelihood: float
    tokens: int
    bytes: int


class FakeScorer:
    """log p is what `likelihood(prompt, answer)` says; a token is a character."""

    def __init__(self, likelihood):
        self.likelihood = likelihood
        self.pairs = []

    def log_likelihoods(self, pairs):
        self.pairs += pairs
        return [Scored(self.likelihood(*pair), len(pair[1]), len(pair[1])) for pair in pairs]


class FakeGenerator:
    def __init__(self, write):
        self.write = write

    def generate(self, prompts, *, max_tokens, sampling, stop):
        assert sampling.temperature == 0
        return [Text(self.write(prompt)[:max_tokens]) for prompt in prompts]


@dataclass
class Text:
    text: str


class Characters:
    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def choice_task(normalisation: Normalisation = "none", count: int = 40) -> Task:
    """Letters to letters of other lengths: 'a' goes with 'aa', wrong answers are 'x' and 'yyyy'."""
    letters = [chr(ord("a") + number % 20) for number in range(count)]
    examples = [
        Example(
            fields={"input": f"{letter}{number}", "target": 2 * letter},
            target=2 * letter,
            choices=("x", 2 * letter, "yyyy"),
        )
        for number, letter in enumerate(letters)
    ]
    return Task(
        name="letters",
        description="twice the letter",
        answer=MultipleChoice(normalisation=normalisation),
        template="{input}={target}",
        examples=tuple(examples),
    )


def free_task(*metrics: str) -> Task:
    task = choice_task()
    return replace(
        task,
        answer=FreeAnswer(metrics=metrics, max_tokens=8),
        examples=tuple(replace(example, choices=()) for example in task.examples),
    )


def scores_of(task, *, likelihood=None, write=None, config=DECODER, shots=(0,), **options):
    given: dict[str, Any] = {"max_tokens": 10_000} | options
    return evaluate_task(
        task,
        config,
        Characters(),
        scorer=FakeScorer(likelihood),
        generator=FakeGenerator(write),
        shots=shots,
        **given,
    )


def estimates_of(task, **options) -> dict[str, Estimate]:
    return scores_of(task, **options).points[0].estimates


def test_each_normalisation_chooses_by_its_own_measure():
    # Per character the right answer is best, in sum the shortest is, whatever is asked.
    likelihood = {"x": -1.5, "yyyy": -8.0}
    found = estimates_of(choice_task(), likelihood=lambda _, answer: likelihood.get(answer, -2.0))
    assert found["accuracy"] == (0, 0, pytest.approx(1 / 3))
    assert found["accuracy_per_token"].value == found["accuracy_per_byte"].value == 1
    assert "accuracy_unconditional" not in found
    weights = [math.exp(-1.5), math.exp(-2), math.exp(-8)]
    assert found["probability_of_target"].value == pytest.approx(weights[1] / sum(weights))
    assert found["target_nats_per_token"] == (1.0, 0.0, None)


def test_unconditional_takes_off_what_an_answer_is_worth_without_the_question():
    def likelihood(prompt, answer):
        liked = {"x": -1.0, "yyyy": -1.5}.get(answer, -5.0)
        asks = prompt.rpartition("\n")[2] != "="
        return liked + (1 if asks and answer[0] not in "xy" else 0)

    scores = scores_of(choice_task("unconditional"), likelihood=likelihood, shots=(0, 2))
    assert scores.measure == "accuracy_unconditional"
    for point in scores.points:
        assert point.estimates["accuracy_unconditional"].value == 1
        assert point.estimates["accuracy"].value == 0


def test_standard_error_is_binomial_and_the_first_of_the_estimates_is_the_tasks():
    right = {f"{chr(ord('a') + number)}{number}=" for number in range(10)}
    scores = scores_of(
        choice_task("byte"),
        likelihood=lambda prompt, answer: (
            len(answer) * (answer[0] == prompt[0]) * (prompt in right)
            + len(answer) * 0.5 * (answer == "x")
        ),
    )
    assert scores.measure == "accuracy_per_byte"
    error = math.sqrt(0.25 * 0.75 / 40)
    assert scores.points[0].estimates["accuracy_per_byte"][:2] == (0.25, pytest.approx(error))


def test_a_model_that_prefers_nothing_scores_what_chance_does():
    found = estimates_of(choice_task(), likelihood=lambda *_: -1.0)
    assert found["accuracy"].value == pytest.approx(found["accuracy"].chance)
    assert found["probability_of_target"].value == pytest.approx(1 / 3)


def test_shots_are_in_the_prompt_and_the_same_examples_are_asked_for_each_number():
    scorer = FakeScorer(lambda *_: -1.0)
    given: dict[str, Any] = {
        "scorer": scorer,
        "generator": FakeGenerator(None),
        "max_tokens": 10_000,
    }
    task = choice_task()
    scores = evaluate_task(task, DECODER, Characters(), shots=(4, 0, 4), num_examples=5, **given)
    assert [point.num_shots for point in scores.points] == [0, 4]
    assert [point.num_examples for point in scores.points] == [5, 5]
    prompts = [prompt for prompt, _ in scorer.pairs]
    assert len(prompts) == 2 * 5 * 3
    assert [p.count("\n") for p in prompts] == [0] * 15 + [4] * 15
    assert [p.rpartition("\n")[2] for p in prompts[15:]] == prompts[:15]


def test_a_rule_that_only_shots_tell_gives_a_curve_that_rises():
    # Knows the rule once it has seen three examples.
    def likelihood(prompt, answer):
        return float(answer == 2 * prompt.rpartition("\n")[2][0] and prompt.count("\n") >= 3)

    scores = scores_of(choice_task(), likelihood=likelihood, shots=(0, 1, 4))
    accuracies = [point.estimates["accuracy"].value for point in scores.points]
    assert accuracies == pytest.approx([1 / 3, 1 / 3, 1])


def test_shots_that_do_not_fit_are_left_out_and_counted():
    task = choice_task()
    # A question takes up to 8 characters ("t39=yyyy"), a shot 5 or 6 and its line's end.
    scores = scores_of(task, likelihood=lambda *_: -1.0, shots=(0, 1, 16), max_tokens=30)
    none, one, many = scores.points
    assert (none.mean_shots, none.num_cut) == (0, 0)
    assert (one.mean_shots, one.num_cut) == (1, 0)
    assert 2 <= many.mean_shots <= 4 and many.num_cut == 40
    fitted = fitted_questions(
        task, Characters(), num_shots=16, num_examples=40, seed=0, max_tokens=30
    )
    for number, one in enumerate(fitted):
        longest = max(len(one.question.prompt + choice) for choice in one.question.choices)
        more = task.question(number, task.shots(number, one.num_shots + 1, seed=0))
        assert longest <= 30 < len(more.prompt) + 4
        # What is left out is what fewer shots would lack too.
        fewer = task.question(number, task.shots(number, one.num_shots, seed=0))
        assert one.question == fewer


def test_a_question_that_does_not_fit_alone_is_refused():
    with pytest.raises(InputError, match="^tasks: got example 0 of letters, which takes 7 tokens"):
        scores_of(choice_task(), likelihood=lambda *_: -1.0, max_tokens=6)


def test_free_answers_are_compared_with_their_targets():
    def write(prompt):
        letter = prompt.rpartition("\n")[2][0]
        return f" {2 * letter} " if letter < "k" else "none"

    found = estimates_of(free_task("exact_match", "token_f1"), write=write)
    assert list(found) == ["exact_match", "token_f1"]
    assert found["exact_match"].value == 0.5
    # That of a mean of 40 zeros and ones; another's target is the same for 1 pair in 39.
    assert found["exact_match"].standard_error == pytest.approx(0.5 / math.sqrt(39))
    assert 0 < (found["exact_match"].chance or 0) < 0.1


def test_one_free_answer_has_no_chance_to_compare_with():
    found = estimates_of(free_task("exact_match", "bleu"), write=lambda _: "aa", num_examples=1)
    assert found["exact_match"] == (1.0, 0.0, None)
    assert found["bleu"].chance is None


def test_bleu_has_a_bootstrap_error_and_chance():
    examples = [
        Example(fields={"input": str(i), "target": text}, target=text)
        for i, text in enumerate(f"the {i} of all words in list {i} is here" for i in range(20))
    ]
    task = replace(free_task("bleu"), examples=tuple(examples))
    task = replace(task, answer=FreeAnswer(metrics=("bleu",), max_tokens=99))
    found = estimates_of(
        task,
        write=lambda prompt: examples[int(prompt[:-1])].target if int(prompt[:-1]) % 2 else "no",
    )["bleu"]
    assert found.chance is not None and 0 < found.chance < 100
    assert 0 < found.standard_error < 30
    perfect = estimates_of(task, write=lambda prompt: examples[int(prompt[:-1])].target)["bleu"]
    assert perfect.value == pytest.approx(100) and perfect.standard_error == pytest.approx(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": (0, -1)}, "^shots: got -1"),
        ({"shots": ()}, "^shots: got "),
        ({"num_examples": 0}, "^limit: got 0"),
        (
            {"config": tiny_model(architecture="encoder_only")},
            "^model.architecture: got 'encoder_only'",
        ),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(InputError, match=message):
        scores_of(choice_task(), likelihood=lambda *_: -1.0, **options)


def test_the_real_scorer_is_one(sample):
    from inference.scoring import Scorer

    task = choice_task(count=4)
    scorer = Scorer(sample.config, sample.params, sample.tokenizer, seq_len=64)
    scores = evaluate_task(
        task,
        sample.config,
        sample.tokenizer,
        scorer=scorer,
        generator=FakeGenerator(None),
        shots=(0, 1),
        max_tokens=63,
    )
    # As random as its parameters: nats of about log V a token, nothing that is not a number.
    losses = [point.estimates["target_nats_per_token"].value for point in scores.points]
    assert np.isfinite(losses).all() and min(losses) > 2
