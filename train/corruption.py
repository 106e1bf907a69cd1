"""Silent corruption: bits that changed on a device without any error.

Two checks, every `guard.check_every` steps. Replicas: devices that hold the same piece of an array
hold the same bits. Recomputation: a step computed twice from the same bits gives the same bits.
Both compare checksums, computed where the bits lie: two 32-bit sums of an array's bits. Of one,
every bit is weighed by an odd factor of its place, so that a single flipped bit always shows; of
the other the bits are mixed with their place first, so that other changes pass unseen about once
in 2**32 times.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, UInt32

from configs.errors import InputError
from configs.schema import RunConfig
from train.state import TrainState, abstract_state
from train.step import StepMetrics

_REPEATABLE_FLAGS = ("xla_gpu_deterministic_ops", "xla_gpu_exclude_nondeterministic_ops")


class SilentCorruption(RuntimeError):
    """Equal work gave unequal bits; the message names arrays and devices."""


class Difference(NamedTuple):
    """An array, and the devices that hold other bits than most others do (than each other, where
    there is no majority)."""

    name: str
    devices: tuple[Any, ...]

    def describe(self) -> str:
        """ "params['decoder']['norm']['scale'] on device 3 (process 0)"."""
        devices = ", ".join(f"{d.id} (process {d.process_index})" for d in self.devices)
        return f"{self.name} on device {devices}"


class Recomputed(NamedTuple):
    """What the second of two equal steps gave, and where the first gave other bits."""

    state: TrainState
    metrics: StepMetrics
    differences: tuple[Difference, ...]


class StateChecks:
    """Both checks, at the steps that the config asks for; that of replicas before saves too.

    Raises:
      InputError: the checks are asked for on a GPU whose programs need not repeat their bits.
    """

    def __init__(self, config: RunConfig, mesh: Mesh):
        self._every = config.guard.check_every
        require_repeatable(self._every, mesh.devices.flat[0].platform, os.environ)
        self._replicas = make_replica_check(config, mesh) if self._every else _NOTHING

    def is_due(self, step: int) -> bool:
        return self._every > 0 and step % self._every == 0

    def require_equal_replicas(self, state: TrainState) -> None:
        """Of a state that is to be saved too: restored from one of them, all would be alike again.

        Raises:
          SilentCorruption: replicas of the state differ. Never where no checks are asked for.
        """
        if differing := self._replicas(state):
            raise SilentCorruption(f"replicas hold unequal bits: {_listed(differing)}")

    def step(
        self, train_step: Callable[..., Any], state: TrainState, batch: Any
    ) -> tuple[TrainState, StepMetrics]:
        """The train step, checked: it costs what `recompute_check` says.

        Raises:
          SilentCorruption: replicas of the state differ, or the step computed twice does. All
            processes raise alike.
        """
        self.require_equal_replicas(state)
        recomputed = recompute_check(train_step, state, batch)
        if recomputed.differences:
            where = _listed(recomputed.differences)
            raise SilentCorruption(f"a step computed twice gave unequal bits: {where}")
        return recomputed.state, recomputed.metrics


def require_repeatable(check_every: int, platform: str, environment: Mapping[str, str]) -> None:
    """Raises InputError where a step computed twice may differ on healthy hardware.

    On GPUs some of XLA's and cuDNN's kernels add in the order in which threads arrive.
    """
    flags = environment.get("XLA_FLAGS", "").replace("=true", "").split()
    if check_every and platform == "gpu" and not {f"--{f}" for f in _REPEATABLE_FLAGS} & {*flags}:
        raise InputError(
            f"guard.check_every: got {check_every}, expected 0, or the environment variable "
            f"XLA_FLAGS with --{_REPEATABLE_FLAGS[0]}=true: a GPU's steps do not repeat their bits"
        )


class ReplicaCheck(NamedTuple):
    """Compares what several devices hold of the same array. Call it with a state.

    names: the arrays that it compares, those with a replica; none on a single device, or where
    everything is cut over every axis of the mesh: the call then finds nothing, without any work.
    """

    names: tuple[str, ...]
    shardings: tuple[NamedSharding, ...]

    def __call__(self, state: TrainState) -> list[Difference]:
        """The arrays whose replicas differ. It reads each of them once, where it lies."""
        if not self.names:
            return []
        leaves = dict(_named_leaves(state))
        sums = _checksums(self.shardings)([leaves[name] for name in self.names])
        found = []
        for number, (name, sharding) in enumerate(zip(self.names, self.shardings, strict=True)):
            if devices := _that_differ(sums[..., number, :], sharding):
                found.append(Difference(name, devices))
        return found


def make_replica_check(config: RunConfig, mesh: Mesh) -> ReplicaCheck:
    """The check of a run's state on a mesh: of each leaf that two or more devices hold alike."""
    replicated = [
        (name, leaf.sharding)
        for name, leaf in _named_leaves(abstract_state(config, mesh))
        if leaf.sharding.num_devices > 1 and _num_pieces(leaf.sharding) < leaf.sharding.num_devices
    ]
    return ReplicaCheck(*map(tuple, zip(*replicated, strict=True))) if replicated else _NOTHING


