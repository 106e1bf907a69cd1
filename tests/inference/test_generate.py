"""Cached, padded, batched generation gives what the plain forward pass says."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.errors import InputError
from configs.model_config import NoHeadConfig
from configs.position_config import LearnedPositionConfig
from inference.generate import Generation, generate
from inference.sampling import Sampling
from tests.inference.conftest import Sample, assert_alike
from tests.model.samples import random_params, tiny_model

GREEDY = Sampling(temperature=0.0)


def run(sample, prompts, *, max_tokens=12, sampling=GREEDY, **options) -> list[Generation]:
    c, params, tokenizer = sample
    return generate(
        c, params, tokenizer, prompts, max_tokens=max_tokens, sampling=sampling, **options
    )


def greedy_by_full_forward(sample: Sample, prompt: str, count: int) -> list[int]:
    """The most likely next token, the whole sequence run anew for each."""
    tokens = [sample.tokenizer.bos_id, *sample.tokenizer.encode(prompt)]
    first = len(tokens)
    for _ in range(count):
        tokens.append(int(sample.logits(tokens)[-1].argmax()))
    return tokens[first:]


def test_greedy_equals_argmax_of_the_full_forward_pass(sample):
    prompt = "def add("
    (generation,) = run(sample, [prompt])
    assert list(generation.tokens) == greedy_by_full_forward(sample, prompt, 12)
    assert generation.text == sample.tokenizer.decode(generation.tokens)
    assert generation.prompt == prompt
    assert not generation.finished


def test_a_prefixs_tokens_see_one_another_both_ways(sample):
    prompt = "def add(x"
    tokens = [sample.tokenizer.bos_id, *sample.tokenizer.encode(prompt)]
    prefix = len(tokens)
    for _ in range(6):
        tokens.append(int(sample.logits(tokens, prefix)[-1].argmax()))
    (generation,) = run(sample, [prompt], max_tokens=6, prompt_is_prefix=True)
    assert list(generation.tokens) == tokens[prefix:]
    causal = sample.logits(tokens[:prefix])[-1]
    assert np.abs(causal - sample.logits(tokens[:prefix], prefix)[-1]).max() > 1e-3


def test_each_prompt_of_a_ragged_batch_gets_what_it_gets_alone(sample):
    prompts = ["x", "class Point:\n    pass\n" * 5, "def add(x, y):"]
    lengths = [len(sample.tokenizer.encode(prompt)) for prompt in prompts]
    assert min(lengths) == 1 and max(lengths) > 32  # on both sides of a bucket's border
    together = run(sample, prompts)
    for prompt, generation in zip(prompts, together, strict=True):
        assert_alike(generation, run(sample, [prompt])[0])


def test_more_tokens_go_on_where_fewer_stopped(sample):
    (short,), (long,) = (run(sample, ["x"], max_tokens=count) for count in (5, 32))
    assert len(long.tokens) == 32
    assert long.tokens[:5] == short.tokens


def test_the_seed_decides_the_text(sample):
    first, again, other = (
        run(sample, ["x"], sampling=Sampling(temperature=1.0, seed=seed))[0].tokens
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_equal_prompts_of_a_batch_are_continued_differently(sample):
    one, other = run(sample, ["x", "x"], sampling=Sampling(temperature=1.0))
    assert one.tokens != other.tokens


@pytest.mark.parametrize(
    "sampling", [Sampling(top_k=1, seed=3), Sampling(top_p=1e-6, seed=4)], ids=["top_k", "top_p"]
)
def test_one_candidate_is_greedy(sample, sampling):
    (drawn,), (greedy,) = run(sample, ["def add("], sampling=sampling), run(sample, ["def add("])
    assert_alike(drawn, greedy)


TEXT = "é漢🎉"


@pytest.fixture(scope="module")
def chain(tokenizer) -> Sample:
    """A model that goes on from "x" with TEXT, byte by byte, and then ends the text.

    Layers add nothing; the head's column of each token is the embedding of the one before it.
    """
    tokens = [*tokenizer.encode("x"), *tokenizer.encode(TEXT), tokenizer.eos_id]
    assert len(set(tokens)) == len(tokens) == 1 + len(TEXT.encode()) + 1
    config = tiny_model(vocab_size=tokenizer.vocab_size, emb_dim=96, num_layers=1)
    zeros = jax.tree.map(jnp.zeros_like, random_params(config))
    table_VD = np.random.default_rng(0).standard_normal((config.vocab_size, 96))
    table_VD /= np.linalg.norm(table_VD, axis=1, keepdims=True)
    head_DV = np.zeros((96, config.vocab_size))
    head_DV[:, tokens[1:]] = table_VD[tokens[:-1]].T
    params = zeros | {
        "token_embedding": {"embedding": jnp.asarray(table_VD, jnp.float32)},
        "decoder": zeros["decoder"] | {"final_norm": {"scale": jnp.ones(96)}},
        "head": {"kernel": jnp.asarray(head_DV, jnp.float32)},
    }
    return Sample(config, params, tokenizer)


def streamed(sample: Sample, prompts: list[str], max_tokens: int):
    """Generations, and for each row the pieces of text it was streamed in."""
    pieces: list[list[str]] = [[] for _ in prompts]
    generations = run(
        sample, prompts, max_tokens=max_tokens, on_text=lambda row, text: pieces[row].append(text)
    )
    return generations, pieces


def test_text_is_streamed_in_whole_characters_until_the_end_of_sequence(chain):
    (generation,), (pieces,) = streamed(chain, ["x"], max_tokens=20)
    assert pieces == ["é", "漢", "🎉"]
    assert generation.text == TEXT
    assert list(generation.tokens) == chain.tokenizer.encode(TEXT)
    assert generation.finished


def test_a_text_cut_off_within_a_character_is_streamed_as_it_is_returned(chain):
    (generation,), (pieces,) = streamed(chain, ["x"], max_tokens=4)
    assert len(generation.tokens) == 4
    assert generation.text.startswith("é\ufffd")
    assert "".join(pieces) == generation.text
    assert not generation.finished


@pytest.mark.parametrize(("extra", "finished"), [(0, False), (1, True)])
def test_a_text_is_finished_only_if_its_end_was_generated(chain, extra, finished):
    (generation,), _ = streamed(chain, ["x"], max_tokens=len(TEXT.encode()) + extra)
    assert generation.text == TEXT
    assert generation.finished == finished


def test_a_row_that_ends_leaves_the_others_going(chain):
    prompts = ["x", "xé", "x" + TEXT]
    generations, pieces = streamed(chain, prompts, max_tokens=20)
    assert [generation.text for generation in generations] == [TEXT, "漢🎉", ""]
    assert ["".join(row) for row in pieces] == [TEXT, "漢🎉", ""]
    assert all(generation.finished for generation in generations)


def test_streamed_pieces_add_up_to_any_text(sample):
    # Hot: byte tokens that make up no character, on their own or in a row.
    pieces: dict[int, str] = {0: "", 1: ""}

    def on_text(row: int, text: str) -> None:
        pieces[row] += text

    sampling = Sampling(temperature=9.0, seed=5)
    generations = run(sample, ["x", "yz"], max_tokens=60, sampling=sampling, on_text=on_text)
    assert "\ufffd" in generations[0].text
    assert [pieces[0], pieces[1]] == [generation.text for generation in generations]


@pytest.mark.parametrize(
    ("prompts", "max_tokens", "message"),
    [([], 5, "^prompt: got"), (["x"], 0, "^max_tokens: got 0"), (["x"], -1, "^max_tokens: got -1")],
)
def test_nothing_to_do_is_refused(sample, prompts, max_tokens, message):
    with pytest.raises(InputError, match=message):
        run(sample, prompts, max_tokens=max_tokens)


def test_a_model_without_a_decoder_or_a_head_is_refused(sample):
    encoder = tiny_model(architecture="encoder_only")
    with pytest.raises(InputError, match="^model.architecture: got 'encoder_only'"):
        run(sample._replace(config=encoder), ["x"])
    bare = tiny_model(head=NoHeadConfig())
    with pytest.raises(InputError, match="^model.head.kind: got 'none'"):
        run(sample._replace(config=bare), ["x"])


def test_generation_ends_with_the_table_of_positions(sample):
    position = LearnedPositionConfig(num_positions=10, offset=2)
    config = replace(sample.config, position=position, num_layers=1)
    learned = Sample(config, random_params(config), sample.tokenizer)
    size = 1 + len(learned.tokenizer.encode("xyz"))
    (generation,) = run(learned, ["xyz"], max_tokens=50)
    # Eight places: the prompt, and every chosen token but the last, which is not read again.
    assert len(generation.tokens) == 8 - size + 1
    assert not generation.finished
    with pytest.raises(InputError, match="^prompt: got '[0-9]+ tokens', expected 8 at most"):
        run(learned, ["漢" * 9])
