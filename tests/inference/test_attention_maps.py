"""Weights are the model's own and those of transformers; statistics of patterns made by hand."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from configs.errors import InputError
from export.import_ import import_folder
from inference.attention_maps import (
    AttentionMap,
    ModelInput,
    attention_maps,
    head_statistics,
    induction_score,
    induction_scores,
    uniform_weight,
)
from tests.export.families.parity import perturb
from tests.model.samples import VARIANTS, random_params

TOKENS, ENCODER_TOKENS = (2, 9, 31, 9, 31, 17, 40, 9), (21, 9, 13, 14, 50, 3)


def read_for(name: str) -> ModelInput:
    has_both = VARIANTS[name].architecture == "encoder_decoder"
    return ModelInput(tokens=TOKENS, encoder_tokens=ENCODER_TOKENS if has_both else None)


@pytest.mark.parametrize("name", ["gemma3", "bert", "bart"])
def test_rows_add_up_to_one_over_what_a_query_sees(name):
    config = VARIANTS[name]
    maps = attention_maps(config, random_params(config), read_for(name))
    expected = {
        "gemma3": ["decoder self-attention"],
        "bert": ["encoder self-attention"],
        "bart": ["encoder self-attention", "decoder self-attention", "cross-attention"],
    }
    assert [shown.name for shown in maps] == expected[name]
    for shown in maps:
        N, H, L, M = shown.weights_NHLM.shape
        assert (L, M) == (len(shown.queries), len(shown.keys)) and H == config.attention.num_heads
        # fp32 sums of up to eight weights.
        np.testing.assert_allclose(shown.weights_NHLM.sum(-1), 1, atol=1e-6)
        is_hidden = np.broadcast_to(~shown.visible_NLM[:, None], shown.weights_NHLM.shape)
        assert (shown.weights_NHLM[is_hidden] == 0).all()
        assert (shown.weights_NHLM[~is_hidden] > 0).all()
        if shown.stack == "decoder" and shown.kind == "self":
            assert (np.triu(shown.weights_NHLM, 1) == 0).all()
    if name == "gemma3":  # two layers of three see the last three keys only
        assert maps[0].visible_NLM.sum(-1)[:, -1].tolist() == [3, 3, 8]


def test_a_prefix_is_seen_both_ways():
    config = VARIANTS["gpt2"]
    params = random_params(config)
    (shown,) = attention_maps(config, params, ModelInput(tokens=TOKENS, is_prefix=True))
    assert shown.visible_NLM.all() and (shown.weights_NHLM > 0).all()


def tiny(kind: str) -> Any:
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        LlamaConfig,
        LlamaForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    if kind == "t5":
        config = T5Config(
            vocab_size=97,
            d_model=32,
            d_kv=6,
            d_ff=40,
            num_heads=5,
            num_layers=2,
            num_decoder_layers=3,
        )
        config._attn_implementation = "eager"
        return perturb(T5ForConditionalGeneration(config))
    sizes: dict[str, Any] = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
        "attn_implementation": "eager",
    }
    if kind == "bert":
        return perturb(BertForMaskedLM(BertConfig(**sizes)))
    return perturb(LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2)))


@pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
def test_weights_equal_those_of_transformers(kind, tmp_path: Path):
    import torch

    theirs = tiny(kind)
    theirs.save_pretrained(str(tmp_path))
    imported = import_folder(tmp_path)
    tokens = torch.tensor([TOKENS])
    with torch.no_grad():
        if kind == "t5":
            encoder = torch.tensor([ENCODER_TOKENS])
            out = theirs(input_ids=encoder, decoder_input_ids=tokens, output_attentions=True)
            expected = [out.encoder_attentions, out.decoder_attentions, out.cross_attentions]
        else:
            expected = [theirs(input_ids=tokens, output_attentions=True).attentions]
    read = ModelInput(tokens=TOKENS, encoder_tokens=ENCODER_TOKENS if kind == "t5" else None)
    with jax.default_matmul_precision("highest"):
        maps = attention_maps(imported.config, imported.params, read)
    assert len(maps) == len(expected)
    for shown, layers in zip(maps, expected, strict=True):
        weights_NHLM = np.stack([layer[0].numpy() for layer in layers])
        assert np.ptp(weights_NHLM, axis=-1).max() > 0.2, "weights so even that none could be off"
        # fp32: scores of a few units, sums of some 30 terms in another order.
        np.testing.assert_allclose(shown.weights_NHLM, weights_NHLM, atol=1e-5)


def shown_map(weights_LM: np.ndarray, *, kind: str = "self") -> AttentionMap:
    L, M = weights_LM.shape
    visible_LM = np.ones((L, M), bool) if kind == "cross" else np.tri(L, M, dtype=bool)
    return AttentionMap(
        stack="decoder",
        kind=kind,
        weights_NHLM=weights_LM[None, None].astype(np.float32),
        visible_NLM=visible_LM[None],
        queries=tuple(range(L)),
        keys=tuple(range(M)),
    )


def test_a_head_that_looks_at_the_token_before_scores_one_and_has_no_entropy():
    weights_LM = np.eye(6, k=-1)
    weights_LM[0, 0] = 1
    (found,) = head_statistics(shown_map(weights_LM))
    assert (found.previous, found.diagonal, found.following) == (1, 0, None)
    assert (found.entropy, found.relative_entropy) == (0, 0)
    assert found.first == pytest.approx(1 / 5)  # of the queries with a choice, the second alone


def test_a_head_that_looks_at_all_alike_has_the_entropy_of_the_number_of_keys():
    weights_LM = np.tri(6) / np.arange(1, 7)[:, None]
    shown = shown_map(weights_LM)
    (found,) = head_statistics(shown)
    assert found.relative_entropy == pytest.approx(1)
    assert found.entropy == pytest.approx(np.log([2, 3, 4, 5, 6]).mean())
    assert found.previous == found.diagonal == found.first == pytest.approx(uniform_weight(shown))


def test_cross_attention_has_no_diagonal():
    (found,) = head_statistics(shown_map(np.full((3, 4), 0.25), kind="cross"))
    assert found.diagonal is found.previous is found.following is None
    assert found.relative_entropy == pytest.approx(1)


def test_one_token_has_no_statistics():
    with pytest.raises(InputError, match="^text: got 'one token', expected two or more"):
        head_statistics(shown_map(np.ones((1, 1))))


def test_a_perfect_induction_head_scores_one():
    length, begin = 5, 1
    L = begin + 2 * length
    weights = np.zeros((2, 3, 2, L, L), np.float32)
    tokens = [99, *range(length), *range(length)]
    for query in range(begin + length, L):
        came_after = tokens.index(tokens[query]) + 1
        weights[1, :, 0, query, came_after] = 1
        weights[1, :, 1, query, came_after - 1] = 1  # the token itself: no induction
    scores_NH = induction_score(weights, length)
    assert scores_NH.tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_random_model_shows_no_induction(name):
    config = VARIANTS[name]
    scores = induction_scores(config, random_params(config), begin=[2], ordinary_ids=range(4, 64))
    assert set(scores) == ({"encoder", "decoder"} if name == "t5" else {"decoder"})
    for scores_NH in scores.values():
        assert scores_NH.shape[1] == config.attention.num_heads
        assert 0 < scores_NH.min() and scores_NH.max() < 0.15


def test_a_text_longer_than_the_table_of_positions_is_refused():
    config = VARIANTS["gpt2"]
    with pytest.raises(InputError, match="tokens: got '65 tokens', expected 62 at most"):
        attention_maps(config, {}, ModelInput(tokens=(9,) * 65))
    with pytest.raises(InputError, match="encoder_tokens: got 'none', expected one or more"):
        attention_maps(VARIANTS["t5"], {}, ModelInput(tokens=(9,)))
