"""What a run is: frozen, keyword-only dataclasses, one per concern, checked when built.

A `RunConfig` says everything that decides a run's numbers: model, objective, data, optimizer,
mesh and training. Each module receives just its own sub-config. Variants (position encoding,
norm, MLP, optimizer, schedule, objective, packing) are dataclasses that carry a `kind`; a new
variant is a new dataclass added to the union and to the table of the room that resolves it.

Pure data: nothing here imports JAX. Lengths are in tokens, batches in rows (sequences).
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from configs.data_config import DataConfig
from configs.errors import require, require_at_least_zero, require_positive
from configs.sharding import DEFAULT_RULES, ShardingRules

DType = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864), rotating half against half."""

    kind: Literal["rope"] = "rope"
    theta: float = 10_000.0

    def __post_init__(self):
        require_positive("model.position", theta=self.theta)


@dataclass(frozen=True, kw_only=True)
class RMSNormConfig:
    """Root-mean-square norm (Zhang and Sennrich 2019, arXiv 1910.07467), statistics in fp32."""

    kind: Literal["rms_norm"] = "rms_norm"
    epsilon: float = 1e-5

    def __post_init__(self):
        require_positive("model.norm", epsilon=self.epsilon)


@dataclass(frozen=True, kw_only=True)
class SwiGLUConfig:
    """Gated MLP, down(silu(gate x) * up x) (Shazeer 2020, arXiv 2002.05202), without biases."""

    kind: Literal["swiglu"] = "swiglu"
    mlp_dim: int = 512

    def __post_init__(self):
        require_positive("model.mlp", mlp_dim=self.mlp_dim)


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245).

    `num_kv_heads` equal to `num_heads` is multi-head attention, 1 is multi-query attention.
    `causal_blocks` cuts a causal row's queries into that many blocks, each of which reads only
    the keys up to its own end: 2 skips a quarter of the work, 4 three eighths. It changes speed,
    not results.
    """

    num_heads: int = 4
    num_kv_heads: int = 4
    head_dim: int = 32
    causal_blocks: int = 1

    def __post_init__(self):
        require_positive(
            "model.attention",
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            causal_blocks=self.causal_blocks,
        )
        require(
            self.num_heads % self.num_kv_heads == 0,
            "model.attention.num_kv_heads",
            self.num_kv_heads,
            f"a divisor of num_heads ({self.num_heads})",
        )
        require(
            self.head_dim % 2 == 0,
            "model.attention.head_dim",
            self.head_dim,
            "an even number (rotary embedding turns pairs)",
        )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A transformer. Parameters are fp32; `compute_dtype` is what activations and matmuls use.

    `scan_layers` compiles one layer and loops over it (fast to compile); False unrolls the same
    loop (faster to run on CPU). Parameters have the same layout either way: every leaf of a layer
    carries a leading `num_layers` axis, so checkpoints fit both.
    """

    architecture: Literal["decoder_only"] = "decoder_only"
    vocab_size: int = 2048
    emb_dim: int = 128
    num_layers: int = 4
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    position: RopeConfig = field(default_factory=RopeConfig)
    norm: RMSNormConfig = field(default_factory=RMSNormConfig)
    mlp: SwiGLUConfig = field(default_factory=SwiGLUConfig)
    tie_embeddings: bool = True
    compute_dtype: DType = "float32"
    scan_layers: bool = True
    remat: Literal["none", "full"] = "none"

    def __post_init__(self):
        require_positive(
            "model",
            vocab_size=self.vocab_size,
            emb_dim=self.emb_dim,
            num_layers=self.num_layers,
        )


