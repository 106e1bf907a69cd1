"""A task: examples, and how a prompt is made of them.

    template "{input} => {target}", separator "\\n", two shots:

        "up => down\\nleft => right\\nin =>" and the answers " out", " up", " left", …

Spaces between a prompt and its answer belong to the answer, as they do in running text, where a
piece of the tokenizer holds a word and the space before it.
"""

import hashlib
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Normalisation = Literal["none", "token", "byte", "unconditional"]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question with its answer.

    fields: what the template may name, the target among them. choices: the answers to choose from,
    the target among them; empty where the answer is free. shots: examples this one is shown with,
    nearest first; empty where they are drawn from the task's other examples.
    """

    fields: dict[str, str]
    target: str
    choices: tuple[str, ...] = ()
    shots: tuple["Example", ...] = ()


@dataclass(frozen=True, kw_only=True)
class MultipleChoice:
    """The likeliest of an example's choices is the answer; `normalisation` says by which measure
    the task's score goes (the others are reported too)."""

    normalisation: Normalisation = "none"
    kind: Literal["multiple_choice"] = "multiple_choice"


@dataclass(frozen=True, kw_only=True)
class FreeAnswer:
    """What the model writes is the answer, up to `max_tokens` or one of the `stop` strings; the
    first of `metrics` is the task's score."""

    metrics: tuple[str, ...]
    max_tokens: int
    stop: tuple[str, ...] = ("\n",)
    kind: Literal["free_answer"] = "free_answer"


class Question(NamedTuple):
    """What the model reads and what it may answer, each answer with the spaces before it.

    bare_prompt: the same shots, and of the question only what the template has after its fields.
    """

    prompt: str
    bare_prompt: str
    target: str
    choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Task:
    """Examples that are asked in one way.

    template: one example as text, with `{field}` for the example's fields; ends with the target's.
    header: what stands before all examples. separator: what stands between them.
    """

    name: str
    description: str
    answer: MultipleChoice | FreeAnswer
    template: str
    examples: tuple[Example, ...]
    header: str = ""
    separator: str = "\n"

    def shots(self, number: int, count: int, *, seed: int) -> list[Example]:
        """The examples shown before example `number`, nearest first.

        A function of the arguments and the task's name. Fewer shots are the first of more, and the
        example itself is never among those drawn from the task.

        Returns:
          `count` examples, or as many as there are.
        """
        own = self.examples[number].shots
        if own:
            return list(own[:count])
        digest = hashlib.blake2b(f"{seed}\0{self.name}\0{number}".encode(), digest_size=16)
        order = np.random.default_rng(list(digest.digest())).permutation(len(self.examples))
        return [self.examples[i] for i in order[: count + 1] if i != number][:count]

    def question(self, number: int, shots: Sequence[Example]) -> Question:
        """Example `number` after `shots` (nearest first)."""
        example, before = self.examples[number], self._before_target
        shown = [fill(self.template, shot.fields) for shot in reversed(shots)]
        parts = [self.header] * bool(self.header) + shown
        prompt = self.separator.join([*parts, fill(before, example.fields)])
        # What is left of the template where nothing is asked: all after its last field.
        bare = self.separator.join([*parts, list(string.Formatter().parse(before + "{_}"))[-1][0]])
        stripped = prompt.rstrip(" ")
        spaces = prompt[len(stripped) :]
        return Question(
            prompt=stripped,
            bare_prompt=bare.rstrip(" "),
            target=spaces + example.target,
            choices=tuple(spaces + choice for choice in example.choices),
        )

    @property
    def _before_target(self) -> str:
        return self.template[: self.template.rindex("{")]


def fill(template: str, fields: dict[str, str]) -> str:
    """The template with its fields; text of a field is never read as a template."""
    parts = []
    for literal, name, *_ in string.Formatter().parse(template):
        parts += [literal, fields[name] if name else ""]
    return "".join(parts)
