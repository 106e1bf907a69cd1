"""FLOPs by hand for every architecture, and against the compiled train step."""

from dataclasses import replace
from typing import Any

import jax
import pytest

from configs.data_config import DataConfig
from configs.mlp_config import GEGLUConfig, MoEConfig, SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig, RMSNormConfig
from configs.objective_config import (
    CausalLMConfig,
    DenoisingConfig,
    ExampleLengths,
    MaskedLMConfig,
    PrefixLMConfig,
    SpanCorruptionConfig,
)
from configs.optimizer_config import MuonConfig
from configs.position_config import LearnedPositionConfig, RelativeBiasConfig
from configs.schema import RunConfig, TrainingConfig
from planner.flops import (
    executed_flops_per_step,
    expert_slots,
    matmul_params_per_place,
    training_flops_per_row,
    training_flops_per_token,
)
from planner.parameters import matmul_params
from tests.model.samples import QUICK_COMPILE
from tests.planner.test_parameters import BERT
from train.hlo import dot_flops
from train.mesh import make_mesh
from train.programs import abstract_batch
from train.state import abstract_state
from train.step import make_train_step

T5_SMALL = ModelConfig(
    architecture="encoder_decoder",
    vocab_size=32_128,
    emb_dim=512,
    num_layers=8,
    num_encoder_layers=8,
    attention=AttentionConfig(num_heads=6, num_kv_heads=6, head_dim=64, query_scale=1.0),
    position=RelativeBiasConfig(),
    norm=RMSNormConfig(epsilon=1e-6),
    mlp=GEGLUConfig(mlp_dim=1024),
    tie_embeddings=False,
)
T5_LENGTHS = SpanCorruptionConfig().lengths(512)  # 512 places in the encoder, 114 in the decoder


def test_t5_smalls_row_by_hand():
    half, mlp = 2 * 512 * 384, 3 * 512 * 1024  # half of an attention's four kernels
    flops = training_flops_per_row(T5_SMALL, T5_LENGTHS)
    own = 8 * 2 * half * (512 + 114)
    cross = 8 * half * (114 + 512)  # queries and output of the decoder's places, keys of memory's
    assert flops.attention_projections == 6 * (own + cross)
    assert flops.mlp == 6 * 8 * mlp * (512 + 114)
    assert flops.head == 6 * 512 * 32_128 * 114
    pairs = 8 * (512**2 + 114**2 / 2 + 114 * 512)
    assert flops.attention_scores == 12 * 384 * pairs
    palm = training_flops_per_row(T5_SMALL, T5_LENGTHS, causal=False)
    assert palm.total - flops.total == 12 * 384 * 8 * 114**2 / 2


def test_a_token_is_a_place_of_either_side():
    row = training_flops_per_row(T5_SMALL, T5_LENGTHS).total
    assert T5_LENGTHS.places == 626
    assert training_flops_per_token(T5_SMALL, T5_LENGTHS).total == pytest.approx(row / 626)


def test_bert_bases_token_by_hand_and_in_full():
    flops = training_flops_per_token(BERT, 512)
    layers = 12 * (4 * 768**2 + 2 * 768 * 3072)
    head = 768**2 + 768 * 30_522
    assert flops.head == 6 * head
    assert flops.total == 6 * (layers + head) + 12 * 12 * 768 * 512
    assert training_flops_per_token(BERT, 512, causal=False) == flops
    assert training_flops_per_token(BERT, ExampleLengths(512, 0, 512)) == flops


@pytest.mark.parametrize("window", [1, 5, 31, 32, 100])
def test_window_layers_count_the_pairs_that_their_queries_see(window):
    pattern = ("window", "full", "window")
    attention = AttentionConfig(window=window, layer_pattern=pattern)
    decoder = ModelConfig(num_layers=3, attention=attention)
    encoder = replace(decoder, architecture="encoder_only")
    near = sum(abs(query - key) < window for query in range(32) for key in range(32))
    per_pair = 12 * 4 * 32
    in_both = training_flops_per_row(encoder, 32).attention_scores
    assert in_both == per_pair * (2 * near + 32 * 32)
    # Halved for the causal mask like the whole square; exactly would be half of it and a half of
    # the diagonal.
    assert training_flops_per_row(decoder, 32).attention_scores == in_both / 2


def test_a_mixtures_token_pays_for_the_router_and_its_experts():
    dense = ModelConfig(mlp=SwiGLUConfig(mlp_dim=64))
    mixture = replace(dense, mlp=MoEConfig(mlp_dim=64, num_experts=8, experts_per_token=3))
    flops, one = (training_flops_per_token(model, 128) for model in (mixture, dense))
    assert flops.mlp == 3 * one.mlp + 6 * 4 * 128 * 8
    assert flops.attention_projections == one.attention_projections


def test_a_place_meets_one_sides_weights():
    met = matmul_params_per_place(T5_SMALL, T5_LENGTHS)
    flops = training_flops_per_token(T5_SMALL, T5_LENGTHS)
    assert 6 * met + flops.attention_scores == pytest.approx(flops.total)
    assert 0.4 < met / (matmul_params(T5_SMALL) - 512 * 32_128 * 512 / 626) < 0.6
    assert matmul_params_per_place(BERT, 512) == matmul_params(BERT)


