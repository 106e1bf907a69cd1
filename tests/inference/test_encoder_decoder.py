"""An encoder-decoder's cached, padded, batched answers are those of the plain forward pass."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.generate import Generation, generate
from inference.prompts import decode_with_symbols
from inference.sampling import Sampling
from tests.inference.conftest import Sample, assert_alike
from tests.model.samples import POSITIONS, Rows, attention, logits_of, random_params, tiny_model

GREEDY = Sampling(temperature=0.0)
PROMPTS = [
    "x<extra_id_0>",
    "class Point:<extra_id_0>\n    pass\n" * 3,
    "x",
    "def add(<extra_id_0>):\n    return <extra_id_1> é",
]
PLACES, DECODER_PLACES = 64, 16


@pytest.fixture(scope="module")
def model(symbols_tokenizer) -> Sample:
    """T5's positions, scanned; one layer a side."""
    config = tiny_model(
        architecture="encoder_decoder",
        vocab_size=symbols_tokenizer.vocab_size,
        num_layers=1,
        num_encoder_layers=1,
        attention=attention(query_scale=1.0),
        position=POSITIONS["relative bias"],
        scan_layers=True,
    )
    return Sample(config, random_params(config), symbols_tokenizer)


def run(model: Sample, prompts: list[str], max_tokens: int = 8, **options: Any) -> list[Generation]:
    sampling = options.pop("sampling", GREEDY)
    c, params, tokenizer = model
    return generate(
        c, params, tokenizer, prompts, max_tokens=max_tokens, sampling=sampling, **options
    )


@pytest.fixture(scope="module")
def answers(model) -> list[Generation]:
    return run(model, PROMPTS)


def padded(tokens: list[int], length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row = np.zeros((1, length), np.int32)
    row[0, : len(tokens)] = tokens
    index = np.arange(length, dtype=np.int32)[None]
    return row, index, (index < len(tokens)).astype(np.int32)


def next_token(model: Sample, prompt: str, written: list[int]) -> int:
    """The likeliest token after those written: the whole model over the whole text anew."""
    t = model.tokenizer
    encoder = padded([*t.encode_with_symbols(prompt), t.eos_id], PLACES)
    decoder = padded([t.bos_id, *written], DECODER_PLACES)
    logits = logits_of(model.config, model.params, Rows(*decoder, None, *encoder))
    return int(logits[0, len(written)].argmax())


@pytest.mark.parametrize("row", range(len(PROMPTS)))
def test_greedy_equals_argmax_of_the_full_forward_pass(model, answers, row):
    written: list[int] = []
    for _ in range(8):
        token = next_token(model, PROMPTS[row], written)
        if token == model.tokenizer.eos_id:
            break
        written.append(token)
    assert list(answers[row].tokens) == written
    assert answers[row].prompt == PROMPTS[row]
    assert answers[row].text == decode_with_symbols(model.tokenizer, written)


def test_each_prompt_of_a_ragged_batch_gets_what_it_gets_alone(model, answers):
    lengths = [len(model.tokenizer.encode_with_symbols(prompt)) for prompt in PROMPTS]
    assert min(lengths) == 1 and max(lengths) >= 32  # on both sides of a bucket's border
    for prompt, answer in zip(PROMPTS[1:3], answers[1:3], strict=True):
        assert_alike(answer, run(model, [prompt])[0])


@pytest.fixture(scope="module")
def copier(symbols_tokenizer) -> Sample:
    """Writes <extra_id_0>, "é", <extra_id_1> and ends, whatever the prompt: layers add nothing,
    the head's column of each token is the embedding of the one before it."""
    t = symbols_tokenizer
    names = t.symbols.ids
    tokens = [t.bos_id, names["<extra_id_0>"], *t.encode("é"), names["<extra_id_1>"], t.eos_id]
    assert len(set(tokens)) == len(tokens)
    config = tiny_model(
        architecture="encoder_decoder",
        vocab_size=t.vocab_size,
        emb_dim=96,
        num_layers=1,
        num_encoder_layers=1,
    )
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
    return Sample(config, params, t)


def test_sentinels_are_spelled_in_what_is_written_which_ends_with_end_of_sequence(copier):
    pieces: list[str] = []
    (answer,) = run(copier, ["x <extra_id_0>"], on_text=lambda _, text: pieces.append(text))
    assert answer.text == "<extra_id_0>é<extra_id_1>"
    assert answer.finished
    assert copier.tokenizer.eos_id not in answer.tokens
    assert pieces == ["<extra_id_0>", "é", "<extra_id_1>"]


def test_what_max_tokens_cuts_off_is_not_finished(copier):
    (answer,) = run(copier, ["x"], max_tokens=3)
    assert answer.text == "<extra_id_0>é"
    assert not answer.finished
