"""Train steps for GPUs: what is compiled for machines that are not here, and what is timed on one.

Pure data. bf16 compute, fp32 parameters, gradients and optimizer state; one optimizer update of one
batch, no microbatches. Documents fill their rows, so peers may leave masks out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from configs.data_config import DataConfig
from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig, NormalInitConfig, Remat
from configs.optimizer_config import AdafactorConfig, AdamWConfig, CosineConfig, OptimizerConfig
from configs.position_config import RopeConfig
from configs.presets.bert import bert_large
from configs.presets.llama import llama3_8b
from configs.presets.t5 import t5_large
from configs.schema import MeshConfig, RunConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class CompiledCase:
    """A config on GPUs that are not here: topology as `planner.topology.parse_topology` reads it,
    the config's mesh is all of it."""

    name: str
    config: Callable[[], RunConfig]
    topology: str


@dataclass(frozen=True, kw_only=True)
class TimedCase:
    """A config on the one GPU of this machine.

    Attributes:
      family: which of transformers' models is its peer: llama, t5 or bert.
      config: builds it.
    """

    name: str
    family: str
    config: Callable[[], RunConfig]


def decoder_400m(rows: int, seq_len: int, mesh: MeshConfig, remat: Remat = "none") -> RunConfig:
    """374M parameters of Llama's kind."""
    model = _llama_model(
        emb_dim=1024, num_layers=24, num_heads=16, head_dim=64, mlp_dim=2816, remat=remat
    )
    return _run("decoder_400m", model, rows, seq_len, mesh)


def decoder_1b(rows: int, seq_len: int, mesh: MeshConfig, remat: Remat = "full") -> RunConfig:
    """1.35B parameters of Llama's kind, heads 128 wide."""
    model = _llama_model(
        emb_dim=2048, num_layers=24, num_heads=16, head_dim=128, mlp_dim=5504, remat=remat
    )
    return _run("decoder_1b", model, rows, seq_len, mesh)


def decoder_7b(rows: int, seq_len: int, mesh: MeshConfig, remat: Remat = "full") -> RunConfig:
    """6.74B parameters: Llama 2's 7B (Touvron et al. 2023, arXiv 2307.09288).

    The largest decoder for which AdamW fits one 141 GB GPU with room to spare: parameters and
    moments are 81 GB, gradients 27; of Llama 3's 8B they are 128 GB together.
    """
    model = _llama_model(
        emb_dim=4096, num_layers=32, num_heads=32, head_dim=128, mlp_dim=11_008, remat=remat
    )
    return _run("decoder_7b", model, rows, seq_len, mesh)


def decoder_8b(
    rows: int, seq_len: int, mesh: MeshConfig, optimizer: OptimizerConfig | None = None
) -> RunConfig:
    """8.03B parameters: Llama 3's 8B. Adafactor's state, rows and columns, is 10 MB beside the 64
    GB of AdamW's, so with it one 141 GB GPU holds parameters, gradients and long rows."""
    config = llama3_8b()
    return _run("decoder_8b", config.model, rows, seq_len, mesh, optimizer or config.optimizer)


def t5_large_rows(rows: int, mesh: MeshConfig) -> RunConfig:
    """783M parameters (google/t5-v1_1-large): 512 tokens for the encoder, 114 for the decoder."""
    return _changed(t5_large(), rows, mesh, "none")


def bert_large_rows(rows: int, mesh: MeshConfig) -> RunConfig:
    """335M parameters (google-bert/bert-large-uncased), rows of 512."""
    return _changed(bert_large(), rows, mesh, "none")


def _changed(config: RunConfig, rows: int, mesh: MeshConfig, remat: Remat) -> RunConfig:
    training = replace(config.training, batch_size=rows, num_microbatches=1)
    model = replace(config.model, remat=remat)
    return replace(config, model=model, mesh=mesh, training=training)


