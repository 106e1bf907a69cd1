"""Cached, padded, batched generation gives what the plain forward pass says."""

import jax.numpy as jnp
import pytest

from configs.errors import InputError
from inference.generate import generate
from inference.sampling import Sampling
from model.build import build_model, forward

GREEDY = Sampling(temperature=0)


def greedy_by_full_forward(sample, prompt: str, count: int) -> list[int]:
    """The most likely next token, the whole sequence run anew for each."""
    model = build_model(sample.config)
    tokens = [sample.tokenizer.bos_id, *sample.tokenizer.encode(prompt)]
    first = len(tokens)
    for _ in range(count):
        row = jnp.array([tokens])
        positions, segments = jnp.arange(row.shape[1])[None], jnp.ones_like(row)
        logits = forward(model, sample.params, row, positions=positions, segment_ids=segments)
        tokens.append(int(jnp.argmax(logits[0, -1])))
    return tokens[first:]


def run(sample, prompts, *, max_tokens=12, sampling=GREEDY, **options):
    return generate(*sample, prompts, max_tokens=max_tokens, sampling=sampling, **options)


def test_greedy_equals_argmax_of_the_full_forward_pass(sample):
    [generation] = run(sample, ["def add("])
    assert list(generation.tokens) == greedy_by_full_forward(sample, "def add(", 12)
    assert generation.text == sample.tokenizer.decode(list(generation.tokens))
    assert not generation.finished


def test_each_prompt_of_a_ragged_batch_gets_what_it_gets_alone(sample):
    prompts = ["x", "class Point:\n    pass\n" * 3, "def add(x, y):"]
    together = run(sample, prompts)
    for prompt, generation in zip(prompts, together, strict=True):
        assert generation == run(sample, [prompt])[0]


def test_the_seed_decides_the_text(sample):
    first, again, other = (
        run(sample, ["x"], sampling=Sampling(temperature=1.0, seed=seed))[0].tokens
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_end_of_sequence_ends_its_row_and_not_the_others(sample):
    # The token that "x" is continued with first is made to be the end.
    first = greedy_by_full_forward(sample, "x", 1)[0]

    class EndsEarly:
        """The tokenizer, with another end-of-sequence token."""

        eos_id = first

        def __getattr__(self, name):
            return getattr(sample.tokenizer, name)

    ended, going = generate(
        sample.config,
        sample.params,
        EndsEarly(),  # type: ignore[arg-type]
        ["x", "class Point:"],
        max_tokens=5,
        sampling=GREEDY,
    )
    assert ended.finished and ended.tokens == () and ended.text == ""
    expected = greedy_by_full_forward(sample, "class Point:", 5)
    kept = expected[: expected.index(first)] if first in expected else expected
    assert list(going.tokens) == kept


def test_streamed_pieces_add_up_to_the_text(sample):
    pieces: dict[int, str] = {0: "", 1: ""}

    def on_text(row: int, text: str) -> None:
        pieces[row] += text

    sampling = Sampling(temperature=3.0, seed=5)  # hot: byte tokens of many characters
    generations = run(sample, ["x", "yz"], max_tokens=40, sampling=sampling, on_text=on_text)
    assert [pieces[0], pieces[1]] == [generation.text for generation in generations]


def test_characters_of_several_tokens_are_streamed_whole(sample):
    """A tokenizer of bytes writes "é" as two tokens; the first alone must not be shown."""
    from inference.generate import _Row

    shown: list[str] = []
    row = _Row(sample.tokenizer, 0, lambda _, text: shown.append(text))
    for token in sample.tokenizer.encode("é→"):
        row.add(token)
    assert row.end() == "é→" == "".join(shown)
    assert all("\ufffd" not in text for text in shown)


@pytest.mark.parametrize(("prompts", "max_tokens"), [([], 5), (["x"], 0)])
def test_nothing_to_do_is_refused(sample, prompts, max_tokens):
    with pytest.raises(InputError):
        run(sample, prompts, max_tokens=max_tokens)
