"""Generation on a mesh of eight devices gives the tokens that one device gives."""

from typing import Any

import jax
import pytest

from configs.errors import InputError
from configs.model_config import AttentionConfig
from configs.schema import MeshConfig
from inference.generate import TextGenerator
from inference.generation import Beams
from inference.sampling import Sampling
from tests.inference.conftest import assert_alike
from tests.model.samples import POSITIONS, random_params, tiny_model
from train.mesh import make_mesh

PROMPTS = ["def add(", "x", "class Point:\n    pass\n"]
MESHES = {
    "data and tensor": MeshConfig(data=4, tensor=2),
    "fsdp and tensor": MeshConfig(fsdp=4, tensor=2),
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "decoder_only": {},
    "encoder_decoder": {"num_encoder_layers": 1, "position": POSITIONS["relative bias"]},
}


@pytest.mark.parametrize(
    ("architecture", "mesh"),
    [
        pytest.param("decoder_only", "data and tensor", marks=pytest.mark.slow),
        pytest.param("encoder_decoder", "fsdp and tensor", marks=pytest.mark.slow),
    ],
)
def test_tokens_are_those_of_one_device(tokenizer, architecture, mesh):
    config = tiny_model(
        architecture=architecture,
        vocab_size=tokenizer.vocab_size,
        num_layers=1,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8),
        **ARCHITECTURES[architecture],
    )
    params = random_params(config)
    alone = TextGenerator(config, params, tokenizer)
    shared = TextGenerator(config, params, tokenizer, mesh=make_mesh(MESHES[mesh]))
    kernel = shared._params["decoder"]["layers_0"]["attention"]["query"]["kernel"]
    assert len({str(shard.index) for shard in kernel.addressable_shards}) > 1  # it is cut
    ways: list[dict[str, Any]] = [
        {"sampling": Sampling(temperature=1.0, top_p=0.9, seed=1)},
        {"beams": Beams(number=2)},
    ]
    for options in ways:
        expected = alone.generate(PROMPTS, max_tokens=10, **options)
        assert len({one.tokens for one in expected}) == len(PROMPTS)
        got = shared.generate(PROMPTS, max_tokens=10, **options)
        for one, other in zip(got, expected, strict=True):
            assert_alike(one, other)


def test_heads_that_do_not_divide_are_refused(sample):
    mesh = make_mesh(MeshConfig(data=4, tensor=2))
    with pytest.raises(InputError, match="kv_heads: got 2 shards for a dimension of 1"):
        TextGenerator(*sample, mesh=mesh)


def test_the_tests_have_eight_devices():
    assert len(jax.devices()) == 8
