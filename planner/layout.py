"""Mesh, microbatches and rematerialisation that fit in memory."""

from dataclasses import replace

from configs.errors import InputError
from configs.schema import MeshConfig, RunConfig
from planner.accounting import training_bytes
from planner.hardware import Hardware
from planner.hyperparameters import Rule

_USABLE = 0.9  # of a device's memory; the rest is fragmentation and what our count leaves out
_STATE_SHARE = 0.4  # parameters and optimizer may take so much before they are cut


def fit_in_memory(config: RunConfig, hardware: Hardware) -> tuple[RunConfig, list[Rule]]:
    """The config with a mesh, microbatches and remat policy under which a step fits.

    Replicates parameters while their state takes less than 40% of a device; above, cuts them along
    `fsdp` over as few devices as brings them there (rows go to all); then rematerialises, then
    halves the microbatch until it fits.

    Raises:
      InputError: one row a device does not fit either.
    """
    devices, usable = hardware.num_devices, _USABLE * hardware.memory_bytes
    config, mesh_rule = _with_mesh(config, hardware)
    rules = [Rule(field="mesh", value=_axes(config.mesh), rule=mesh_rule)]
    if training_bytes(config).total > usable:
        config = replace(config, model=replace(config.model, remat="full"))
        rules.append(Rule(field="model.remat", value="full", rule="activations do not fit"))
    while training_bytes(config).total > usable:
        training = config.training
        parts = 2 * training.num_microbatches
        if (training.batch_size // devices) % parts:
            needed = training_bytes(config).total
            raise InputError(
                f"budget: got a model that needs {needed / 1e9:.1f} GB a device, expected at most "
                f"{usable / 1e9:.1f} GB; use more devices or a smaller model"
            )
        config = replace(config, training=replace(training, num_microbatches=parts))
    rules.append(
        Rule(
            field="training.num_microbatches",
            value=config.training.num_microbatches,
            rule=f"a step needs {training_bytes(config).total / 1e9:.2f} GB a device",
        )
    )
    return config, rules


def _with_mesh(config: RunConfig, hardware: Hardware) -> tuple[RunConfig, str]:
    """The config with the smallest `fsdp` axis that leaves room, or else the largest possible."""
    devices, best = hardware.num_devices, None
    for fsdp in range(1, devices + 1):
        if devices % fsdp:
            continue
        cut = replace(config, mesh=MeshConfig(data=devices // fsdp, fsdp=fsdp))
        try:
            held = training_bytes(cut)
        except InputError:  # some width is no multiple of it
            continue
        best = cut
        if held.params + held.optimizer <= _STATE_SHARE * hardware.memory_bytes:
            break
    assert best is not None  # 1 divides everything
    if best.mesh.axis_sizes["fsdp"] == 1:
        return best, "parameters and optimizer fit on each device: replicated"
    return best, "the fewest devices over which parameters and optimizer are cut to leave room"


def _axes(mesh: MeshConfig) -> str:
    cut = [f"{name}={size}" for name, size in mesh.axis_sizes.items() if size > 1]
    return " ".join(cut) or "one device"