_NOTHING = ReplicaCheck((), ())


def recompute_check(train_step: Callable[..., Any], state: TrainState, batch: Any) -> Recomputed:
    """Computes a step twice from the same bits, and compares what came out.

    It takes the time of two steps and of moving the state to the host and back (12 bytes a
    parameter with AdamW, those of this process' devices), reads the result twice for its
    checksums, and keeps that copy of the state in host memory meanwhile. On the devices it takes
    no more than a step. All processes have to call it together.

    Args:
      train_step: compiled or jitted; it may take the state's memory (donation).
      state: given away.
    """
    names, leaves = zip(*_named_leaves(state), strict=True)
    shardings = tuple(leaf.sharding for leaf in leaves)
    structure = jax.tree.structure(state)
    on_host = [_to_host(leaf) for leaf in leaves]
    del leaves
    first, _ = train_step(state, batch)
    first_sums = _checksums(shardings)(jax.tree.leaves(first))
    del first, state  # their memory is the second step's
    again = jax.tree.unflatten(structure, [pieces.put() for pieces in on_host])
    del on_host
    second, metrics = train_step(again, batch)
    sums = _checksums(shardings)(jax.tree.leaves(second))
    differs = np.any(first_sums != sums, axis=-1)  # [*mesh, leaves]
    devices = _devices(shardings[0])
    differences = tuple(
        Difference(name, tuple(devices[differs[..., number]]))
        for number, name in enumerate(names)
        if differs[..., number].any()
    )
    return Recomputed(second, metrics, differences)


class _OnHost(NamedTuple):
    """A copy of what this process' devices hold of an array, each piece once."""

    shape: tuple[int, ...]
    sharding: NamedSharding
    pieces: dict[str, np.ndarray]

    def put(self) -> jax.Array:
        # Never in the copy's own memory, which a CPU could use as it stands: a step may take it.
        places = self.sharding.addressable_devices_indices_map(self.shape)
        on_devices = [
            jax.device_put(self.pieces[str(index)], device, may_alias=False)
            for device, index in places.items()
        ]
        return jax.make_array_from_single_device_arrays(self.shape, self.sharding, on_devices)


def _to_host(leaf: jax.Array) -> _OnHost:
    assert isinstance(leaf.sharding, NamedSharding)
    places = leaf.sharding.addressable_devices_indices_map(leaf.shape)
    # Copies: what NumPy sees of an array on a CPU is the memory that the step will write to.
    pieces = {str(places[s.device]): np.array(s.data) for s in leaf.addressable_shards}
    return _OnHost(leaf.shape, leaf.sharding, pieces)