@dataclass(frozen=True, kw_only=True)
class CausalLMConfig:
    """Predict every token from those before it in its own document."""

    kind: Literal["causal_lm"] = "causal_lm"


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """Linear warm-up, then half a cosine down to `final_fraction` of the peak at the last step."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: int = 100
    final_fraction: float = 0.1

    def __post_init__(self):
        require_at_least_zero("optimizer.schedule", warmup_steps=self.warmup_steps)
        require(
            0 <= self.final_fraction <= 1,
            "optimizer.schedule.final_fraction",
            self.final_fraction,
            "a fraction from 0 to 1",
        )


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecayConfig:
    """Linear warm-up, constant, linear decay over the last `decay_fraction` of all steps.

    MiniCPM (arXiv 2404.06395) decays over about a tenth of the run.
    """

    kind: Literal["warmup_stable_decay"] = "warmup_stable_decay"
    warmup_steps: int = 100
    decay_fraction: float = 0.2
    final_fraction: float = 0.0

    def __post_init__(self):
        require_at_least_zero("optimizer.schedule", warmup_steps=self.warmup_steps)
        for name in ("decay_fraction", "final_fraction"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"optimizer.schedule.{name}", value, "a fraction from 0 to 1")


ScheduleConfig = CosineConfig | WarmupStableDecayConfig


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) after clipping to a global norm.

    Weight decay is scaled by the learning rate and spares norm scales. `clip_norm` 0 clips
    nothing.
    """

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = 3e-3
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    schedule: ScheduleConfig = field(default_factory=CosineConfig)

    def __post_init__(self):
        require_positive("optimizer", learning_rate=self.learning_rate, epsilon=self.epsilon)
        require_at_least_zero("optimizer", weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        for name in ("b1", "b2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", value, "a number from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class MuonConfig:
    """Muon for the layers' matrices, AdamW for the rest (Jordan et al. 2024; arXiv 2502.16982).

    Muon steps along the orthogonalised momentum, scaled by sqrt(max(1, outputs / inputs)), so one
    `learning_rate` serves matrices of every shape and size. Embedding table, head and norm scales
    take `adam_learning_rate` with b1, b2 and epsilon, and no weight decay. `weight_decay` is
    scaled by the learning rate. `clip_norm` 0 clips nothing.
    """

    kind: Literal["muon"] = "muon"
    learning_rate: float = 0.02
    momentum: float = 0.95
    adam_learning_rate: float = 1e-2
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    schedule: ScheduleConfig = field(default_factory=CosineConfig)

    def __post_init__(self):
        require_positive(
            "optimizer",
            learning_rate=self.learning_rate,
            adam_learning_rate=self.adam_learning_rate,
            epsilon=self.epsilon,
        )
        require_at_least_zero("optimizer", weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        for name in ("b1", "b2", "momentum"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name}", value, "a number from 0 to below 1")


OptimizerConfig = AdamWConfig | MuonConfig


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each mesh axis; their product must equal the number of devices.

    data: replicas of the parameters, each with its own rows. fsdp: rows too, with parameters and
    optimizer state cut along the axis and gathered as each layer needs them. tensor: heads, MLP
    and vocabulary cut along the axis. `rules` maps each logical axis to mesh axes.
    """

    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    rules: ShardingRules = DEFAULT_RULES

    def __post_init__(self):
        require_positive("mesh", data=self.data, fsdp=self.fsdp, tensor=self.tensor)

    @property
    def axis_sizes(self) -> dict[str, int]:
        """Mesh axis name -> number of devices along it, in mesh order."""
        return {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}

    @property
    def num_devices(self) -> int:
        return math.prod(self.axis_sizes.values())


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how much at a time, and what is written when (all intervals in steps).

    `batch_size` is rows per optimizer step over all devices; `num_microbatches` cuts it into
    equal parts whose gradients are accumulated. `batch_warmup` lists smaller batch sizes to begin
    with, `batch_warmup_steps` for how many steps each (BloombergGPT, arXiv 2303.17564, doubles
    once). `eval_every` and `checkpoint_every` 0: only after the last step. `eval_tokens` caps the
    held-out tokens scored during training (0: all); the evaluation after the last step always
    scores all. `keep_checkpoints`: the newest k, and with `keep_every` above 0 also each
    checkpoint whose step is a multiple of it.
    """

    num_steps: int = 1000
    batch_size: int = 16
    num_microbatches: int = 1
    batch_warmup: tuple[int, ...] = ()
    batch_warmup_steps: tuple[int, ...] = ()
    z_loss: float = 1e-4
    seed: int = 0
    log_every: int = 10
    eval_every: int = 0
    eval_tokens: int = 65_536
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    keep_every: int = 0

    def __post_init__(self):
        require_positive(
            "training",
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            num_microbatches=self.num_microbatches,
            log_every=self.log_every,
            keep_checkpoints=self.keep_checkpoints,
        )
        require_at_least_zero(
            "training",
            z_loss=self.z_loss,
            eval_every=self.eval_every,
            eval_tokens=self.eval_tokens,
            checkpoint_every=self.checkpoint_every,
            keep_every=self.keep_every,
        )
        require(
            0 <= self.seed < 2**32, "training.seed", self.seed, "a whole number from 0 to 2**32 - 1"
        )
        require(
            self.batch_size % self.num_microbatches == 0,
            "training.num_microbatches",
            self.num_microbatches,
            f"a divisor of batch_size ({self.batch_size})",
        )
        for size in self.batch_warmup:
            require(
                size > 0 and size % self.microbatches_of(size) == 0,
                "training.batch_warmup",
                size,
                f"a number of rows that {self.microbatches_of(size)} microbatches divide",
            )
        require(
            len(self.batch_warmup_steps) == len(self.batch_warmup)
            and all(steps > 0 for steps in self.batch_warmup_steps)
            and sum(self.batch_warmup_steps) < self.num_steps,
            "training.batch_warmup_steps",
            self.batch_warmup_steps,
            f"a number of steps for each of {len(self.batch_warmup)} batch sizes, fewer than "
            f"num_steps ({self.num_steps}) together",
        )

    def microbatches_of(self, batch_size: int) -> int:
        """Into how many microbatches a batch is cut: none has more rows than in a full batch."""
        return -(-batch_size // (self.batch_size // self.num_microbatches))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Every batch size of the run, each once."""
        return tuple(dict.fromkeys((*self.batch_warmup, self.batch_size)))

    def batch_size_at(self, step: int) -> int:
        """Rows of the batch that takes `step` steps done to `step` + 1."""
        for size, steps in zip(self.batch_warmup, self.batch_warmup_steps, strict=True):
            if step < steps:
                return size
            step -= steps
        return self.batch_size

    def rows_before(self, step: int) -> int:
        """Rows read by the first `step` steps."""
        rows = 0
        for size, steps in zip(self.batch_warmup, self.batch_warmup_steps, strict=True):
            rows += size * min(step, steps)
            step -= min(step, steps)
        return rows + step * self.batch_size


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's numbers, cross-checked."""

    name: str = "run"
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: CausalLMConfig = field(default_factory=CausalLMConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=AdamWConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self):
        for length in self.data.row_lengths:
            require(
                length % self.model.attention.causal_blocks == 0,
                "model.attention.causal_blocks",
                self.model.attention.causal_blocks,
                f"a divisor of data.seq_len and of every row length ({length})",
            )
        row_shards = self.mesh.rules.shards("batch", self.mesh.axis_sizes)
        for name, size in (
            *(("training.batch_warmup", size) for size in self.training.batch_warmup),
            ("training.batch_size", self.training.batch_size),
        ):
            num_microbatches = self.training.microbatches_of(size)
            require(
                size // num_microbatches % row_shards == 0,
                name,
                size,
                f"a multiple of num_microbatches × the mesh axes that cut the batch "
                f"({num_microbatches} × {row_shards})",
            )
        for name, size, logical in (
            ("model.attention.num_heads", self.model.attention.num_heads, "heads"),
            ("model.attention.num_kv_heads", self.model.attention.num_kv_heads, "kv_heads"),
            ("model.mlp.mlp_dim", self.model.mlp.mlp_dim, "mlp"),
            ("model.vocab_size", self.model.vocab_size, "vocab"),
            ("model.emb_dim", self.model.emb_dim, "embed"),
        ):
            shards = self.mesh.rules.shards(logical, self.mesh.axis_sizes)
            require(
                size % shards == 0,
                name,
                size,
                f"a multiple of the mesh axes that cut it ({shards})",
            )
        warmup_steps = self.optimizer.schedule.warmup_steps
        require(
            warmup_steps < self.training.num_steps,
            "optimizer.schedule.warmup_steps",
            warmup_steps,
            f"fewer than training.num_steps ({self.training.num_steps})",
        )

    @property
    def batch_tokens(self) -> int:
        """Places for tokens in one optimizer step of the full batch size and row length."""
        return self.training.batch_size * self.data.seq_len

    @property
    def total_places(self) -> int:
        """Places for tokens in all steps, batch warm-up counted, at the full row length."""
        return self.training.rows_before(self.training.num_steps) * self.data.seq_len
