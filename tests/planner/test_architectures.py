"""Plans for encoders, encoder-decoders and mixtures add up as those for decoders do."""

import json
from dataclasses import replace

import pytest

from configs.errors import InputError
from configs.mlp_config import GELUConfig, MoEConfig
from configs.model_config import ModelConfig
from configs.objective_config import DenoisingConfig, PrefixLMConfig, UL2Config
from configs.optimizer_config import AdamWConfig
from configs.position_config import LearnedPositionConfig
from configs.presets import PRESETS
from configs.schema import RunConfig
from planner.accounting import (
    matmul_params,
    matmul_params_per_place,
    total_params,
    training_flops_per_row,
)
from planner.budget import Budget, Constraints
from planner.explain import explain
from planner.fitted_law import FittedLaw
from planner.hyperparameters import optimizer_for
from planner.laws import BESIROGLU, TWENTY_TO_ONE
from planner.on_hardware import needed_bytes
from planner.plan import make_plan
from planner.shapes import CPU_TILE, shape_for, vocabulary_for
from tests.planner.samples import CPU, GPUS

TEMPLATES = {
    "encoder_only": PRESETS["encoder_only"](),
    "bert_base": PRESETS["encoder_only/bert_base"](),
    "modernbert": PRESETS["encoder_only/modernbert_base"](),
    "encoder_decoder": PRESETS["encoder_decoder"](),
    "bart": PRESETS["encoder_decoder/bart_base"](),
    "ul2": replace(PRESETS["encoder_decoder"](), objective=UL2Config()),
    "mixture": RunConfig(model=ModelConfig(mlp=MoEConfig())),
}
BERT, T5, MIXTURE = (TEMPLATES[name] for name in ("encoder_only", "encoder_decoder", "mixture"))


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    ("kind", "value", "hardware"),
    [
        ("time", 10.0, CPU),
        ("time", 60.0, CPU),
        ("time", 300.0, CPU),
        ("time", 7200.0, CPU),
        ("flops", 1e19, GPUS),
        ("params", 3e8, GPUS),
        ("tokens", 5e9, GPUS),
    ],
)
def test_a_plan_adds_up(name, kind, value, hardware):
    template = TEMPLATES[name]
    plan = make_plan(Budget(kind=kind, value=value), template=template, hardware=hardware)
    config, lengths = plan.config, plan.config.lengths
    record = json.loads(json.dumps(plan.to_json(corpus_tokens=1_000_000)))
    training, data = record["training"], record["data"]
    rows = training["num_steps"] * data["batch_size"]
    assert data["tokens"] == rows * lengths.places
    assert data["tokens_read"] == rows * (lengths.tokens - lengths.overlap)
    assert data["epochs"] == data["tokens_read"] / 1_000_000
    per_row = training_flops_per_row(config.model, lengths).total
    assert record["predicted"]["flops"] == pytest.approx(rows * per_row)
    assert needed_bytes(config, hardware).total <= 0.9 * hardware.memory_bytes
    spent = {
        "time": record["predicted"]["train_seconds"],
        "flops": record["predicted"]["flops"],
        "params": record["model"]["params"],
        "tokens": data["tokens"],
    }
    # A shape is a whole number of layers; the shortest budgets have a few hundred steps.
    assert spent[kind] == pytest.approx(value, rel=0.15 if kind == "params" else 0.02)
    assert all(isinstance(line, str) for line in explain(plan))


@pytest.mark.parametrize("name", TEMPLATES)
def test_whatever_is_no_size_is_the_templates(name):
    template = TEMPLATES[name]
    model = make_plan(
        Budget(kind="time", value=300.0), template=template, hardware=CPU
    ).config.model
    ours = replace(
        model,
        **{
            field: getattr(template.model, field)
            for field in ("vocab_size", "emb_dim", "num_layers", "num_encoder_layers",
                          "compute_dtype", "scan_layers", "remat", "tie_embeddings")
        },
        attention=template.model.attention,
        position=template.model.position,
        mlp=replace(model.mlp, mlp_dim=template.model.mlp.mlp_dim),
    )  # fmt: skip
    assert ours == template.model
    if model.architecture != "decoder_only":
        assert model.tie_embeddings == template.model.tie_embeddings
        assert model.attention.num_kv_heads == model.attention.num_heads
    if model.architecture == "encoder_decoder":
        assert model.num_encoder_layers == model.num_layers
    causal_blocks = 1 if model.architecture == "encoder_only" else 2
    assert model.attention.causal_blocks == causal_blocks