def _llama_model(
    *, emb_dim: int, num_layers: int, num_heads: int, head_dim: int, mlp_dim: int, remat: Remat
) -> ModelConfig:
    return ModelConfig(
        vocab_size=32_000,
        emb_dim=emb_dim,
        num_layers=num_layers,
        attention=AttentionConfig(num_heads=num_heads, num_kv_heads=num_heads, head_dim=head_dim),
        position=RopeConfig(theta=10_000.0),
        mlp=SwiGLUConfig(mlp_dim=mlp_dim),
        tie_embeddings=False,
        init=NormalInitConfig(stddev=0.02),
        compute_dtype="bfloat16",
        remat=remat,
    )


def _run(
    name: str,
    model: ModelConfig,
    rows: int,
    seq_len: int,
    mesh: MeshConfig,
    optimizer: OptimizerConfig | None = None,
) -> RunConfig:
    schedule = CosineConfig(warmup_steps=10)
    return RunConfig(
        name=name,
        model=model,
        data=DataConfig(seq_len=seq_len),
        optimizer=replace(optimizer, schedule=schedule)
        if optimizer
        else AdamWConfig(learning_rate=3e-4, schedule=schedule),
        mesh=mesh,
        training=TrainingConfig(num_steps=1000, batch_size=rows, z_loss=0.0),
    )


_ONE, _EIGHT = MeshConfig(), MeshConfig(fsdp=8)

COMPILED_CASES = (
    CompiledCase(
        name="1b-2048-h200",
        config=lambda: decoder_1b(16, 2048, _ONE),
        topology="h200:1",
    ),
    CompiledCase(
        name="1b-8192-h200",
        config=lambda: decoder_1b(4, 8192, _ONE),
        topology="h200:1",
    ),
    CompiledCase(
        name="1b-8192-8xh200",
        config=lambda: decoder_1b(32, 8192, _EIGHT),
        topology="h200:8",
    ),
    CompiledCase(
        name="7b-2048-h200",
        config=lambda: decoder_7b(4, 2048, _ONE),
        topology="h200:1",
    ),
    CompiledCase(
        name="8b-2048-h200",
        config=lambda: decoder_8b(4, 2048, _ONE),
        topology="h200:1",
    ),
    CompiledCase(
        name="8b-adafactor-8192-h200",
        config=lambda: decoder_8b(1, 8192, _ONE, AdafactorConfig()),
        topology="h200:1",
    ),
    CompiledCase(
        name="8b-2048-8xh200",
        config=lambda: decoder_8b(64, 2048, _EIGHT),
        topology="h200:8",
    ),
    CompiledCase(
        name="8b-8192-8xh200",
        config=lambda: decoder_8b(16, 8192, _EIGHT),
        topology="h200:8",
    ),
    CompiledCase(name="t5-large-h200", config=lambda: t5_large_rows(64, _ONE), topology="h200:1"),
    CompiledCase(
        name="bert-large-h200", config=lambda: bert_large_rows(64, _ONE), topology="h200:1"
    ),
)

# In the order of what is worth knowing first, should the time not suffice for all.
TIMED_CASES = (
    TimedCase(name="1b-2048", family="llama", config=lambda: decoder_1b(16, 2048, _ONE, "dots")),
    TimedCase(name="7b-2048", family="llama", config=lambda: decoder_7b(4, 2048, _ONE)),
    TimedCase(name="0.4b-2048", family="llama", config=lambda: decoder_400m(16, 2048, _ONE)),
    TimedCase(name="bert-large", family="bert", config=lambda: bert_large_rows(64, _ONE)),
    TimedCase(name="t5-large", family="t5", config=lambda: t5_large_rows(64, _ONE)),
    TimedCase(name="1b-8192", family="llama", config=lambda: decoder_1b(4, 8192, _ONE, "dots")),
    TimedCase(name="7b-8192", family="llama", config=lambda: decoder_7b(1, 8192, _ONE)),
    TimedCase(name="0.4b-8192", family="llama", config=lambda: decoder_400m(4, 8192, _ONE)),
)


