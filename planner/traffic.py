"""What a train step sends along each mesh axis, by arithmetic, before anything is compiled.

One device, one step; D model width, T tokens of a device in one microbatch. Arrays travel in the
compute dtype. What `isoflop compile` reads from the program is the truth this approximates: small
sums (norms, losses, the router) and the look-up's all-to-all are left out.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.mlp_config import MoEConfig
from configs.schema import RunConfig
from configs.sharding import MeshAxes, resolve
from planner.flops import training_flops_per_row
from planner.links import group_links
from planner.on_hardware import executed_flops
from planner.parameters import has_tied_head, parameters, sides
from planner.roofline import Traffic, collective_seconds
from planner.topology import Topology

_PASSES = 2  # forward and backward; a third one where a layer is computed again


def planned_traffic(config: RunConfig) -> tuple[Traffic, ...]:
    """Collectives of a step, per device, summed by kind and mesh axes.

    - Kernels cut along the model width: gathered for the forward and again for the backward pass of
      every microbatch; their gradients reduced and scattered once in each.
    - Parameters whole along axes that cut the rows: their gradients all-reduced over those.
    - `tensor`: T·D all-reduced after attention and after the MLP, forward and backward, and
      forward again where a layer is computed again.
    - `sequence`: keys and values gathered for each pass, their gradients reduced and scattered.
    - `expert`: a mixture's tokens gathered and its outputs reduced and scattered, in each pass.
    """
    return _summed(config, [*_of_parameters(config), *_of_activations(config)])


@dataclass(frozen=True, kw_only=True)
class StepSeconds:
    """Least seconds of a step of one device, every resource used to the full.

    Attributes:
      products: executed FLOPs at peak. recomputed: those of them that are repeated, by
        rematerialisation or by attention kernels' own backward passes.
      parameters: collectives of kernels and gradients along one set of axes, the longest; they can
        run beside other layers' products.
      activations: collectives that stand between one product and the next, all of them.
      sending: collectives of both kinds along all axes.
      model: the model's FLOPs at peak.
      by_axes: mesh axes joined by + -> their activations' seconds; parameters_by_axes: likewise.
    """

    products: float
    recomputed: float
    parameters: float
    activations: float
    sending: float
    model: float
    by_axes: Mapping[str, float]
    parameters_by_axes: Mapping[str, float]

    @property
    def total(self) -> float:
        """With all that can be hidden hidden."""
        return max(self.products, self.parameters) + self.activations

    @property
    def mfu(self) -> float:
        """Share of peak that model FLOPs reach in that time."""
        return self.model / self.total


def step_seconds(config: RunConfig, topology: Topology) -> StepSeconds:
    """What a step takes at least by planned FLOPs and traffic.

    Rows cut along `sequence` under a causal mask are uneven: of n devices the last one meets
    2 − 1/n times the mean of the pairs, and the others wait for it.

    Args:
      topology: of real chips, as many as the config's mesh has devices.
    """
    chip, devices = topology.chip, topology.num_devices
    assert chip is not None, "pretended devices have no peak"
    peak, rows = chip.bf16_flops / chip.devices, config.training.batch_size
    executed = executed_flops(config, topology)
    flops = executed.total / devices
    model = training_flops_per_row(config.model, config.lengths)
    if config.model.architecture == "decoder_only":
        uneven = 1 - 1 / config.mesh.rules.shards("length", config.mesh.axis_sizes)
        flops += uneven * model.attention_scores * rows / devices
    parameters, activations = (
        _seconds(_summed(config, sent), config, topology)
        for sent in (_of_parameters(config), _of_activations(config))
    )
    return StepSeconds(
        products=flops / peak,
        recomputed=executed.recomputation / devices / peak,
        parameters=max(parameters.values(), default=0.0),
        activations=sum(activations.values()),
        sending=sum(parameters.values()) + sum(activations.values()),
        model=model.total * rows / devices / peak,
        by_axes=activations,
        parameters_by_axes=parameters,
    )


Sent = tuple[str, MeshAxes, int, int]


def _summed(config: RunConfig, sent: Sequence[Sent]) -> tuple[Traffic, ...]:
    """By kind and axes of more than one device, the heaviest first."""
    payloads: Counter[tuple[str, MeshAxes]] = Counter()
    calls: Counter[tuple[str, MeshAxes]] = Counter()
    for kind, axes, payload, times in sent:
        axes = tuple(axis for axis in axes if config.mesh.axis_sizes[axis] > 1)
        if axes and payload:
            payloads[kind, axes] += payload * times
            calls[kind, axes] += times
    return tuple(
        Traffic(kind=kind, axes=axes, calls=calls[kind, axes], payload_bytes=float(payload))
        for (kind, axes), payload in payloads.most_common()
    )


def _seconds(traffic: Sequence[Traffic], config: RunConfig, topology: Topology) -> dict[str, float]:
    """Mesh axes joined by + -> their collectives' time."""
    seconds: dict[str, float] = {}
    for part in traffic:
        links = group_links(topology, config.mesh.axis_sizes, part.axes)
        name = "+".join(part.axes)
        taken = collective_seconds(part.kind, part.payload_bytes, links)
        seconds[name] = seconds.get(name, 0.0) + taken
    return seconds


