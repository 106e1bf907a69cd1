"""What does not fit is first cut, then recomputed, then split, in that order."""

from dataclasses import replace

import pytest

from configs.data_config import DataConfig
from configs.errors import InputError
from configs.model_config import AttentionConfig, ModelConfig
from configs.schema import RunConfig, TrainingConfig
from planner.accounting import training_bytes
from planner.hardware import Hardware
from planner.layout import fit_in_memory

RUN = RunConfig(
    model=ModelConfig(
        emb_dim=256, num_layers=8, attention=AttentionConfig(num_heads=4, head_dim=64)
    ),
    data=DataConfig(seq_len=512),
    training=TrainingConfig(batch_size=64),
)


def hardware(memory_bytes: float, num_devices: int = 8) -> Hardware:
    return Hardware(
        device="test",
        num_devices=num_devices,
        flops_per_second=1e12,
        peak_flops_per_second=2e12,
        memory_bytes=memory_bytes,
        source="test",
        is_accelerator=True,
    )


def fitted(memory_bytes: float, num_devices: int = 8):
    config, rules = fit_in_memory(RUN, hardware(memory_bytes, num_devices))
    assert training_bytes(config).total <= 0.9 * memory_bytes
    assert config.mesh.num_devices == num_devices
    named = {rule.field: rule.value for rule in rules}
    assert named["training.num_microbatches"] == config.training.num_microbatches
    assert ("model.remat" in named) == (config.model.remat == "full")
    return config


def test_less_memory_is_met_step_by_step():
    plenty, whole = fitted(100e9), training_bytes(replace(RUN, mesh=fitted(100e9).mesh))
    assert plenty.mesh.axis_sizes == {"data": 8, "fsdp": 1, "expert": 1, "tensor": 1}
    assert (plenty.model.remat, plenty.training.num_microbatches) == ("none", 1)

    recomputed = fitted(0.9 * whole.total)
    assert recomputed.mesh == plenty.mesh
    assert (recomputed.model.remat, recomputed.training.num_microbatches) == ("full", 1)

    held = whole.params + whole.optimizer
    cut = fitted(2.4 * held)
    assert cut.mesh.axis_sizes == {"data": 4, "fsdp": 2, "expert": 1, "tensor": 1}

    split = fitted(0.75 * held)
    assert (split.model.remat, split.mesh.fsdp) == ("full", 8)
    assert split.training.num_microbatches > cut.training.num_microbatches


def test_one_device_is_never_cut():
    whole = training_bytes(RUN)
    config = fitted(3.0 * (whole.params + whole.optimizer), num_devices=1)
    assert config.mesh.num_devices == 1
    assert config.model.remat == "full"
    assert config.training.num_microbatches > 1


def test_a_model_that_does_not_fit_row_by_row_is_refused_with_both_sizes():
    message = r"^budget: got a model that needs 0\.0[\d]+ GB a device, expected at most 0.018 GB"
    with pytest.raises(InputError, match=message):
        fit_in_memory(RUN, hardware(20e6))


def test_less_memory_never_means_more_held():
    held = training_bytes(RUN)
    totals = [
        training_bytes(fitted(share * held.total)).total for share in (2.0, 1.0, 0.5, 0.25, 0.1)
    ]
    assert totals == sorted(totals, reverse=True)
