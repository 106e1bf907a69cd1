"""Mesh, microbatches and rematerialisation that fit in memory and keep the chips multiplying.

Every candidate is judged by arithmetic: its bytes by `planner.memory`, its least time by FLOPs at
peak and by what its collectives take over the links (`planner.traffic`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from configs.errors import InputError
from configs.mlp_config import MoEConfig
from configs.model_config import Remat
from configs.schema import MeshConfig, RunConfig
from planner.hardware import Hardware
from planner.hyperparameters import Rule
from planner.layout_rules import layout_rules, mesh_text
from planner.on_hardware import executed_flops, needed_bytes
from planner.rows import Rows, axis_limits
from planner.topology import Topology
from planner.traffic import StepSeconds, step_seconds

USABLE = 0.9  # of a device's memory; the rest is fragmentation and what our count leaves out
_STATE_SHARE = 0.4  # parameters and optimizer may take so much before they are cut
_AS_FAST = 1.01  # times this close are the same: the arithmetic is no finer
_GAIN = 1.1  # what sharing rows by more devices has to bring; less may be the arithmetic's error
_Pattern = tuple[Literal["remat", "keep"], ...]
_STRONGEST: tuple[Remat, _Pattern] = ("full", ("remat",))
_POLICIES: tuple[tuple[Remat, _Pattern], ...] = (
    ("none", ("remat",)),
    ("attention", ("remat",)),
    ("dots", ("remat",)),
    _STRONGEST,
    ("full", ("remat", "keep")),
    ("full", ("remat", "remat", "remat", "keep")),
)
_GROWTH = 64  # times as many devices a row, at most, as the rows ask for


def fit_in_memory(
    config: RunConfig,
    hardware: Hardware,
    *,
    topology: Topology | None = None,
    rows: Rows | None = None,
) -> tuple[RunConfig, list[Rule]]:
    """The config with a mesh, microbatches and remat policy under which a step fits.

    On chips whose links are known: of all meshes that fit, the one whose step takes least:
    products at peak, or the parameters' collectives along some axes if those take longer, and the
    activations' collectives, which nothing hides. Among times within 1%, one with parameters whole
    on each device if their state leaves room there, then the one that sends least. Sequence and
    tensor axes come in only as far as rows ask for them, unless nothing fits without more or more
    of them save a tenth of a step: waiting for kernels, or computing again what does not fit.

    Elsewhere: replicates parameters while their state takes less than 40% of a device; above, cuts
    them along `fsdp` over as few devices as brings them there (rows go to all); then
    rematerialises, then halves the microbatch, then cuts further, until it fits.

    Args:
      topology: how the devices are joined; None where nobody knows.
      rows: how the batch was chosen (`planner.rows.batch_rows`); None: a row a device.

    Raises:
      InputError: one row a device does not fit either.
    """
    if topology is None or topology.chip is None:
        return _fewest_cuts(config, hardware)
    usable = USABLE * hardware.memory_bytes
    rows = rows or Rows(number=config.training.batch_size, devices_a_row=1, rule="")
    best, least = None, math.inf
    shared = rows.devices_a_row
    while shared <= _GROWTH * rows.devices_a_row and hardware.num_devices % shared == 0:
        found = _Search(hardware, topology, usable)
        chosen = found.best(_meshes(config, topology, shared))
        least = min(least, found.least_bytes)
        if best is not None and (
            chosen is None or chosen.seconds.total * _GAIN >= best.seconds.total
        ):
            break  # sharing rows by more devices does not help
        best = chosen or best
        if best is not None and not best.has_waste:
            break
        shared *= 2
    if best is None:
        raise _too_large(least, usable)
    return best.config, layout_rules(best.config, hardware, topology, rows)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A layout that fits.

    is_crowded: whether parameters and optimizer leave less room than they should.
    """

    config: RunConfig
    is_crowded: bool
    seconds: StepSeconds

    @property
    def has_waste(self) -> bool:
        """Whether waiting for links and repeating products take much of a step."""
        return self.seconds.total > _GAIN * (self.seconds.products - self.seconds.recomputed)


