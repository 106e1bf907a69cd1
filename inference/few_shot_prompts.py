"""The prompts of a task, with as many shots as the model's context holds."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from configs.errors import InputError, require
from data.tasks.task import FreeAnswer, Question, Task


@runtime_checkable
class Encodes(Protocol):
    """What is needed of a tokenizer here."""

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, kw_only=True)
class FittedQuestion:
    """A question with the shots that fit; `num_shots` is how many of those asked for."""

    question: Question
    num_shots: int


def fitted_questions(
    task: Task,
    tokenizer: Encodes,
    *,
    num_shots: int,
    num_examples: int,
    seed: int,
    max_tokens: int,
) -> list[FittedQuestion]:
    """The questions of a task's first examples.

    A prompt and its answer (the longest choice, or as many tokens as a free answer may have) have
    to fit the context. Where they do not, the earliest shots are left out, which are those that
    fewer shots would lack too.

    Args:
      num_shots: examples to show before each; all that are there where a task has fewer.
      max_tokens: of a prompt and its answer together, the model's own symbols not counted.

    Raises:
      InputError: a question that does not fit even alone.
    """
    require(num_shots >= 0, "shots", num_shots, "0 or more")
    require(num_examples >= 1, "limit", num_examples, "1 or more")
    fitted = []
    for number in range(min(num_examples, len(task.examples))):
        shots = task.shots(number, num_shots, seed=seed)
        while (question := task.question(number, shots)) and (
            _num_tokens(task, tokenizer, question) > max_tokens
        ):
            if not shots:
                raise InputError(
                    f"tasks: got example {number} of {task.name}, which takes "
                    f"{_num_tokens(task, tokenizer, question)} tokens with its answer, expected at "
                    f"most {max_tokens} as the model's context"
                )
            shots = shots[:-1]
        fitted.append(FittedQuestion(question=question, num_shots=len(shots)))
    return fitted


def _num_tokens(task: Task, tokenizer: Encodes, question: Question) -> int:
    if isinstance(task.answer, FreeAnswer):
        return len(tokenizer.encode(question.prompt)) + task.answer.max_tokens
    return max(len(tokenizer.encode(question.prompt + choice)) for choice in question.choices)
