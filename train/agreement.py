"""Yes or no, the same on every process: what one of them noticed, all of them act on at once."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_MESSAGE_BYTES = 256


class Agreement:
    """Whether any process said yes, by a tiny all-reduce over all devices.

    The answer is late by one call where devices work through a queue: the all-reduce of this call
    lies behind the step in flight, and to read it now would wait for that step. CPUs of several
    processes run one program at a time (gloo may deadlock otherwise): nothing is in flight there,
    and the answer is this call's.

    With several processes, every one has to call `any` equally often and at the same place among
    its other programs: each call is a collective.
    """

    def __init__(self):
        self._is_alone = jax.process_count() == 1
        if self._is_alone:
            return
        devices = np.array(jax.devices())
        mesh = Mesh(devices, ("device",), axis_types=(AxisType.Auto,))
        self._is_late = not runs_one_program_at_a_time(devices)
        self._size = mesh.size
        self._per_device = NamedSharding(mesh, PartitionSpec("device"))
        self._maximum = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._pending: jax.Array | None = None

    def any(self, said: bool) -> bool:
        """Whether some process has said yes: in this call, or (see above) in the one before.

        Args:
          said: this process' own word.
        """
        if self._is_alone:
            return said
        flags = jax.make_array_from_callback(
            (self._size,), self._per_device, lambda _: np.array([said], np.int32)
        )
        asked = self._maximum(flags)
        answer, self._pending = (self._pending, asked) if self._is_late else (asked, None)
        return answer is not None and bool(np.asarray(answer))


def runs_one_program_at_a_time(devices: np.ndarray) -> bool:
    """Whether a program must be over before the next one is begun: on CPUs of several processes,
    where the collectives of two in flight may wait for each other for ever (gloo)."""
    return jax.process_count() > 1 and devices.flat[0].platform == "cpu"


def wait_for_all(name: str) -> None:
    """Returns once every process has come here; at once where there is one.

    Args:
      name: of the place, the same on every process.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def first_of_any_process(problem: str | None) -> str | None:
    """The problem of the first process that has one, told to all of them."""
    if jax.process_count() == 1:
        return problem
    message = (problem or "").encode()[:_MESSAGE_BYTES]
    padded = np.frombuffer(message.ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
    for own in np.asarray(multihost_utils.process_allgather(padded, tiled=False)):
        if text := own.tobytes().rstrip(b"\0").decode(errors="ignore"):
            return text
    return None
