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
    halves the microbatch, then cuts further, until it fits.

    Raises:
      InputError: one row a device does not fit either.
    """
    usable = _USABLE * hardware.memory_bytes
    for cut in _cuts(config, hardware):
        config, rules = _recomputed_and_split(cut, usable)
        needed = training_bytes(config).total
        if needed <= usable:
            break
    else:
        raise InputError(
            f"budget: got a model that needs {needed / 1e9:.3g} GB a device, expected at most "
            f"{usable / 1e9:.3g} GB; use more devices or a smaller model"
        )
    mesh_rule = "the fewest devices over which parameters and optimizer are cut to leave room"
    if config.mesh.axis_sizes["fsdp"] == 1:
        mesh_rule = "parameters and optimizer fit on each device: replicated"
    rules = [
        Rule(field="mesh", value=_axes(config.mesh), rule=mesh_rule),
        *rules,
        Rule(
            field="training.num_microbatches",
            value=config.training.num_microbatches,
            rule=f"a step needs {needed / 1e9:.3g} GB a device",
        ),
    ]
    return config, rules


def _cuts(config: RunConfig, hardware: Hardware) -> list[RunConfig]:
    """The config with parameters cut over more and more devices, from where they leave room on;
    if they never do, over as many as divide its widths."""
    devices, cuts, roomy = hardware.num_devices, [], []
    for fsdp in range(1, devices + 1):
        if devices % fsdp:
            continue
        try:
            cut = replace(config, mesh=MeshConfig(data=devices // fsdp, fsdp=fsdp))
            held = training_bytes(cut)
        except InputError:  # some width is no multiple of it
            continue
        cuts.append(cut)
        if held.params + held.optimizer <= _STATE_SHARE * hardware.memory_bytes:
            roomy.append(cut)
    return roomy or cuts[-1:]


def _recomputed_and_split(config: RunConfig, usable: float) -> tuple[RunConfig, list[Rule]]:
    """The config with remat and microbatches towards `usable` bytes, as far as they go."""
    rules = []
    if training_bytes(config).total > usable:
        config = replace(config, model=replace(config.model, remat="full"))
        rules.append(Rule(field="model.remat", value="full", rule="activations do not fit"))
    rows = config.training.batch_size // config.mesh.num_devices
    while training_bytes(config).total > usable:
        parts = 2 * config.training.num_microbatches
        if rows % parts:
            break
        config = replace(config, training=replace(config.training, num_microbatches=parts))
    return config, rules


def _axes(mesh: MeshConfig) -> str:
    cut = [f"{name}={size}" for name, size in mesh.axis_sizes.items() if size > 1]
    return " ".join(cut) or "one device"
