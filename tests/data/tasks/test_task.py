"""Prompts hold the shots they should, and shots are a function of seed, task and example."""

from dataclasses import replace

import pytest

from data.tasks.task import Example, MultipleChoice, Task

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven"]


@pytest.fixture
def task() -> Task:
    examples = [
        Example(
            fields={"input": str(number), "target": word},
            target=word,
            choices=(word, "many"),
        )
        for number, word in enumerate(WORDS)
    ]
    return Task(
        name="numbers",
        description="the word for a number",
        answer=MultipleChoice(),
        template="{input} => {target}",
        examples=tuple(examples),
        header="Numbers:",
    )


def test_prompt_is_header_shots_and_question_with_the_nearest_shot_last(task):
    shots = [task.examples[3], task.examples[5]]
    question = task.question(1, shots)
    assert question.prompt == "Numbers:\n5 => five\n3 => three\n1 =>"
    assert question.target == " one"
    assert question.choices == (" one", " many")


def test_bare_prompt_has_the_same_shots_and_asks_nothing(task):
    question = task.question(1, [task.examples[3]])
    assert question.bare_prompt == "Numbers:\n3 => three\n =>"


def test_an_example_is_never_among_its_own_shots(task):
    for number in range(len(WORDS)):
        shots = task.shots(number, 100, seed=0)
        assert len(shots) == len(WORDS) - 1
        assert task.examples[number] not in shots


def test_fewer_shots_are_the_first_of_more(task):
    for number in range(len(WORDS)):
        most = task.shots(number, 7, seed=3)
        assert all(task.shots(number, count, seed=3) == most[:count] for count in range(8))


def test_shots_are_decided_by_seed_task_and_example(task):
    first = task.shots(0, 4, seed=0)
    assert task.shots(0, 4, seed=0) == first
    assert task.shots(0, 4, seed=1) != first
    assert replace(task, name="others").shots(0, 4, seed=0) != first
    renumbered = [example.target for example in task.shots(1, 4, seed=0)]
    assert renumbered != [example.target for example in first]


def test_every_example_is_drawn_about_as_often_as_every_other(task):
    drawn = [shot.target for seed in range(400) for shot in task.shots(0, 1, seed=seed)]
    counts = [drawn.count(word) for word in WORDS[1:]]
    # 400 draws of 7: 57 each, with a standard deviation of 7; five of them leave no room for a
    # favourite and fail once in a million seeds (they are fixed).
    assert all(abs(count - 400 / 7) < 35 for count in counts), counts


def test_shots_of_an_example_of_its_own_are_the_ones_shown(task):
    own = (task.examples[2], task.examples[0])
    asked = replace(task, examples=(replace(task.examples[0], shots=own), *task.examples[1:]))
    assert asked.shots(0, 1, seed=0) == [task.examples[2]]
    assert asked.shots(0, 9, seed=5) == list(own)


def test_braces_in_a_field_are_text(task):
    example = Example(fields={"input": "{target} {0}", "target": "{x}"}, target="{x}")
    question = replace(task, header="", examples=(example, example)).question(0, [example])
    assert question.prompt == "{target} {0} => {x}\n{target} {0} =>"
