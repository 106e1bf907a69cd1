"""Cross-field checks of the configuration: each bad combination is one line naming the field."""

import dataclasses

import pytest

from configs.data_config import DataConfig
from configs.errors import InputError
from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig, RMSNormConfig
from configs.optimizer_config import AdamWConfig, CosineConfig, WarmupStableDecayConfig
from configs.position_config import RopeConfig
from configs.schema import GuardConfig, MeshConfig, RunConfig, TrainingConfig
from configs.sharding import ShardingRules

BAD = {
    "heads that do not divide": (
        lambda: AttentionConfig(num_heads=4, num_kv_heads=3),
        "model.attention.num_kv_heads: got 3, expected a divisor of num_heads (4)",
    ),
    "odd head_dim under rope": (
        lambda: ModelConfig(attention=AttentionConfig(head_dim=7)),
        "model.attention.head_dim: got 7, expected an even number",
    ),
    "no heads": (lambda: AttentionConfig(num_heads=0), "model.attention.num_heads: got 0"),
    "no layers": (lambda: ModelConfig(num_layers=0), "model.num_layers: got 0"),
    "negative theta": (lambda: RopeConfig(theta=-1.0), "model.position.theta: got -1.0"),
    "epsilon 0": (lambda: RMSNormConfig(epsilon=0.0), "model.norm.epsilon: got 0.0"),
    "no mlp": (lambda: SwiGLUConfig(mlp_dim=0), "model.mlp.mlp_dim: got 0"),
    "seq_len 1": (lambda: DataConfig(seq_len=1), "data.seq_len: got 1"),
    "seed too large": (lambda: DataConfig(seed=2**32), "data.seed: got 4294967296"),
    "negative seed": (lambda: TrainingConfig(seed=-1), "training.seed: got -1"),
    "learning rate NaN": (
        lambda: AdamWConfig(learning_rate=float("nan")),
        "optimizer.learning_rate: got nan",
    ),
    "b2 of 1": (lambda: AdamWConfig(b2=1.0), "optimizer.b2: got 1.0"),
    "negative decay": (
        lambda: AdamWConfig(weight_decay=-0.1),
        "optimizer.weight_decay: got -0.1",
    ),
    "final fraction above 1": (
        lambda: CosineConfig(final_fraction=1.5),
        "optimizer.schedule.final_fraction: got 1.5",
    ),
    "decay fraction above 1": (
        lambda: WarmupStableDecayConfig(decay_fraction=2.0),
        "optimizer.schedule.decay_fraction: got 2.0",
    ),
    "microbatches that do not divide": (
        lambda: TrainingConfig(batch_size=16, num_microbatches=3),
        "training.num_microbatches: got 3, expected a divisor of batch_size (16)",
    ),
    "a batch that does not divide over the mesh": (
        lambda: RunConfig(mesh=MeshConfig(data=8), training=TrainingConfig(batch_size=12)),
        "training.batch_size: got 12, expected a multiple of",
    ),
    "a microbatch that does not divide over the mesh": (
        lambda: RunConfig(
            mesh=MeshConfig(data=4, fsdp=2),
            training=TrainingConfig(batch_size=16, num_microbatches=4),
        ),
        "training.batch_size: got 16, expected a multiple of",
    ),
    "heads that do not divide over the mesh": (
        lambda: RunConfig(
            model=ModelConfig(attention=AttentionConfig(num_heads=6, num_kv_heads=6)),
            mesh=MeshConfig(tensor=4),
        ),
        "model.attention.num_heads: got 6, expected a multiple of",
    ),
    "kv heads that do not divide over the mesh": (
        lambda: RunConfig(
            model=ModelConfig(attention=AttentionConfig(num_heads=4, num_kv_heads=2)),
            mesh=MeshConfig(tensor=4),
        ),
        "model.attention.num_kv_heads: got 2, expected a multiple of",
    ),
    "width that does not divide over the mesh": (
        lambda: RunConfig(model=ModelConfig(emb_dim=129), mesh=MeshConfig(fsdp=2)),
        "model.emb_dim: got 129, expected a multiple of",
    ),
    "vocabulary that does not divide over the mesh": (
        lambda: RunConfig(model=ModelConfig(vocab_size=2049), mesh=MeshConfig(tensor=4)),
        "model.vocab_size: got 2049, expected a multiple of",
    ),
    "a rule that names no mesh axis": (
        lambda: RunConfig(mesh=MeshConfig(rules=ShardingRules(batch=("stage",)))),
        "mesh.rules: got mesh axis 'stage'",
    ),
    "warm-up as long as the run": (
        lambda: RunConfig(training=TrainingConfig(num_steps=100)),
        "optimizer.schedule.warmup_steps: got 100, expected fewer than training.num_steps (100)",
    ),
    "best checkpoints without evaluations": (
        lambda: TrainingConfig(keep_best=2),
        "training.keep_best: got 2, expected 0 where eval_every is 0",
    ),
    "fewer than none of the best": (
        lambda: TrainingConfig(keep_best=-1),
        "training.keep_best: got -1",
    ),
    "no update that may be refused": (
        lambda: GuardConfig(nonfinite_limit=0),
        "guard.nonfinite_limit: got 0, expected a number above 0",
    ),
    "spikes below the mean": (
        lambda: GuardConfig(spike_sigma=-6.0),
        "guard.spike_sigma: got -6.0, expected 0 or more",
    ),
    "spikes of NaN deviations": (
        lambda: GuardConfig(spike_sigma=float("nan")),
        "guard.spike_sigma: got nan",
    ),
    "a window too short to say what is usual": (
        lambda: GuardConfig(spike_sigma=6.0, spike_window=7),
        "guard.spike_window: got 7, expected 8 steps or more",
    ),
    "rewinding without looking for spikes": (
        lambda: GuardConfig(spike_action="rewind"),
        "guard.spike_action: got 'rewind', expected skip where spike_sigma is 0",
    ),
    "fewer rewinds than none": (
        lambda: GuardConfig(max_rewinds=-1),
        "guard.max_rewinds: got -1",
    ),
    "checks in the past": (lambda: GuardConfig(check_every=-5), "guard.check_every: got -5"),
    "no devices": (lambda: MeshConfig(data=0), "mesh.data: got 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_combination_is_one_line_naming_the_field(case):
    build, message = BAD[case]
    with pytest.raises(InputError) as caught:
        build()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_configs_are_frozen_and_hashable():
    config = RunConfig()
    assert hash(config) == hash(RunConfig())
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.name = "other"  # type: ignore[misc]


def test_batch_tokens_counts_every_row():
    config = RunConfig(data=DataConfig(seq_len=64), training=TrainingConfig(batch_size=8))
    assert config.batch_tokens == 512


def test_the_mesh_counts_its_devices():
    assert MeshConfig(data=2, fsdp=2, tensor=2).num_devices == 8
