"""What a run is: frozen, keyword-only dataclasses, one per concern, checked when built.

A `RunConfig` says everything that decides a run's numbers: model, objective, data, optimizer,
mesh, training and guard. Each module receives just its own sub-config. Variants (position encoding,
norm, MLP, optimizer, schedule, objective, packing) are dataclasses that carry a `kind`; a new
variant is a new dataclass added to the union and to the table of the room that resolves it.

Pure data: nothing here imports JAX. Lengths are in tokens, batches in rows (sequences).
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from configs.data_config import DataConfig
from configs.errors import require, require_at_least_zero, require_positive
from configs.mlp_config import MoEConfig
from configs.model_config import ModelConfig
from configs.objective_config import CausalLMConfig, ExampleLengths, ObjectiveConfig
from configs.optimizer_config import AdamWConfig, OptimizerConfig
from configs.position_config import LearnedPositionConfig
from configs.sharding import DEFAULT_RULES, MESH_AXES, ShardingRules


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each mesh axis; their product must equal the number of devices.

    replica: replicas of the parameters, each with its own rows, on slices or hosts that only the
    data-centre network joins. data: replicas within one. fsdp: rows too, with parameters and
    optimizer state cut along the axis and gathered as each layer needs them. expert: rows too,
    with the experts of a mixture cut along the axis. sequence: each row cut along its length,
    keys and values gathered for attention (context parallelism); parameters cut too. tensor:
    heads, MLP and vocabulary cut along the axis. `rules` maps each logical axis to mesh axes.
    """

    replica: int = 1
    data: int = 1
    fsdp: int = 1
    expert: int = 1
    sequence: int = 1
    tensor: int = 1
    rules: ShardingRules = DEFAULT_RULES

    def __post_init__(self):
        require_positive("mesh", **self.axis_sizes)

    @property
    def axis_sizes(self) -> dict[str, int]:
        """Mesh axis name -> number of devices along it, in mesh order."""
        return {axis: getattr(self, axis) for axis in MESH_AXES}

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
    scores all. `keep_checkpoints`: the newest k; with `keep_every` above 0 also each checkpoint
    whose step is a multiple of it; with `keep_best` above 0 also so many with the best held-out
    loss.
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
    keep_best: int = 0

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
            keep_best=self.keep_best,
        )
        require(
            self.keep_best == 0 or self.eval_every > 0,
            "training.keep_best",
            self.keep_best,
            "0 where eval_every is 0: only the last step is evaluated",
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
class GuardConfig:
    """What a run does when its numbers go wrong (windows and intervals in steps).

    A step whose loss or gradient is not finite never changes the parameters. With `spike_sigma`
    above 0 neither does a spike: a loss so many standard deviations above the mean of the last
    `spike_window` accepted losses. After either the run goes on with the next batch; at the
    `nonfinite_limit`-th refused update in a row it stops. `spike_action` "rewind": at a spike it
    goes back to an earlier checkpoint and passes over the batches that led there, `max_rewinds`
    times at most. `check_every`: steps between checks for silent corruption (that replicas hold
    equal bits, and that a step computed twice gives the same bits); 0: never.
    """

    nonfinite_limit: int = 10
    spike_sigma: float = 0.0
    spike_window: int = 128
    spike_action: Literal["skip", "rewind"] = "skip"
    max_rewinds: int = 3
    check_every: int = 0

    def __post_init__(self):
        require_positive("guard", nonfinite_limit=self.nonfinite_limit)
        require_at_least_zero(
            "guard",
            spike_sigma=self.spike_sigma,
            max_rewinds=self.max_rewinds,
            check_every=self.check_every,
        )
        require(self.spike_window >= 8, "guard.spike_window", self.spike_window, "8 steps or more")
        require(
            self.spike_action == "skip" or self.spike_sigma > 0,
            "guard.spike_action",
            self.spike_action,
            "skip where spike_sigma is 0: no spike is looked for",
        )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's numbers, cross-checked."""

    name: str = "run"
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=CausalLMConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=AdamWConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)

    def __post_init__(self):
        require(
            self.model.architecture in self.objective.architectures,
            "objective.kind",
            self.objective.kind,
            f"an objective for architecture {self.model.architecture} (this one is for "
            f"{' or '.join(self.objective.architectures)})",
        )
        classes = ("sequence_classification", "token_classification")
        if self.model.head.kind in classes or self.objective.kind in classes:
            require(
                self.model.head.kind == self.objective.kind,
                "model.head.kind",
                self.model.head.kind,
                f"the head of objective {self.objective.kind}",
            )
        for seq_len in self.data.row_lengths:
            lengths = self.objective.lengths(seq_len)
            if isinstance(self.model.position, LearnedPositionConfig):
                longest = max(lengths.length, lengths.encoder_length)
                room = self.model.position.num_positions - self.model.position.offset
                require(
                    longest <= room,
                    "model.position.num_positions",
                    self.model.position.num_positions,
                    f"{longest + self.model.position.offset} or more for rows of {longest} tokens",
                )
            for logical in ("length", "residual_length"):
                shards = self.mesh.rules.shards(logical, self.mesh.axis_sizes)
                for length in (lengths.length, lengths.encoder_length):
                    require(
                        length % shards == 0,
                        "data.seq_len",
                        seq_len,
                        f"a length that makes sequences (here of {length} tokens) a multiple of "
                        f"the mesh axes that cut {logical} ({shards})",
                    )
            if self.model.architecture == "decoder_only":
                require(
                    seq_len % self.model.attention.causal_blocks == 0,
                    "model.attention.causal_blocks",
                    self.model.attention.causal_blocks,
                    f"a divisor of data.seq_len and of every row length ({seq_len})",
                )
        if self.mesh.rules.shards("length", self.mesh.axis_sizes) > 1:
            require(
                self.model.attention.causal_blocks == 1,
                "model.attention.causal_blocks",
                self.model.attention.causal_blocks,
                "1 where the mesh cuts rows along their length",
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
            *(
                (("model.mlp.num_experts", self.model.mlp.num_experts, "experts"),)
                if isinstance(self.model.mlp, MoEConfig)
                else ()
            ),
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
    def lengths(self) -> ExampleLengths:
        """Lengths of an example of full row length."""
        return self.objective.lengths(self.data.seq_len)

    @property
    def batch_tokens(self) -> int:
        """Places for tokens in one optimizer step of the full batch size and row length, those of
        encoder and decoder together."""
        return self.training.batch_size * self.lengths.places

    @property
    def total_places(self) -> int:
        """Places for tokens in all steps, batch warm-up counted, at the full row length."""
        return self.training.rows_before(self.training.num_steps) * self.lengths.places