def test_no_law_is_published_so_twenty_to_one_is_borrowed_and_no_loss_promised():
    for template, objective in ((BERT, "masked_lm"), (T5, "span_corruption")):
        plan = make_plan(Budget(kind="flops", value=1e20), template=template, hardware=GPUS)
        assert plan.law is TWENTY_TO_ONE
        assert plan.optimum.ratio == pytest.approx(20)
        assert plan.loss.value is None and objective in plan.loss.note
        assert any("borrowed from dense causal" in warning for warning in plan.warnings())
        record = plan.to_json()
        assert record["other_sizes"] == []
        assert all(answer["loss"] is None for answer in record["laws"])


def test_a_causal_law_named_for_an_encoder_gives_sizes_and_no_loss():
    budget = Budget(kind="flops", value=1e20)
    plan = make_plan(budget, template=BERT, hardware=GPUS, law=BESIROGLU)
    assert plan.law is BESIROGLU
    assert plan.loss.value is None
    assert plan.to_json()["other_sizes"] == []
    with pytest.raises(InputError, match="^inference_tokens"):
        make_plan(
            budget,
            template=BERT,
            hardware=GPUS,
            constraints=Constraints(inference_tokens=1e12),
        )


def test_a_fitted_law_promises_a_loss_for_any_architecture():
    law = FittedLaw(
        name="fitted:law.json",
        source="runs.csv",
        params_kind="matmul",
        flops_meaning="as in the runs",
        min_flops=1e12,
        max_flops=1e15,
        flops_per_param_token=6.2,
        residual=0.01,
        samples=((1.5, 400.0, 2000.0, 0.35, 0.37), (1.6, 380.0, 2100.0, 0.34, 0.37)),
        reasons=(),
        E=1.5,
        A=400.0,
        B=2000.0,
        alpha=0.35,
        beta=0.37,
    )
    plan = make_plan(Budget(kind="flops", value=1e14), template=T5, hardware=CPU, law=law)
    assert plan.loss.value == pytest.approx(law.loss(plan.params_by_law, plan.tokens))


def test_an_encoder_decoders_n_is_what_a_place_meets():
    plan = make_plan(Budget(kind="flops", value=1e20), template=T5, hardware=GPUS)
    model, lengths = plan.config.model, plan.config.lengths
    assert plan.params_by_law == round(matmul_params_per_place(model, lengths))
    assert plan.params_by_law < 0.7 * matmul_params(model)
    # 6·N·D are the FLOPs without scores, so the budget buys fewer tokens than C / 6N.
    assert 6 * plan.params_by_law * plan.tokens < 1e20
    assert plan.params_by_law == pytest.approx(plan.optimum.params, rel=0.1)


def test_a_budget_of_parameters_counts_all_and_gives_tokens_for_those_met():
    for template in (T5, MIXTURE):
        plan = make_plan(Budget(kind="params", value=3e8), template=template, hardware=GPUS)
        assert total_params(plan.config.model) == pytest.approx(3e8, rel=0.1)
        assert plan.optimum.params == plan.params_by_law < 0.6 * 3e8
        assert plan.tokens == pytest.approx(plan.optimum.tokens, rel=0.01)


def test_learned_positions_reach_as_far_as_either_side():
    budget = Budget(kind="time", value=60.0)
    bart = make_plan(budget, template=TEMPLATES["bart"], hardware=CPU).config
    assert isinstance(bart.model.position, LearnedPositionConfig)
    assert bart.model.position.num_positions == bart.lengths.encoder_length + 2
    long = make_plan(
        budget, template=TEMPLATES["bert_base"], hardware=CPU, constraints=Constraints(seq_len=320)
    ).config
    assert isinstance(long.model.position, LearnedPositionConfig)
    assert long.model.position.num_positions == 320


