"""Which updates are applied: none that is not finite, and none of a loss that spikes.

Pure functions of the state and the batch's losses: a run that is killed and started again decides
as it would have undisturbed, and every process decides alike.

Legend: W losses of the window.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from configs.schema import GuardConfig

_SMALLEST_DEVIATION = 1e-3
"""Of the mean: the least that counts as the window's standard deviation. Where losses hardly
differ (a batch learned by heart), rounding and a harder sentence are many of their deviations."""


class GuardState(NamedTuple):
    """The last W losses whose updates were applied, in a ring, and how many there were in all."""

    losses_W: Float[Array, " W"]
    count: Int[Array, ""]


class Verdict(NamedTuple):
    """Whether an update is applied, and whether a spike is why not. Never both."""

    applied: Bool[Array, ""]
    is_spike: Bool[Array, ""]


def new_guard(config: GuardConfig) -> Any:
    """The guard of a run before its first step: (), which takes no memory, where none is asked for,
    else a GuardState."""
    if config.spike_sigma == 0:
        return ()
    return GuardState(jnp.zeros(config.spike_window, jnp.float32), jnp.zeros((), jnp.int32))


def judge(
    config: GuardConfig,
    guard: Any,
    loss: Float[Array, ""],
    *others: Float[Array, ""],
) -> Verdict:
    """Whether a step's update may be applied.

    Args:
      guard: what `new_guard` began.
      loss: mean cross-entropy of the batch, in nats.
      others: what has to be finite besides (the other losses, the gradient's norm).
    """
    is_finite = jnp.isfinite(loss)
    for other in others:
        is_finite &= jnp.isfinite(other)
    if not isinstance(guard, GuardState):
        return Verdict(is_finite, jnp.zeros((), bool))
    is_spike = is_finite & exceeds_window(guard, loss, config.spike_sigma)
    return Verdict(is_finite & ~is_spike, is_spike)


def exceeds_window(guard: GuardState, loss: Float[Array, ""], sigma: float) -> Bool[Array, ""]:
    """Whether a loss lies above mean + sigma · standard deviation of a full window.

    Never before W losses were accepted. The deviation counts as 1/1000 of the mean at least.
    """
    mean = jnp.mean(guard.losses_W)
    deviation = jnp.maximum(jnp.std(guard.losses_W), _SMALLEST_DEVIATION * jnp.abs(mean))
    is_full = guard.count >= len(guard.losses_W)
    return is_full & (loss > mean + sigma * deviation)


def after_step(guard: Any, loss: Float[Array, ""], applied: Bool[Array, ""]) -> Any:
    """The guard after a step: an applied step's loss takes the place of the oldest."""
    if not isinstance(guard, GuardState):
        return guard
    place = guard.count % len(guard.losses_W)
    losses_W = guard.losses_W.at[place].set(jnp.where(applied, loss, guard.losses_W[place]))
    return GuardState(losses_W, guard.count + applied.astype(jnp.int32))


def update_if(
    applied: Bool[Array, ""],
    update: Callable[[Any, Any], tuple[Any, Any]],
    params: Any,
    opt_state: Any,
    *,
    platform: str = "cpu",
) -> tuple[Any, Any]:
    """`update(params, opt_state)` where the update is applied, else both as they were.

    The steps that a schedule has counted go on in either case, so that the learning rate stays
    that of the run's step; what an optimizer counts of its own updates stays with its moments.

    Args:
      platform: of the program. On a CPU a select reads the old moments after the new parameters
        were computed from the new ones, and the compiler keeps a copy of all moments: there it is
        a branch. An accelerator's compiler makes the select a part of the update, and would have
        to write every gradient out for a branch.
    """

    def refuse(params: Any, opt_state: Any) -> tuple[Any, Any]:
        return params, jax.tree.map(_counted_on, opt_state, is_leaf=_is_schedules)

    if platform == "cpu":
        return jax.lax.cond(applied, update, refuse, params, opt_state)
    new, old = update(params, opt_state), refuse(params, opt_state)
    return jax.tree.map(lambda new, old: jnp.where(applied, new, old), new, old)


def _is_schedules(node: Any) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)


def _counted_on(node: Any) -> Any:
    if not _is_schedules(node):
        return node
    return optax.ScaleByScheduleState(optax.safe_increment(node.count))
