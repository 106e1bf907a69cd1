"""What an encoder puts in place of a mask is what its forward pass says."""

from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from configs.model_config import MaskedLMHeadConfig, NoHeadConfig
from configs.position_config import LearnedPositionConfig
from inference.fill_mask import FilledText, fill_mask
from tests.inference.conftest import Sample
from tests.model.samples import Rows, logits_of, random_params, tiny_model

PROMPTS = ["x = <mask> + y", "<mask>", "def <mask>(<mask>, y):\n    return x"]


@pytest.fixture(scope="module")
def encoder(symbols_tokenizer) -> Sample:
    config = tiny_model(
        architecture="encoder_only",
        vocab_size=symbols_tokenizer.vocab_size,
        position=LearnedPositionConfig(num_positions=64),
        head=MaskedLMHeadConfig(),
        num_layers=1,
    )
    return Sample(config, random_params(config), symbols_tokenizer)


def fill(sample: Sample, prompts: list[str], **options: Any) -> list[FilledText]:
    return fill_mask(sample.config, sample.params, sample.tokenizer, prompts, **options)


@pytest.fixture(scope="module")
def filled(encoder) -> list[FilledText]:
    return fill(encoder, PROMPTS, top=7)


def row_of(encoder: Sample, prompt: str) -> list[int]:
    t = encoder.tokenizer
    return [t.bos_id, *t.encode_with_symbols(prompt), t.eos_id]


def test_probabilities_are_those_of_a_forward_pass_over_the_prompt_alone(encoder, filled):
    mask = encoder.tokenizer.symbols.ids["<mask>"]
    for prompt, one in zip(PROMPTS, filled, strict=True):
        row = np.zeros((1, 48), np.int32)
        tokens = row_of(encoder, prompt)
        row[0, : len(tokens)] = tokens
        index = np.arange(48, dtype=np.int32)[None]
        rows = Rows(row, index, (index < len(tokens)).astype(np.int32))
        logits = logits_of(encoder.config, encoder.params, rows)[0].astype(np.float64)
        probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        places = [place for place, token in enumerate(tokens) if token == mask]
        assert len(one.candidates) == len(places) == prompt.count("<mask>")
        for place, candidates in zip(places, one.candidates, strict=True):
            assert len(candidates) == 7
            for c in candidates:
                assert c.probability == pytest.approx(probabilities[place, c.token], rel=1e-4)
            best = np.sort(probabilities[place])[::-1][:7]
            np.testing.assert_allclose([c.probability for c in candidates], best, rtol=1e-4)


def test_candidates_come_best_first_each_once(filled):
    for one in filled:
        for candidates in one.candidates:
            values = [c.probability for c in candidates]
            assert values == sorted(values, reverse=True)
            assert len({c.token for c in candidates}) == len(candidates)


def test_the_text_has_the_best_candidates_in_place_of_the_masks(encoder, filled):
    mask = encoder.tokenizer.symbols.ids["<mask>"]
    for prompt, one in zip(PROMPTS, filled, strict=True):
        best = iter(candidates[0].token for candidates in one.candidates)
        tokens = [next(best) if t == mask else t for t in row_of(encoder, prompt)]
        assert one.text == encoder.tokenizer.decode(tokens)
        assert one.prompt == prompt
        assert "<mask>" not in one.text


def test_a_prompt_gets_the_same_beside_others_and_alone(encoder, filled):
    (alone,) = fill(encoder, [PROMPTS[2]], top=7)
    beside = filled[2]
    assert alone.text == beside.text
    for one, other in zip(alone.candidates, beside.candidates, strict=True):
        assert [c.token for c in one] == [c.token for c in other]


def test_bad_questions_are_refused(encoder, tokenizer):
    c, params, t = encoder
    with pytest.raises(InputError, match="^prompt: got 'x', expected a text with <mask>"):
        fill(encoder, ["<mask>", "x"])
    with pytest.raises(InputError, match="^prompt: got"):
        fill(encoder, [])
    with pytest.raises(InputError, match="^prompt: got '', expected some text"):
        fill(encoder, ["<mask>", ""])
    with pytest.raises(InputError, match="^prompt: got '[0-9]+ tokens', expected 9 at most"):
        fill(encoder, ["<mask>" + "é" * 9], context=9)
    with pytest.raises(InputError, match="^prompt: got '[0-9]+ tokens', expected 64 at most"):
        fill(encoder, ["<mask>" + "é" * 40])
    for top in (0, c.vocab_size + 1):
        with pytest.raises(InputError, match=f"^top: got {top}"):
            fill(encoder, ["<mask>"], top=top)
    with pytest.raises(InputError, match="^tokenizer: got none with the control symbol <mask>"):
        fill_mask(c, params, tokenizer, ["<mask>"])
    with pytest.raises(InputError, match="^model.architecture: got 'decoder_only'"):
        fill_mask(tiny_model(), params, t, ["<mask>"])
    bare = tiny_model(architecture="encoder_only", head=NoHeadConfig())
    with pytest.raises(InputError, match="^model.head.kind: got 'none'"):
        fill_mask(bare, params, t, ["<mask>"])
