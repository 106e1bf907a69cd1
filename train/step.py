"""One optimizer step, and one evaluation step: pure functions under `jax.jit`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from configs.schema import RunConfig
from data.batches import Batch
from model.build import Model, Params, build_model, forward_readout, forward_with_losses
from model.constrain import Constrain, named_sharding
from train.guard import after_step, judge, update_if
from train.losses import (
    LossSums,
    Scored,
    chunked_cross_entropy,
    cross_entropy_sums,
    score_readout,
)
from train.schedules import make_schedule
from train.state import TrainState, abstract_state, run_optimizer


class StepMetrics(NamedTuple):
    """fp32 scalars of one step, still on the device until they are read.

    loss: mean cross-entropy in nats. z_loss: mean squared log-normaliser, not scaled yet.
    auxiliary_loss: what the model adds to the loss itself, scaled. applied: 1 where the update was
    applied; 0 where it was refused, because a loss or the gradient is not finite or, is_spike 1,
    because the loss is a spike.
    """

    loss: Float[Array, ""]
    z_loss: Float[Array, ""]
    auxiliary_loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    trained_tokens: Float[Array, ""]
    applied: Float[Array, ""]
    is_spike: Float[Array, ""]


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]


def batch_sharding(config: RunConfig, mesh: Mesh) -> NamedSharding:
    """How a [B, L] array of a batch is cut over the mesh."""
    shape = (config.training.batch_size, config.data.seq_len)
    return named_sharding(mesh, config.mesh.rules, ("batch", "length"), shape)


class Loss(NamedTuple):
    """What is differentiated, an fp32 scalar, and the sums it is made of."""

    total: Float[Array, ""]
    sums: LossSums


def make_loss(config: RunConfig, mesh: Mesh) -> Callable[[Params, Batch], Loss]:
    """Parameters and a batch to its loss, summed over tokens. No dropout, no keys."""
    model, constrain, z_loss = *_model(config, mesh), config.training.z_loss

    def loss(params: Params, batch: Batch) -> Loss:
        targets, weights = jnp.asarray(batch.targets), jnp.asarray(batch.loss_weights)
        if config.model.has_vocab_head:
            readout, auxiliary = forward_readout(model, params, **_inputs(batch))
            total, sums = chunked_cross_entropy(
                readout, targets, weights, z_loss=z_loss, constrain=constrain
            )
        else:
            logits_BLG, auxiliary = forward_with_losses(model, params, **_inputs(batch))
            sums = cross_entropy_sums(logits_BLG, targets, weights)
            total = sums.cross_entropy + z_loss * sums.z_loss
        added = sums.weight * sum(auxiliary.values(), start=jnp.zeros(()))
        return Loss(total + added, sums._replace(auxiliary=added))

    return loss


def _model(config: RunConfig, mesh: Mesh) -> tuple[Model, Constrain]:
    constrain = Constrain(mesh, config.mesh.rules)
    return build_model(config.model, constrain), constrain


def _inputs(batch: Batch) -> dict[str, Any]:
    """What a model takes of a batch."""
    return {
        "tokens_BL": batch.inputs,
        "positions": batch.positions,
        "segment_ids": batch.segment_ids,
        "prefix": batch.prefix,
        "encoder_tokens": batch.encoder_inputs,
        "encoder_positions": batch.encoder_positions,
        "encoder_segment_ids": batch.encoder_segment_ids,
    }


def make_gradients(
    config: RunConfig, mesh: Mesh
) -> Callable[[Params, Batch], tuple[Params, LossSums]]:
    """Gradients of the mean loss over a batch, accumulated over its microbatches.

    Sums are accumulated and divided by the whole batch's weight at the end, so the result does
    not depend on how the batch was cut, up to the order of floating-point additions.
    """
    constrain = Constrain(mesh, config.mesh.rules)
    gradient_of_sum = jax.grad(make_loss(config, mesh), has_aux=True)

    def gradients(params: Params, batch: Batch) -> tuple[Params, LossSums]:
        batch = jax.tree.map(jnp.asarray, batch)
        num_microbatches = config.training.microbatches_of(len(batch.inputs))
        if num_microbatches == 1:
            gradient, sums = gradient_of_sum(params, batch)
        else:

            def add_microbatch(carry: Any, micro: Batch) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, carry, gradient_of_sum(params, micro)), None

            def cut(x_BL: jax.Array) -> jax.Array:
                # Microbatch m takes rows m, m + M, …: each device keeps the rows it already has.
                rows = x_BL.shape[0] // num_microbatches
                x_bML = jnp.reshape(x_BL, (rows, num_microbatches, *x_BL.shape[1:]))
                return constrain(jnp.swapaxes(x_bML, 0, 1), None, "batch", "length")

            zeros = (
                jax.tree.map(jnp.zeros_like, params),
                LossSums.zeros(),
            )
            (gradient, sums), _ = jax.lax.scan(add_microbatch, zeros, jax.tree.map(cut, batch))
        weight = jnp.maximum(sums.weight, 1.0)
        return jax.tree.map(lambda g: g / weight, gradient), sums

    return gradients


def make_train_step(config: RunConfig, mesh: Mesh) -> jax.stages.Wrapped:
    """The jitted train step (state, batch) -> (state, StepMetrics); the state is donated.

    An update that `train.guard` refuses leaves parameters, moments and guard as they were; the step
    is counted, so that the next one is another batch's.
    """
    gradients = make_gradients(config, mesh)
    platform = Constrain(mesh, config.mesh.rules).platform
    num_steps = config.training.num_steps
    optimizer = run_optimizer(config)
    schedule = make_schedule(config.optimizer.schedule, config.optimizer.learning_rate, num_steps)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        with jax.named_scope("gradients"):
            gradient, sums = gradients(state.params, batch)
        weight = jnp.maximum(sums.weight, 1.0)
        loss, z_loss, auxiliary = (
            total / weight for total in (sums.cross_entropy, sums.z_loss, sums.auxiliary)
        )
        grad_norm = optax.tree.norm(gradient)
        applied, is_spike = judge(config.guard, state.guard, loss, z_loss, auxiliary, grad_norm)

        def update(params: Any, opt_state: Any) -> tuple[Any, Any]:
            updates, opt_state = optimizer.update(gradient, opt_state, params, grad_norm=grad_norm)
            return optax.apply_updates(params, updates), opt_state

        with jax.named_scope("optimizer"):
            params, opt_state = update_if(
                applied, update, state.params, state.opt_state, platform=platform
            )
        metrics = StepMetrics(
            loss=loss,
            z_loss=z_loss,
            auxiliary_loss=auxiliary,
            grad_norm=grad_norm,
            learning_rate=jnp.asarray(schedule(state.step), jnp.float32),
            trained_tokens=sums.weight,
            applied=applied.astype(jnp.float32),
            is_spike=is_spike.astype(jnp.float32),
        )
        guard = after_step(state.guard, loss, applied)
        return TrainState(state.step + 1, params, opt_state, guard), metrics

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    return jax.jit(
        train_step,
        in_shardings=(shardings, batch_sharding(config, mesh)),
        out_shardings=(shardings, None),
        donate_argnums=0,
    )


def make_eval_step(config: RunConfig, mesh: Mesh) -> jax.stages.Wrapped:
    """The jitted evaluation step (params, batch) -> Scored, the same on every device."""
    model, constrain = _model(config, mesh)

    def score(params: Params, batch: Batch) -> Scored:
        targets, weights = jnp.asarray(batch.targets), jnp.asarray(batch.loss_weights)
        if config.model.has_vocab_head:
            readout, _ = forward_readout(model, params, **_inputs(batch))
            return score_readout(readout, targets, weights, constrain=constrain)
        logits_BLG, _ = forward_with_losses(model, params, **_inputs(batch))
        sums = cross_entropy_sums(logits_BLG, targets, weights)
        return Scored(sums, jnp.argmax(logits_BLG, axis=-1) == targets)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh).params)
    return jax.jit(
        score,
        in_shardings=(shardings, batch_sharding(config, mesh)),
        out_shardings=NamedSharding(mesh, PartitionSpec()),
    )