class _Search:
    """The best of many meshes, and the least bytes that any of them needed."""

    def __init__(self, hardware: Hardware, topology: Topology, usable: float):
        self.hardware, self.topology, self.usable = hardware, topology, usable
        self.least_bytes = math.inf

    def best(self, configs: Iterator[RunConfig]) -> _Candidate | None:
        fitting = [fits for config in configs for fits in self._fitting(config)]
        if not fitting:
            return None
        fastest = _AS_FAST * min(candidate.seconds.total for candidate in fitting)
        return min(
            (candidate for candidate in fitting if candidate.seconds.total <= fastest),
            key=lambda candidate: (
                candidate.is_crowded,
                candidate.config.mesh.fsdp > 1,
                candidate.seconds.sending,
            ),
        )

    def _fitting(self, config: RunConfig) -> Iterator[_Candidate]:
        """For every policy of recomputation, least first, the fewest microbatches that fit."""
        numbers = _divisors(config.training.batch_size // _row_shards(config))
        smallest = needed_bytes(
            _split(_recomputed(config, *_STRONGEST), numbers[-1]), self.hardware
        )
        self.least_bytes = min(self.least_bytes, smallest.total)
        if smallest.total > self.usable:
            return
        fewest = math.inf
        for changed in _policies(config, self.topology):
            for parts in numbers:
                if parts >= fewest:  # more recomputation, and no larger microbatches for it
                    break
                split = _split(changed, parts)
                held = needed_bytes(split, self.hardware)
                if held.total > self.usable:
                    continue
                fewest = parts
                seconds = step_seconds(split, self.topology)
                yield _Candidate(
                    config=split,
                    is_crowded=held.params + held.optimizer
                    > _STATE_SHARE * self.hardware.memory_bytes,
                    seconds=seconds,
                )
                break
            if fewest == 1:
                return


def _policies(config: RunConfig, topology: Topology) -> list[RunConfig]:
    """The config with every policy of rematerialisation, those that repeat least first."""
    policies = [
        _recomputed(config, remat, pattern)
        for remat, pattern in _POLICIES
        if config.model.num_layers % len(pattern) == 0
    ]
    return sorted(policies, key=lambda policy: executed_flops(policy, topology).total)


def _recomputed(config: RunConfig, remat: Remat, pattern: _Pattern) -> RunConfig:
    return replace(config, model=replace(config.model, remat=remat, remat_pattern=pattern))


def _split(config: RunConfig, parts: int) -> RunConfig:
    return replace(config, training=replace(config.training, num_microbatches=parts))


def _meshes(config: RunConfig, topology: Topology, shared: int) -> Iterator[RunConfig]:
    """The config over meshes with `shared` devices a row, along `sequence` or `tensor` or both.

    Replicas are as many as slices. Of `fsdp` three sizes are tried: none, all devices that one
    switch joins, and all of a slice; each as far as the widths divide.
    """
    per_slice = topology.num_devices // topology.num_slices
    most = axis_limits(config.model, config.lengths)
    for tensor in _powers(min(shared, most.tensor)):
        sequence = shared // tensor
        if sequence > most.sequence:
            continue
        for expert in _expert_sizes(config, per_slice // shared):
            left = per_slice // (shared * expert)
            tried = set()
            for largest in (1, _switched(topology) // (shared * expert), left):
                for fsdp in reversed(_divisors(left)):
                    if fsdp > largest:
                        continue
                    if fsdp in tried:
                        break
                    try:
                        yield replace(
                            config,
                            mesh=replace(
                                config.mesh,
                                replica=topology.num_slices,
                                data=left // fsdp,
                                fsdp=fsdp,
                                expert=expert,
                                sequence=sequence,
                                tensor=tensor,
                            ),
                        )
                    except InputError:  # some width, or the batch, is no multiple of it
                        continue
                    tried.add(fsdp)
                    break


def _expert_sizes(config: RunConfig, most: int) -> list[int]:
    mlp = config.model.mlp
    if not isinstance(mlp, MoEConfig):
        return [1]
    return [size for size in _divisors(mlp.num_experts) if most % size == 0]


def _switched(topology: Topology) -> int:
    """Devices that links join without a network between them."""
    assert topology.chip is not None
    if topology.chip.is_tpu:
        return topology.num_devices // topology.num_slices
    return topology.grid[-1]


def _fewest_cuts(config: RunConfig, hardware: Hardware) -> tuple[RunConfig, list[Rule]]:
    usable = USABLE * hardware.memory_bytes
    for cut in _cuts(config, hardware):
        config, rules = _recomputed_and_split(cut, hardware, usable)
        needed = needed_bytes(config, hardware).total
        if needed <= usable:
            break
    else:
        raise _too_large(needed, usable)
    mesh_rule = "the fewest devices over which parameters and optimizer are cut to leave room"
    if config.mesh.axis_sizes["fsdp"] == 1:
        mesh_rule = "parameters and optimizer fit on each device: replicated"
    rules = [
        Rule(field="mesh", value=mesh_text(config), rule=mesh_rule),
        *rules,
        Rule(
            field="training.num_microbatches",
            value=config.training.num_microbatches,
            rule=f"a step needs {needed / 1e9:.3g} GB a device",
        ),
    ]
    return config, rules


def _too_large(needed: float, usable: float) -> InputError:
    return InputError(
        f"budget: got a model that needs {needed / 1e9:.3g} GB a device, expected at most "
        f"{usable / 1e9:.3g} GB; use more devices or a smaller model"
    )


def _cuts(config: RunConfig, hardware: Hardware) -> list[RunConfig]:
    """The config with parameters cut over more and more devices, from where they leave room on;
    if they never do, over as many as divide its widths."""
    devices, cuts, roomy = hardware.num_devices, [], []
    for fsdp in _divisors(devices):
        try:
            cut = replace(config, mesh=MeshConfig(data=devices // fsdp, fsdp=fsdp))
            held = needed_bytes(cut, hardware)
        except InputError:  # some width is no multiple of it
            continue
        cuts.append(cut)
        if held.params + held.optimizer <= _STATE_SHARE * hardware.memory_bytes:
            roomy.append(cut)
    return roomy or cuts[-1:]


def _recomputed_and_split(
    config: RunConfig, hardware: Hardware, usable: float
) -> tuple[RunConfig, list[Rule]]:
    """The config with remat and microbatches towards `usable` bytes, as far as they go."""
    rules = []
    if needed_bytes(config, hardware).total > usable:
        config = replace(config, model=replace(config.model, remat="full"))
        rules.append(Rule(field="model.remat", value="full", rule="activations do not fit"))
    rows = config.training.batch_size // config.mesh.num_devices
    while needed_bytes(config, hardware).total > usable:
        parts = 2 * config.training.num_microbatches
        if rows % parts:
            break
        config = replace(config, training=replace(config.training, num_microbatches=parts))
    return config, rules


def _row_shards(config: RunConfig) -> int:
    return config.mesh.rules.shards("batch", config.mesh.axis_sizes)


def _powers(most: int) -> list[int]:
    return [1 << shift for shift in range(most.bit_length())]


def _divisors(number: int) -> Sequence[int]:
    """Smallest first."""
    return [part for part in range(1, number + 1) if number % part == 0]
