"""Who can influence whom, shown by gradients rather than by reading the mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.model_config import AttentionConfig, ModelConfig
from model.build import build_model, forward
from tests.model.samples import QUICK_COMPILE, packed_rows, random_params, tiny_model

LENGTHS, PADDING = [5, 1, 7], 3


def influence(config: ModelConfig, positions: np.ndarray, segment_ids: np.ndarray) -> np.ndarray:
    """[L, L]: the norm of d logits[t] / d embedding of token s, t the row, s the column.

    Every token of the row is another id, so row s of the (untied) table is token s's embedding.
    """
    L = positions.shape[1]
    assert not config.tie_embeddings and L <= config.vocab_size
    params, model = random_params(config), build_model(config)
    reading_V = np.random.default_rng(0).standard_normal(config.vocab_size).astype(np.float32)

    def read(table_VD: jax.Array) -> jax.Array:
        logits_BLV = forward(
            model,
            params | {"token_embedding": {"embedding": table_VD}},
            jnp.arange(L, dtype=jnp.int32)[None],
            positions=jnp.asarray(positions),
            segment_ids=jnp.asarray(segment_ids),
        )
        return logits_BLV[0] @ reading_V

    jacobian = jax.jit(jax.jacrev(read), compiler_options=QUICK_COMPILE)
    jacobian_LVD = jacobian(params["token_embedding"]["embedding"])
    return np.linalg.norm(np.asarray(jacobian_LVD), axis=-1)[:, :L]


@pytest.mark.parametrize(
    "config",
    [
        tiny_model(),
        tiny_model(scan_layers=True),
        tiny_model(
            attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, causal_blocks=4)
        ),
        tiny_model(compute_dtype="bfloat16"),
    ],
    ids=["unrolled", "scanned", "in causal blocks", "bfloat16"],
)
def test_future_tokens_other_documents_and_padding_get_zero_gradient_all_others_some(config):
    _, positions, segment_ids = packed_rows(LENGTHS, padding=PADDING)
    norms = influence(config, positions, segment_ids)
    is_token = segment_ids[0] > 0
    past = np.tri(len(is_token), dtype=bool)
    same_document = segment_ids[0][:, None] == segment_ids[0][None, :]
    logits_of_tokens = is_token[:, None]
    assert (norms[logits_of_tokens & ~past] == 0).all()
    assert (norms[logits_of_tokens & ~same_document] == 0).all()
    assert (norms[logits_of_tokens & past & same_document] > 0).all()
