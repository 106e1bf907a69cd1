"""Mixtral (arXiv 2401.04088): Llama whose MLP is a mixture of experts, each a SwiGLU.

Their router takes the softmax over all experts, keeps the best and makes those sum to one: the
same numbers as a softmax over the best.
"""

from collections.abc import Mapping
from typing import Any

from configs.mlp_config import MoEConfig
from configs.model_config import AttentionConfig, LinearHeadConfig, ModelConfig, RMSNormConfig
from configs.position_config import RopeConfig
from export.families import llama_layout
from export.families.family import Family, SpecialIds, entries_of
from export.families.fields import Fields
from export.families.rope import read_rope, write_rope

_MLP = f"{llama_layout.OURS}/mlp"
_MOE = f"{llama_layout.THEIRS}.block_sparse_moe"
_EXPERT = f"{_MOE}.experts.{{expert}}"

TABLE = (
    *llama_layout.EMBEDDING,
    *llama_layout.PRE_NORMS,
    *llama_layout.ATTENTION,
    *entries_of(
        (f"{_MLP}/router/kernel", f"{_MOE}.gate.weight", "D E", "E D"),
        (f"{_MLP}/experts/gate/kernel", f"{_EXPERT}.w1.weight", "D F", "F D"),
        (f"{_MLP}/experts/up/kernel", f"{_EXPERT}.w3.weight", "D F", "F D"),
        (f"{_MLP}/experts/down/kernel", f"{_EXPERT}.w2.weight", "F D", "D F"),
    ),
    *llama_layout.HEAD,
)

_FIXED = {**llama_layout.FIXED, "hidden_act": ("silu", "our experts are SwiGLU")}


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json for a model trained on rows of `seq_len` tokens."""
    assert isinstance(config.position, RopeConfig)
    assert isinstance(config.mlp, MoEConfig)
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        **llama_layout.write_common(config, seq_len, ids),
        **write_rope(config.position),
        "hidden_act": "silu",
        "sliding_window": config.attention.window or None,
        "num_local_experts": config.mlp.num_experts,
        "num_experts_per_tok": config.mlp.experts_per_token,
        "router_aux_loss_coef": config.mlp.balance_loss,
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, longest context) of a Mixtral config.json.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields = Fields(theirs)
    fields.fixed(_FIXED)
    window = fields.get("sliding_window") and fields.whole("sliding_window")
    config = ModelConfig(
        **llama_layout.read_common(fields),
        attention=AttentionConfig(
            **llama_layout.read_heads(fields, num_kv_heads=8),
            window=window or 0,
            layer_pattern=("window",) if window else ("full",),
        ),
        position=read_rope(fields, default_theta=1e6),
        norm=RMSNormConfig(epsilon=fields.number("rms_norm_eps", 1e-5)),
        mlp=MoEConfig(
            mlp_dim=fields.whole("intermediate_size"),
            num_experts=fields.whole("num_local_experts", 8),
            experts_per_token=fields.whole("num_experts_per_tok", 2),
            balance_loss=fields.number("router_aux_loss_coef", 0.001),
            router_z_loss=0.0,
        ),
    )
    seq_len = fields.whole("max_position_embeddings", 131_072)
    fields.finish()
    return config, seq_len


MIXTRAL = Family(
    name="mixtral",
    model_type="mixtral",
    architectures=("MixtralForCausalLM",),
    architecture="decoder_only",
    blocks={
        "norm": RMSNormConfig,
        "position": RopeConfig,
        "mlp": MoEConfig,
        "head": LinearHeadConfig,
    },
    entries=lambda config: TABLE,
    to_config=to_config,
    from_config=from_config,
    left_out=llama_layout.LEFT_OUT,
    copies=llama_layout.copies,
)
