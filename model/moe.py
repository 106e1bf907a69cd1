"""A mixture of SwiGLU experts instead of one MLP: a token is computed by the k it scores highest.

Legend, besides the room's: k experts a token chooses, T tokens of one device, S slots an expert
has for the choices of a row.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from configs.mlp_config import MoEConfig
from model.constrain import Constrain
from model.expert_parallel import share_experts
from model.grouped_product import (
    block_size,
    group_choices,
    grouped_product,
    rows_to_slots,
    slots_to_rows,
)
from model.initializers import Init
from model.parameters import normal, parameter


class Routing(NamedTuple):
    """Which experts compute each token, best first, and their weights in its output.

    expert_BLk: E, one past the last, for a place without a token. gate_BLk: fp32, adds up to one.
    """

    expert_BLk: Int[Array, "B L k"]
    gate_BLk: Float[Array, "B L k"]


class Kernels(NamedTuple):
    """The experts' kernels in compute dtype."""

    gate_EDF: Float[Array, "E D F"]
    up_EDF: Float[Array, "E D F"]
    down_EFD: Float[Array, "E F D"]


class MoE(nn.Module):
    """Router, then Σ gate · down(silu(gate x) · up x) over the chosen experts.

    Places without a token are sent nowhere: they get zeros, take no room and count in no loss.
    """

    config: MoEConfig
    dtype: jnp.dtype
    constrain: Constrain
    init: Init

    @nn.compact
    def __call__(
        self, x_BLD: Float[Array, "B L D"], is_token_BL: Bool[Array, "B L"]
    ) -> tuple[Float[Array, "B L D"], dict[str, Float[Array, ""]]]:
        """Returns the outputs, and two losses, weighted already, means over the batch's tokens.

        balance: balance_loss · E · Σ_e f_e · P_e, of expert e the share f of choices and the mean
        probability P: 1 · balance_loss where both are uniform, E/k times that where all tokens
        agree on the same k experts. router_z: router_z_loss · mean logsumexp².
        """
        c = self.config
        with jax.named_scope("router"):
            router = Router(c, self.constrain, self.init, name="router")
            logits_BLE = router(x_BLD)
            routing = route(logits_BLE, is_token_BL, c.experts_per_token)
            losses = router_losses(c, logits_BLE, routing, is_token_BL)
        with jax.named_scope("experts"):
            kernels = Experts(c, self.dtype, self.init, name="experts")(x_BLD.shape[-1])
            y_BLD = _DISPATCHES[c.dispatch](c, self.constrain, x_BLD, routing, kernels)
        return y_BLD, losses