def test_small_models_that_learn_their_positions_get_short_rows():
    budget = Budget(kind="time", value=60.0)
    learned = make_plan(budget, template=TEMPLATES["bert_base"], hardware=CPU).config
    turned = make_plan(budget, template=T5, hardware=CPU).config
    assert learned.data.seq_len == 64 < turned.data.seq_len
    large = Budget(kind="params", value=1e8)
    assert make_plan(large, template=TEMPLATES["bert_base"], hardware=GPUS).config.data.seq_len > 64


def test_text_is_counted_as_read_not_as_computed():
    denoising = replace(T5, objective=DenoisingConfig())
    budget = Budget(kind="flops", value=1e14)
    enough = Constraints(unique_tokens=1e9)
    plan = make_plan(budget, template=denoising, hardware=CPU, constraints=enough)
    assert plan.tokens_read < 0.51 * plan.tokens  # the decoder writes what the encoder read
    epochs = plan.epochs()
    assert epochs == plan.tokens_read / 1e9
    scarce = Constraints(unique_tokens=plan.tokens_read / 3)
    with pytest.raises(InputError, match="^unique_tokens"):
        make_plan(budget, template=denoising, hardware=CPU, constraints=scarce)


def test_a_prefix_model_is_planned_like_any_decoder():
    prefix = replace(PRESETS["decoder_only"](), objective=PrefixLMConfig())
    causal = PRESETS["decoder_only"]()
    budget = Budget(kind="time", value=300.0)
    a, b = (make_plan(budget, template=one, hardware=CPU) for one in (prefix, causal))
    assert a.config.model == b.config.model
    assert a.config.training.num_steps == b.config.training.num_steps
    assert a.loss.value is None


def test_mlps_are_as_wide_as_their_gates_ask():
    for template, ratio in ((T5, 8 / 3), (MIXTURE, 8 / 3), (TEMPLATES["bert_base"], 4)):
        model = shape_for(3e6, template=template.model, vocab_size=2048, tile=CPU_TILE)
        assert model.mlp.mlp_dim == pytest.approx(ratio * model.emb_dim, abs=CPU_TILE.mlp / 2)
    gelu = replace(T5.model, mlp=GELUConfig(use_bias=False))
    assert shape_for(3e6, template=gelu, vocab_size=2048, tile=CPU_TILE).mlp == replace(
        gelu.mlp, mlp_dim=shape_for(3e6, template=gelu, vocab_size=2048, tile=CPU_TILE).mlp.mlp_dim
    )


def test_a_query_scale_of_the_old_heads_becomes_that_of_the_new():
    def scale_of(query_scale: float) -> float:
        attention = replace(T5.model.attention, head_dim=256, query_scale=query_scale)
        template = replace(T5.model, attention=attention)
        return shape_for(
            3e6, template=template, vocab_size=2048, tile=CPU_TILE
        ).attention.query_scale

    assert (scale_of(1.0), scale_of(0.0), scale_of(256**-0.5)) == (1.0, 0.0, 0.0)


def test_control_symbols_leave_room_for_the_text():
    assert vocabulary_for(1e5) == vocabulary_for(1e5, num_symbols=100) == 1024
    assert vocabulary_for(1e5, num_symbols=300) == 2048
    assert vocabulary_for(1e12, num_symbols=300) == vocabulary_for(1e12)


def test_post_norm_models_keep_published_learning_rates():
    pre, _ = optimizer_for(AdamWConfig(learning_rate=1e-4), 1e14, 1000)
    post, rules = optimizer_for(AdamWConfig(learning_rate=1e-4), 1e14, 1000, norm_placement="post")
    assert post.learning_rate == 6e-4 < pre.learning_rate
    assert "post-norm" in rules[0].rule
    own, _ = optimizer_for(AdamWConfig(learning_rate=2e-3), 1e14, 1000, norm_placement="post")
    assert own.learning_rate == 2e-3
