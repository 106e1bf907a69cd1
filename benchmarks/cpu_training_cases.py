"""What benchmarks/cpu_training.py trains: our config of a shape, and `transformers`' model of it.

Both sides have the same widths, layers, vocabulary, rows and number of parameters, no dropout, and
read the same arrays. Ours as the planner sets it on a CPU: layers unrolled, causal attention in
two blocks. Theirs with scaled_dot_product_attention where the model has it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from configs.data_config import DataConfig
from configs.mlp_config import GEGLUConfig, GELUConfig, SwiGLUConfig
from configs.model_config import (
    Architecture,
    AttentionConfig,
    EmbeddingConfig,
    LayerNormConfig,
    LinearHeadConfig,
    MaskedLMHeadConfig,
    ModelConfig,
    NormalInitConfig,
    RMSNormConfig,
    T5InitConfig,
)
from configs.objective_config import MaskedLMConfig, SpanCorruptionConfig
from configs.optimizer_config import AdamWConfig
from configs.position_config import LearnedPositionConfig, RelativeBiasConfig
from configs.schema import RunConfig, TrainingConfig
from data.batches import Batch
from workflows.calibrate import random_batch

IGNORED = -100  # a label that `transformers` takes no loss of


@dataclass(frozen=True, kw_only=True)
class TrainingCase:
    """A shape that both sides train.

    Attributes:
      config: ours, fp32.
      peer: makes their model, as a module in training mode.
      peer_inputs: a batch as the arguments of its forward pass, int64 arrays.
    """

    name: str
    config: RunConfig
    peer: Callable[[], Any]
    peer_inputs: Callable[[Batch], dict[str, np.ndarray]]

    def batch(self) -> Batch:
        """Random tokens; of an encoder's 15% are targets, which changes nobody's work."""
        batch = random_batch(self.config)
        if self.config.model.architecture == "encoder_only":
            chosen = np.random.default_rng(1).random(batch.targets.shape) < 0.15
            batch = batch._replace(loss_weights=chosen.astype(np.float32))
        return batch

    @property
    def places(self) -> int:
        """Tokens of a step, those of both sides of an encoder-decoder."""
        return self.config.training.batch_size * self.config.lengths.places


def _decoder(
    *,
    vocab_size: int,
    emb_dim: int,
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    rows: int,
    seq_len: int,
) -> RunConfig:
    return RunConfig(
        model=ModelConfig(
            vocab_size=vocab_size,
            emb_dim=emb_dim,
            num_layers=num_layers,
            attention=AttentionConfig(
                num_heads=num_heads,
                num_kv_heads=num_heads,
                head_dim=emb_dim // num_heads,
                causal_blocks=2,
            ),
            mlp=SwiGLUConfig(mlp_dim=mlp_dim),
            scan_layers=False,
            tie_embeddings=False,
        ),
        data=DataConfig(seq_len=seq_len),
        optimizer=AdamWConfig(),
        training=TrainingConfig(batch_size=rows),
    )


def _encoder() -> RunConfig:
    return RunConfig(
        model=ModelConfig(
            architecture="encoder_only",
            vocab_size=8192,
            emb_dim=320,
            num_layers=8,
            attention=AttentionConfig(
                num_heads=5, num_kv_heads=5, head_dim=64, use_qkv_bias=True, use_out_bias=True
            ),
            position=LearnedPositionConfig(num_positions=256),
            norm=LayerNormConfig(epsilon=1e-12),
            norm_placement="post",
            mlp=GELUConfig(mlp_dim=1280, gelu="exact"),
            embedding=EmbeddingConfig(num_token_types=2, use_norm=True),
            head=MaskedLMHeadConfig(),
            init=NormalInitConfig(stddev=0.02, scale_residual=False),
            scan_layers=False,
        ),
        objective=MaskedLMConfig(),
        data=DataConfig(seq_len=256),
        optimizer=AdamWConfig(learning_rate=1e-3),
        training=TrainingConfig(batch_size=8),
    )


def _encoder_decoder() -> RunConfig:
    return RunConfig(
        model=ModelConfig(
            architecture="encoder_decoder",
            vocab_size=8192,
            emb_dim=256,
            num_layers=5,
            num_encoder_layers=5,
            attention=AttentionConfig(num_heads=4, num_kv_heads=4, head_dim=64, query_scale=1.0),
            position=RelativeBiasConfig(num_buckets=32, max_distance=128),
            norm=RMSNormConfig(epsilon=1e-6),
            mlp=GEGLUConfig(mlp_dim=704, gelu="tanh"),
            # transformers 5 ties T5's tables whatever it is told, and then scales the logits.
            head=LinearHeadConfig(logit_scale=256**-0.5),
            init=T5InitConfig(),
            scan_layers=False,
        ),
        objective=SpanCorruptionConfig(density=0.15, mean_span=3.0),
        data=DataConfig(seq_len=256),
        optimizer=AdamWConfig(learning_rate=1e-3),
        training=TrainingConfig(batch_size=8),
    )


def _llama(config: RunConfig) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    m: Any = config.model  # each side's variants are those of _decoder and the like
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=m.vocab_size,
            hidden_size=m.emb_dim,
            intermediate_size=m.mlp.mlp_dim,
            num_hidden_layers=m.num_layers,
            num_attention_heads=m.attention.num_heads,
            num_key_value_heads=m.attention.num_kv_heads,
            max_position_embeddings=config.data.seq_len,
            tie_word_embeddings=m.tie_embeddings,
            attn_implementation="sdpa",  # type: ignore[call-arg]
            use_cache=False,
        )
    )


def _bert(config: RunConfig) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    m: Any = config.model
    return BertForMaskedLM(
        BertConfig(
            vocab_size=m.vocab_size,
            hidden_size=m.emb_dim,
            intermediate_size=m.mlp.mlp_dim,
            num_hidden_layers=m.num_layers,
            num_attention_heads=m.attention.num_heads,
            max_position_embeddings=m.position.num_positions,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="sdpa",  # type: ignore[call-arg]
        )
    )


def _t5(config: RunConfig) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    m: Any = config.model
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=m.vocab_size,
            d_model=m.emb_dim,
            d_kv=m.attention.head_dim,
            d_ff=m.mlp.mlp_dim,
            num_layers=m.num_encoder_layers,
            num_decoder_layers=m.num_layers,
            num_heads=m.attention.num_heads,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            use_cache=False,
        )
    )


def _causal_inputs(batch: Batch) -> dict[str, np.ndarray]:
    return {"input_ids": _long(batch.inputs), "labels": _long(batch.targets)}


def _masked_inputs(batch: Batch) -> dict[str, np.ndarray]:
    labels = np.where(batch.loss_weights > 0, batch.targets, IGNORED)
    return {"input_ids": _long(batch.inputs), "labels": _long(labels)}


def _two_sided_inputs(batch: Batch) -> dict[str, np.ndarray]:
    return {
        "input_ids": _long(batch.encoder_inputs),
        "decoder_input_ids": _long(batch.inputs),
        "labels": _long(batch.targets),
    }


def _long(array: Any) -> np.ndarray:
    return np.asarray(array, np.int64)


PEERS: Mapping[Architecture, Callable[[RunConfig], Any]] = {
    "decoder_only": _llama,
    "encoder_only": _bert,
    "encoder_decoder": _t5,
}
_INPUTS: Mapping[Architecture, Callable[[Batch], dict[str, np.ndarray]]] = {
    "decoder_only": _causal_inputs,
    "encoder_only": _masked_inputs,
    "encoder_decoder": _two_sided_inputs,
}


def _case(name: str, config: RunConfig) -> TrainingCase:
    config, architecture = replace(config, name=name), config.model.architecture
    return TrainingCase(
        name=name,
        config=config,
        peer=lambda: PEERS[architecture](config),
        peer_inputs=_INPUTS[architecture],
    )


CASES = (
    _case(
        "decoder-8M",
        _decoder(
            vocab_size=4096,
            emb_dim=256,
            num_layers=6,
            num_heads=4,
            mlp_dim=768,
            rows=8,
            seq_len=256,
        ),
    ),
    _case(
        "decoder-40M",
        _decoder(
            vocab_size=8192,
            emb_dim=512,
            num_layers=10,
            num_heads=8,
            mlp_dim=1408,
            rows=4,
            seq_len=512,
        ),
    ),
    _case("encoder-13M", _encoder()),
    _case("encoder-decoder-11M", _encoder_decoder()),
)