class Router(nn.Module):
    """A score per expert, fp32 throughout: rounded scores flip choices (Switch, section 2.4)."""

    config: MoEConfig
    constrain: Constrain
    init: Init

    @nn.compact
    def __call__(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L E"]:
        (B, L, D), E = x_BLD.shape, self.config.num_experts
        stddev = self.init.stddev("router", D)
        kernel_DE = parameter(self, "kernel", normal(stddev), (D, E), ("embed", "router"))
        # Gathered over fsdp: without this the compiler may cut the activations along D instead.
        kernel_DE = self.constrain(kernel_DE, "activation_embed", "router")
        rows_TD = jnp.reshape(x_BLD.astype(jnp.float32), (B * L, D))
        logits_TE = jnp.dot(rows_TD, kernel_DE, precision=jax.lax.Precision.HIGHEST)
        return self.constrain(jnp.reshape(logits_TE, (B, L, E)), "batch", "length", "router")


class Experts(nn.Module):
    """The kernels of all experts, side by side."""

    config: MoEConfig
    dtype: jnp.dtype
    init: Init

    @nn.compact
    def __call__(self, emb_dim: int) -> Kernels:
        D, E, F = emb_dim, self.config.num_experts, self.config.mlp_dim
        wide, narrow = ("experts", "embed", "mlp"), ("experts", "mlp", "embed")
        hidden, residual = self.init.stddev("hidden", D), self.init.stddev("residual", F)
        return Kernels(
            gate_EDF=Kernel((E, D, F), wide, self.dtype, hidden, name="gate")(),
            up_EDF=Kernel((E, D, F), wide, self.dtype, hidden, name="up")(),
            down_EFD=Kernel((E, F, D), narrow, self.dtype, residual, name="down")(),
        )


class Kernel(nn.Module):
    """One stack of kernels, kept in fp32, cast at use."""

    shape: tuple[int, ...]
    logical_axes: tuple[str, ...]
    dtype: jnp.dtype
    stddev: float

    @nn.compact
    def __call__(self) -> jax.Array:
        kernel = parameter(self, "kernel", normal(self.stddev), self.shape, self.logical_axes)
        return kernel.astype(self.dtype)


def route(
    logits_BLE: Float[Array, "B L E"], is_token_BL: Bool[Array, "B L"], experts_per_token: int
) -> Routing:
    """The k highest scores (of equal ones the lower expert's first), and their softmax.

    The softmax over the chosen equals that over all, renormalised (Mixtral, arXiv 2401.04088).
    """
    E = logits_BLE.shape[-1]
    # Not `jax.lax.top_k`: the compiler gathers a whole batch of scores on every device for it.
    left_BLE, experts = logits_BLE, []
    for _ in range(experts_per_token):
        experts.append(jnp.argmax(left_BLE, axis=-1))
        left_BLE = jnp.where(jax.nn.one_hot(experts[-1], E, dtype=bool), -jnp.inf, left_BLE)
    expert_BLk = jnp.stack(experts, axis=-1)
    chosen_BLkE = jax.nn.one_hot(expert_BLk, E, dtype=jnp.float32)
    scores_BLk = jnp.sum(chosen_BLkE * logits_BLE[:, :, None, :], axis=-1)
    is_token_BL1 = is_token_BL[..., None]
    gate_BLk = jnp.where(is_token_BL1, jax.nn.softmax(scores_BLk, axis=-1), 0.0)
    return Routing(jnp.where(is_token_BL1, expert_BLk, E), gate_BLk)


def router_losses(
    config: MoEConfig,
    logits_BLE: Float[Array, "B L E"],
    routing: Routing,
    is_token_BL: Bool[Array, "B L"],
) -> dict[str, Float[Array, ""]]:
    """Load balance (Switch, equation 4; k choices count 1/k each) and z-loss (ST-MoE, eq. 5)."""
    k, E = config.experts_per_token, config.num_experts
    num_tokens = jnp.maximum(jnp.sum(is_token_BL), 1).astype(jnp.float32)
    chosen_BLkE = jax.nn.one_hot(routing.expert_BLk, E, dtype=jnp.float32)
    share_E = jnp.sum(chosen_BLkE, axis=(0, 1, 2)) / (k * num_tokens)
    probability_BLE = jnp.where(is_token_BL[..., None], jax.nn.softmax(logits_BLE, axis=-1), 0.0)
    probability_E = jnp.sum(probability_BLE, axis=(0, 1)) / num_tokens
    z_BL = jnp.where(is_token_BL, jnp.square(jax.nn.logsumexp(logits_BLE, axis=-1)), 0.0)
    return {
        "balance": config.balance_loss * E * jnp.sum(share_E * probability_E),
        "router_z": config.router_z_loss * jnp.sum(z_BL) / num_tokens,
    }


def row_capacity(config: MoEConfig, length: int) -> int:
    """Choices of a row of `length` places that an expert has room for."""
    c = config
    room = c.capacity_factor * length * c.experts_per_token / c.num_experts
    # 1.1 · 10 is a little more than 11 in floating point, and must not be 12.
    return min(length, math.ceil(room - 1e-9))


def dispatch_dropless(
    config: MoEConfig,
    constrain: Constrain,
    x_BLD: Float[Array, "B L D"],
    routing: Routing,
    kernels: Kernels,
) -> Float[Array, "B L D"]:
    """Every choice is computed, sorted by expert (MegaBlocks, arXiv 2211.15841)."""

    def compute(
        x_TD: Float[Array, "T D"],
        expert_Tk: Int[Array, "T k"],
        gate_Tk: Float[Array, "T k"],
        kernels: Kernels,
        platform: str,
        manual_axes: tuple[str, ...],
    ) -> Float[Array, "T D"]:
        num_experts = len(kernels.up_EDF)
        block = block_size(expert_Tk.size, config.num_experts, platform)
        groups = group_choices(expert_Tk, num_experts, block)

        def product(rows: jax.Array, kernel: jax.Array) -> jax.Array:
            return grouped_product(
                rows,
                kernel,
                groups.sizes_E,
                block=block,
                platform=platform,
                manual_axes=manual_axes,
            )

        x_SD = rows_to_slots(x_TD, groups)
        h_SF = nn.silu(product(x_SD, kernels.gate_EDF)) * product(x_SD, kernels.up_EDF)
        y_TkD = slots_to_rows(product(h_SF, kernels.down_EFD), groups)
        y_TD = jnp.sum(y_TkD.astype(jnp.float32) * gate_Tk[..., None], axis=1)
        return y_TD.astype(x_TD.dtype)

    return share_experts(compute, constrain, x_BLD, routing.expert_BLk, routing.gate_BLk, kernels)


def dispatch_capacity(
    config: MoEConfig,
    constrain: Constrain,
    x_BLD: Float[Array, "B L D"],
    routing: Routing,
    kernels: Kernels,
) -> Float[Array, "B L D"]:
    """Each expert computes as many choices of a row as it has room for (GShard, Switch).

    Room is given by place, then by the choice's rank. (GShard serves all first choices before any
    second one: then a later token's first choice would push out an earlier one's second, and a
    token's output would depend on what follows it.)
    """
    (B, L, D), E = x_BLD.shape, config.num_experts
    k, S = config.experts_per_token, row_capacity(config, L)
    chosen_BLkE = jax.nn.one_hot(routing.expert_BLk, E, dtype=jnp.int32)
    before_BLkE = jnp.reshape(
        jnp.cumsum(jnp.reshape(chosen_BLkE, (B, L * k, E)), axis=1), (B, L, k, E)
    )
    slot_BLk = jnp.sum(before_BLkE * chosen_BLkE, axis=-1) - 1
    # A slot from S on, and that of no choice, -1, have no one in their row: dropped.
    in_slot_BLkS = jax.nn.one_hot(slot_BLk, S, dtype=jnp.float32)
    chosen_BLkE = chosen_BLkE.astype(jnp.float32)
    send_BLES = jnp.einsum("BLkE,BLkS->BLES", chosen_BLkE, in_slot_BLkS).astype(x_BLD.dtype)
    gate_BLkE = chosen_BLkE * routing.gate_BLk[..., None]
    weights_BLES = jnp.einsum("BLkE,BLkS->BLES", gate_BLkE, in_slot_BLkS).astype(x_BLD.dtype)

    x_BESD = constrain(jnp.einsum("BLES,BLD->BESD", send_BLES, x_BLD), "batch", None, None, None)
    x_BESD = _cut_by_expert(constrain, x_BESD)
    # One axis of rows: XLA's CPU backend is slow where a kernel's gradient contracts two.
    x_ERD = jnp.reshape(jnp.swapaxes(x_BESD, 0, 1), (E, B * S, D))
    h_ERF = nn.silu(x_ERD @ kernels.gate_EDF) * (x_ERD @ kernels.up_EDF)
    y_ERD = h_ERF @ kernels.down_EFD
    y_BESD = jnp.swapaxes(jnp.reshape(y_ERD, (E, B, S, D)), 0, 1)
    y_BESD = constrain(_cut_by_expert(constrain, y_BESD), "batch", None, None, None)
    return jnp.einsum("BLES,BESD->BLD", weights_BLES, y_BESD)


def _cut_by_expert(constrain: Constrain, x_BESD: Float[Array, "B E S D"]) -> jax.Array:
    """Rows cut by the mesh axes of the batch that do not cut the experts, experts by theirs."""
    if constrain.mesh is None:
        return x_BESD
    experts = constrain.rules.axes("experts")
    batch = tuple(axis for axis in constrain.rules.axes("batch") if axis not in experts)
    spec = PartitionSpec(batch or None, experts or None, None, None)
    return jax.lax.with_sharding_constraint(x_BESD, NamedSharding(constrain.mesh, spec))


_DISPATCHES: dict[str, Callable[..., jax.Array]] = {
    "dropless": dispatch_dropless,
    "capacity": dispatch_capacity,
}
