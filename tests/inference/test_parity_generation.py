"""Greedy and beam outputs are those of `transformers`, token for token, in ragged batches."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from export.import_ import import_folder
from inference.generate import TextGenerator
from inference.generation import Beams, TokenGeneration
from inference.prompts import PromptFormat
from inference.sampling import Sampling

VOCAB_SIZE, PAD, MAX_TOKENS = 97, 0, 28
GREEDY = Sampling(temperature=0.0)
LENGTHS = (9, 3, 14)
# Scale and seed of the weights, and a token to end texts with, such that some of a batch's texts
# end and others do not, and each has ten different tokens by then.
FAMILIES = {"llama": (4.0, 0, 96), "gpt2": (4.0, 0, 46), "t5": (4.0, 11, 33), "bart": (1.0, 5, 1)}


def their_model(family: str) -> Any:
    import transformers

    decoder_start: dict[str, Any] = {"decoder_start_token_id": PAD}
    match family:
        case "llama":
            config = transformers.LlamaConfig(
                vocab_size=VOCAB_SIZE,
                hidden_size=32,
                intermediate_size=48,
                num_key_value_heads=2,
                max_position_embeddings=64,
                num_hidden_layers=2,
                num_attention_heads=4,
            )
            model = transformers.LlamaForCausalLM(config)
        case "gpt2":
            config = transformers.GPT2Config(
                vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=4, n_positions=64
            )
            model = transformers.GPT2LMHeadModel(config)
        case "t5":
            config = transformers.T5Config(
                vocab_size=VOCAB_SIZE,
                d_model=32,
                d_kv=8,
                d_ff=48,
                num_layers=2,
                num_heads=4,
                relative_attention_num_buckets=8,
                relative_attention_max_distance=12,
                **decoder_start,
            )
            model = transformers.T5ForConditionalGeneration(config)
        case _:
            config = transformers.BartConfig(
                vocab_size=VOCAB_SIZE,
                d_model=32,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=48,
                decoder_ffn_dim=48,
                max_position_embeddings=64,
            )
            model = transformers.BartForConditionalGeneration(config)
    return _spread(model, *FAMILIES[family][:2])


def _spread(model: Any, scale: float, seed: int) -> Any:
    """Random weights that make texts wander, where small ones make them settle on one token:
    matrices large, positions larger, tables of tokens and biases small."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(0.05 * noise)
                continue
            factor = scale
            if any(part in name for part in ("wte", "embed_tokens", "shared")):
                factor = 0.1
            elif any(part in name for part in ("wpe", "embed_positions", "relative")):
                factor = 10 * scale
            parameter.copy_(factor * parameter.shape[-1] ** -0.5 * noise)
    model.generation_config.forced_bos_token_id = None
    model.generation_config.forced_eos_token_id = None
    return model.eval()


class Pair(NamedTuple):
    """A model of theirs, it imported, prompts of different lengths, a token that ends texts."""

    theirs: Any
    ours: TextGenerator
    prompts: list[list[int]]
    eos: int


@pytest.fixture(scope="module")
def pair_of(tokenizer, tmp_path_factory):
    @cache
    def make(family: str) -> Pair:
        theirs = their_model(family)
        folder = tmp_path_factory.mktemp(family)
        theirs.save_pretrained(str(folder))
        imported = import_folder(folder)
        rng = np.random.default_rng(0)
        prompts = [rng.integers(4, VOCAB_SIZE, length).tolist() for length in LENGTHS]
        eos = FAMILIES[family][2]
        start = theirs.config.decoder_start_token_id if theirs.config.is_encoder_decoder else PAD
        form = PromptFormat(decoder_start=start, eos_ids=(eos,), pad_id=PAD)
        ours = TextGenerator(imported.config, imported.params, tokenizer, prompt_format=form)
        return Pair(theirs, ours, prompts, eos)

    return make


def their_tokens(
    theirs: Any, prompts: list[list[int]], *, eos: int, num_return: int = 1, **options: Any
) -> tuple[list[list[int]], list[float]]:
    """What `transformers` writes, up to the end, and scores of beams."""
    import torch

    longest = max(map(len, prompts))
    is_decoder = not theirs.config.is_encoder_decoder
    ids = torch.full((len(prompts), longest), PAD)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        places = slice(longest - len(prompt), None) if is_decoder else slice(len(prompt))
        ids[row, places] = torch.tensor(prompt)
        mask[row, places] = 1
    theirs.generation_config.eos_token_id = eos
    with torch.inference_mode():
        found = theirs.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
            pad_token_id=PAD,
            num_return_sequences=num_return,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
    texts = [row[longest if is_decoder else 1 :] for row in found.sequences.tolist()]
    texts = [row[: row.index(eos)] if eos in row else row for row in texts]
    scores = getattr(found, "sequences_scores", None)
    return texts, [] if scores is None else scores.tolist()


def assert_many_tokens(found: list[TokenGeneration]) -> None:
    assert min(len(set(one.tokens)) for one in found) >= 10, "too few different tokens to compare"


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_theirs(pair_of, family):
    theirs, ours, prompts, eos = pair_of(family)
    expected, _ = their_tokens(theirs, prompts, eos=eos)
    got = ours.generate_tokens(prompts, max_tokens=MAX_TOKENS, sampling=GREEDY)
    assert [list(one.tokens) for one in got] == expected
    assert_many_tokens(got)
    assert {one.finished for one in got} == {True, False}


@pytest.mark.parametrize(
    "family",
    ["llama", "t5", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "bart"))],
)
def test_beams_are_theirs(pair_of, family):
    theirs, ours, prompts, eos = pair_of(family)
    finished = set()
    for penalty in (1.0, 2.0, 0.0):
        expected, scores = their_tokens(
            theirs, prompts, eos=eos, num_return=2, num_beams=4, length_penalty=penalty
        )
        got = ours.generate_tokens(
            prompts,
            max_tokens=MAX_TOKENS,
            num_samples=2,
            beams=Beams(number=4, length_penalty=penalty),
        )
        assert [list(one.tokens) for one in got] == expected
        np.testing.assert_allclose([one.score for one in got], scores, rtol=1e-4)
        assert_many_tokens(got)
        finished |= {one.finished for one in got}
    assert finished == {True, False}


@pytest.mark.slow
def test_a_repetition_penalty_is_theirs(pair_of):
    theirs, ours, prompts, eos = pair_of("llama")
    prompts = [prompts[0], prompts[1] * 3]  # alike in length: theirs would penalise padding too
    penalised = Sampling(temperature=0.0, repetition_penalty=3.0)
    expected, _ = their_tokens(theirs, prompts, eos=eos, repetition_penalty=3.0)
    got = ours.generate_tokens(prompts, max_tokens=MAX_TOKENS, sampling=penalised)
    assert [list(one.tokens) for one in got] == expected
    assert_many_tokens(got)
    plain = ours.generate_tokens(prompts, max_tokens=MAX_TOKENS, sampling=GREEDY)
    assert [one.tokens for one in got] != [one.tokens for one in plain]