def small(model: ModelConfig, **fields: Any) -> ModelConfig:
    """The model's kind in a size that compiles fast."""
    attention = replace(model.attention, num_heads=4, num_kv_heads=2, head_dim=8)
    sizes: dict[str, Any] = {"vocab_size": 192, "emb_dim": 24, "num_layers": 2}
    if model.architecture == "encoder_decoder":
        sizes["num_encoder_layers"] = 3
    if isinstance(model.position, LearnedPositionConfig):
        fields["position"] = LearnedPositionConfig(num_positions=32)
    mlp = fields.pop("mlp", replace(model.mlp, mlp_dim=40))
    return replace(model, **({"attention": attention} | sizes | fields), mlp=mlp)


BLOCKS = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, causal_blocks=2)
WINDOWS = replace(BLOCKS, window=5, layer_pattern=("window", "full"), qk_norm=True)
BLOCKWISE = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8, kernel="blockwise")
MIXTURE = MoEConfig(mlp_dim=40, num_experts=4, experts_per_token=2)
COMPILED: dict[str, Any] = {
    "bert": (small(BERT), MaskedLMConfig(), {}),
    "bert-remat": (small(BERT, remat="full"), MaskedLMConfig(), {}),
    "t5-blocks-muon": (
        small(T5_SMALL, attention=BLOCKS),
        SpanCorruptionConfig(),
        {"optimizer": MuonConfig()},
    ),
    "t5-remat-unrolled": (
        small(T5_SMALL, remat="full", scan_layers=False),
        SpanCorruptionConfig(),
        {},
    ),
    "bart-biases": (
        small(replace(T5_SMALL, norm_placement="post"), remat="full"),
        DenoisingConfig(),
        {},
    ),
    "windows-sandwich": (
        small(ModelConfig(), attention=WINDOWS, norm_placement="sandwich", remat="full"),
        CausalLMConfig(),
        {},
    ),
    "prefix": (small(ModelConfig(), attention=BLOCKS), PrefixLMConfig(), {}),
    "mixture": (small(ModelConfig(), mlp=MIXTURE, remat="full"), CausalLMConfig(), {}),
    "mixture-capacity": (
        small(ModelConfig(), mlp=replace(MIXTURE, dispatch="capacity"), remat="full"),
        CausalLMConfig(),
        {"optimizer": MuonConfig()},
    ),
    "attention-remat": (
        small(ModelConfig(), attention=BLOCKS, remat="attention"),
        CausalLMConfig(),
        {},
    ),
    "dots-every-second-layer": (
        small(ModelConfig(), num_layers=4, remat="dots", remat_pattern=("remat", "keep")),
        CausalLMConfig(),
        {},
    ),
    "t5-dots": (small(T5_SMALL, remat="dots"), SpanCorruptionConfig(), {}),
    "mixture-dots": (small(ModelConfig(), mlp=MIXTURE, remat="dots"), CausalLMConfig(), {}),
    "capacity-dots": (
        small(ModelConfig(), mlp=replace(MIXTURE, dispatch="capacity"), remat="dots"),
        CausalLMConfig(),
        {},
    ),
    "blockwise": (small(ModelConfig(), attention=BLOCKWISE), CausalLMConfig(), {}),
}
# Those that take longest to compile.
SLOW = {
    "t5-blocks-muon",
    "t5-remat-unrolled",
    "t5-dots",
    "bart-biases",
    "windows-sandwich",
    "dots-every-second-layer",
    "mixture-dots",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in COMPILED],
)
def test_executed_flops_are_those_of_the_compiled_train_step(name):
    model, objective, fields = COMPILED[name]
    config = RunConfig(
        model=model,
        objective=objective,
        data=DataConfig(seq_len=32),
        training=TrainingConfig(batch_size=4),
        **fields,
    )
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    lowered = make_train_step(config, mesh).lower(
        abstract_state(config, mesh), abstract_batch(config, mesh)
    )
    text = lowered.compile(QUICK_COMPILE).as_text()
    assert text is not None
    # XLA may still merge equal products or drop unused ones: 2% leaves it a little freedom.
    assert dot_flops(text) == pytest.approx(executed_flops_per_step(config).total, rel=0.02)


def test_empty_slots_of_a_dropless_mixture_are_a_part_of_the_choices():
    config = RunConfig(
        model=ModelConfig(mlp=MoEConfig(num_experts=8, experts_per_token=2)),
        data=DataConfig(seq_len=1024),
        training=TrainingConfig(batch_size=8),
    )
    slots = expert_slots(config)
    assert slots.chosen == 4 * 8 * 1024 * 2
    # Blocks of a quarter of a group: at most one badly filled block for each expert.
    assert slots.chosen < slots.computed <= 1.25 * slots.chosen
    assert slots.sent == 0
    assert expert_slots(replace(config, model=ModelConfig())).computed == 0