def _of_parameters(config: RunConfig) -> list[Sent]:
    """Kind, axes, payload of a call, calls."""
    rules, sizes = config.mesh.rules, config.mesh.axis_sizes
    item, times = _item_bytes(config), config.training.num_microbatches
    is_tied = has_tied_head(config.model)
    row_axes = dict.fromkeys((*rules.batch, *rules.length))
    found: list[Sent] = []
    for spec in parameters(config.model):
        by_dim = resolve(rules, spec.logical_axes, spec.shape, sizes)
        cut = tuple(
            axis
            for logical, axes in zip(spec.logical_axes, by_dim, strict=True)
            for axis in axes
            if logical == "embed"
        )
        others = {axis for axes in by_dim for axis in axes} - set(cut)
        gathered = item * spec.size // math.prod(sizes[axis] for axis in others)
        stored = gathered // math.prod(sizes[axis] for axis in cut)
        layers = spec.shape[0] if spec.logical_axes[0] == "layers" else 1
        calls = layers * times
        if spec.is_layer_kernel:
            found.append(("all-gather", cut, gathered // layers, _PASSES * calls))
            found.append(("reduce-scatter", cut, gathered // layers, calls))
        elif spec.is_kernel or (is_tied and spec.logical_axes == ("vocab", "embed")):
            # The loss needs the head once, forward and backward; a table as table goes by rows.
            found.append(("all-gather", cut, gathered, times))
            found.append(("all-reduce" if is_tied else "reduce-scatter", cut, gathered, times))
        whole = tuple(axis for axis in row_axes if axis not in cut and axis not in others)
        # The gradient of a table that is the head too is summed in fp32, where it is not cut.
        scale = 4 // item if is_tied and spec.logical_axes == ("vocab", "embed") else 1
        found.append(("all-reduce", whole, scale * stored // layers, calls))
    return found


def _of_activations(config: RunConfig) -> list[Sent]:
    m, rules, sizes = config.model, config.mesh.rules, config.mesh.axis_sizes
    lengths, a, item = config.lengths, m.attention, _item_bytes(config)
    parts = config.training.num_microbatches
    rows = config.training.batch_size // parts // rules.shards("batch", sizes)
    length_shards = rules.shards("length", sizes)
    passes = _PASSES + (m.remat == "full")
    found: list[Sent] = []
    for side in sides(m):
        length = side.length(lengths)
        layers, places = side.num_layers, rows * length // length_shards
        width = item * places * m.emb_dim
        attentions = 2 if side.reads_memory else 1
        is_mixture = isinstance(m.mlp, MoEConfig)
        # A mixture over several experts' devices adds its parts up by its own exchange.
        sums = attentions + 1
        if "tensor" in rules.residual_length:
            found.append(("all-gather", rules.heads, width, sums * passes * layers * parts))
            found.append(("reduce-scatter", rules.heads, width, sums * passes * layers * parts))
        else:
            found.append(("all-reduce", rules.heads, width, sums * passes * layers * parts))
        keys = 2 * item * rows * length * a.num_kv_heads * a.head_dim
        keys //= rules.shards("kv_heads", sizes)
        found.append(("all-gather", rules.length, keys, attentions * _PASSES * layers * parts))
        found.append(("reduce-scatter", rules.length, keys, attentions * layers * parts))
        if is_mixture:
            group = tuple(axis for axis in rules.experts if axis in (*rules.batch, *rules.length))
            tokens = width * math.prod(sizes[axis] for axis in group)
            found.append(("all-gather", group, tokens, passes * layers * parts))
            found.append(("reduce-scatter", group, tokens, passes * layers * parts))
    return found


def _item_bytes(config: RunConfig) -> int:
    return 2 if config.model.compute_dtype == "bfloat16" else 4