def smoke_llama() -> RunConfig:
    """A decoder that a CPU trains in a moment."""
    model = _llama_model(
        emb_dim=64, num_layers=2, num_heads=4, head_dim=16, mlp_dim=128, remat="none"
    )
    return _run("smoke_llama", replace(model, vocab_size=512), 2, 64, _ONE)


def smoke_bert() -> RunConfig:
    """An encoder that a CPU trains in a moment."""
    return _small(bert_large())


def smoke_t5() -> RunConfig:
    """An encoder-decoder that a CPU trains in a moment."""
    return _small(t5_large())


def _small(config: RunConfig) -> RunConfig:
    m = config.model
    model = replace(
        m,
        vocab_size=512,
        emb_dim=64,
        num_layers=2,
        num_encoder_layers=2 if m.num_encoder_layers else 0,
        attention=replace(m.attention, num_heads=4, num_kv_heads=4, head_dim=16),
        mlp=replace(m.mlp, mlp_dim=128),
    )
    small = replace(config, model=model, data=replace(config.data, seq_len=64))
    return _changed(small, 2, _ONE, "none")


SMOKE_CASES = (
    TimedCase(name="smoke-llama", family="llama", config=smoke_llama),
    TimedCase(name="smoke-bert", family="bert", config=smoke_bert),
    TimedCase(name="smoke-t5", family="t5", config=smoke_t5),
)


def peer_settings(case: TimedCase) -> dict[str, Any]:
    """What benchmarks/gpu_peer.py is told, in transformers' own names where it has some.

    `config` are the arguments of LlamaConfig, T5Config or BertConfig; rows, length (of the decoder
    where there are two sides) and encoder_length (0: none) the shape of a batch.
    """
    c = case.config()
    m = c.model
    settings = {
        "family": case.family,
        "rows": c.training.batch_size,
        "length": c.lengths.length,
        "encoder_length": c.lengths.encoder_length,
        "optimizer": c.optimizer.kind,
        "config": _PEER_CONFIGS[case.family](m, max(c.lengths.length, c.lengths.encoder_length)),
    }
    return settings


def _peer_llama(m: ModelConfig, length: int) -> dict[str, Any]:
    assert isinstance(m.position, RopeConfig) and isinstance(m.mlp, SwiGLUConfig)
    return {
        "vocab_size": m.vocab_size,
        "hidden_size": m.emb_dim,
        "intermediate_size": m.mlp.mlp_dim,
        "num_hidden_layers": m.num_layers,
        "num_attention_heads": m.attention.num_heads,
        "num_key_value_heads": m.attention.num_kv_heads,
        "head_dim": m.attention.head_dim,
        "max_position_embeddings": length,
        "tie_word_embeddings": m.tie_embeddings,
    }


def _peer_t5(m: ModelConfig, length: int) -> dict[str, Any]:
    return {
        "vocab_size": m.vocab_size,
        "d_model": m.emb_dim,
        "d_kv": m.attention.head_dim,
        "d_ff": m.mlp.mlp_dim,  # type: ignore[union-attr]
        "num_layers": m.num_encoder_layers,
        "num_decoder_layers": m.num_layers,
        "num_heads": m.attention.num_heads,
        "dropout_rate": 0.0,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": m.tie_embeddings,
    }


def _peer_bert(m: ModelConfig, length: int) -> dict[str, Any]:
    return {
        "vocab_size": m.vocab_size,
        "hidden_size": m.emb_dim,
        "num_hidden_layers": m.num_layers,
        "num_attention_heads": m.attention.num_heads,
        "intermediate_size": m.mlp.mlp_dim,  # type: ignore[union-attr]
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 512,
    }


_PEER_CONFIGS = {"llama": _peer_llama, "t5": _peer_t5, "bert": _peer_bert}