@functools.cache
def _checksums(shardings: tuple[NamedSharding, ...]) -> Callable[[Sequence[Any]], np.ndarray]:
    """Arrays of these shardings to the checksums of every device's piece of each.

    Returns:
      A function to uint32 [*mesh, arrays, 2], the same on every process.
    """
    mesh = shardings[0].mesh
    axes = mesh.axis_names

    def of_device(pieces: list[Any]) -> UInt32[Array, "..."]:
        sums = jnp.stack([_checksum(piece) for piece in pieces])
        return jnp.reshape(sums, (*[1] * len(axes), *sums.shape))

    on_devices = jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=([sharding.spec for sharding in shardings],),
        out_specs=PartitionSpec(*axes),
        check_vma=False,  # that devices hold alike what they should is the question
    )
    everywhere = NamedSharding(mesh, PartitionSpec())
    jitted = jax.jit(on_devices, in_shardings=(list(shardings),), out_shardings=everywhere)
    return lambda leaves: np.asarray(jitted(list(leaves)))


def _checksum(piece: Any) -> UInt32[Array, " 2"]:
    """Two sums of a piece's bits, modulo 2**32: exact, whatever the order of addition."""
    bits = _bits(piece)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    mixed = bits ^ (place * jnp.uint32(0x9E3779B9))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # MurmurHash3's last steps
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return jnp.stack([jnp.sum(bits * (2 * place + 1)), jnp.sum(mixed ^ (mixed >> 16))])


def _bits(piece: Any) -> UInt32[Array, "..."]:
    if piece.dtype == jnp.bool_:
        return piece.astype(jnp.uint32)
    width = min(piece.dtype.itemsize, 4)  # of 8 bytes, bitcasting makes two numbers
    word = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[width]
    return jax.lax.bitcast_convert_type(piece, word).astype(jnp.uint32)


def _that_differ(sums: np.ndarray, sharding: NamedSharding) -> tuple[Any, ...]:
    """Devices whose checksums [*mesh, 2] are not those of most with the same piece."""
    cut = [sharding.mesh.axis_names.index(axis) for axis in _cut_axes(sharding)]
    copied = [axis for axis in range(sums.ndim - 1) if axis not in cut]
    num_pieces = _num_pieces(sharding)
    by_piece = sums.transpose(*cut, *copied, -1).reshape(num_pieces, -1, sums.shape[-1])
    devices = _devices(sharding).transpose(*cut, *copied).reshape(num_pieces, -1)
    differing: list[Any] = []
    for piece in np.flatnonzero(np.any(by_piece != by_piece[:, :1], axis=(1, 2))):
        _, kind, counts = np.unique(
            by_piece[piece], axis=0, return_inverse=True, return_counts=True
        )
        has_majority = 2 * counts.max() > len(kind)
        is_other = kind.ravel() != counts.argmax() if has_majority else np.ones(len(kind), bool)
        differing.extend(devices[piece][is_other])
    return tuple(differing)


def _devices(sharding: NamedSharding) -> np.ndarray:
    assert isinstance(sharding.mesh, Mesh)
    return sharding.mesh.devices


def _cut_axes(sharding: NamedSharding) -> list[str]:
    """The mesh axes that an array is cut along."""
    axes: list[str] = []
    for entry in sharding.spec:
        axes += [] if entry is None else [entry] if isinstance(entry, str) else entry
    return axes


def _num_pieces(sharding: NamedSharding) -> int:
    sizes = dict(sharding.mesh.shape)
    return int(np.prod([sizes[axis] for axis in _cut_axes(sharding)], dtype=int))


def _named_leaves(state: Any) -> list[tuple[str, Any]]:
    """ "params['token_embedding']['embedding']" and so on, each with its array."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [(jax.tree_util.keystr(path).lstrip("."), leaf) for path, leaf in leaves]


def _listed(differences: Sequence[Difference]) -> str:
    """The first few."""
    shown = "; ".join(one.describe() for one in differences[:3])
    return shown + (f"; {len(differences) - 3} more" if len(differences) > 3 else "")
