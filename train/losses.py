"""Weighted cross-entropy, the one loss of every objective; over a vocabulary without its logits.

Legend, besides the room's: T tokens of one device, c tokens of a chunk, v entries of the vocabulary
on one device.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from configs.sharding import MeshAxes
from model.constrain import Constrain
from model.head import Readout

# Logits of a chunk take so many bytes at most (in fp32): enough tokens for full speed, and little
# beside what a layer keeps.
_CHUNK_BYTES = {"cpu": 8 * 2**20, "gpu": 512 * 2**20, "tpu": 256 * 2**20}


class LossSums(NamedTuple):
    """Sums over the tokens of a batch, fp32 scalars; divide by `weight` for means.

    auxiliary: what the model adds to the loss itself (a mixture's balance), times the weight.

    Sums, not means, so that microbatches and hosts with different numbers of trained-on tokens
    add up to exactly the loss of the whole batch.
    """

    cross_entropy: Float[Array, ""]
    z_loss: Float[Array, ""]
    weight: Float[Array, ""]
    auxiliary: Float[Array, ""]

    @classmethod
    def zeros(cls) -> "LossSums":
        """Sums over nothing."""
        return cls(*(jnp.zeros(()) for _ in cls._fields))


class Scored(NamedTuple):
    """A batch's loss, and whether each target is the likeliest token, bool [B, L]."""

    sums: LossSums
    is_correct_BL: Bool[Array, "B L"]


def cross_entropy_sums(
    logits_BLV: Float[Array, "B L V"],
    targets_BL: Int[Array, "B L"],
    weights_BL: Float[Array, "B L"],
) -> LossSums:
    """Sums of weight · (−log p(target)) in nats and of weight · logsumexp²; auxiliary is 0.

    The second is the z-loss, which keeps the normaliser near one (PaLM, arXiv 2204.02311,
    section 5); the caller scales it.

    Args:
      logits_BLV: fp32.
      weights_BL: 0 for tokens not trained on.
    """
    log_normaliser_BL = jax.nn.logsumexp(logits_BLV, axis=-1)
    # A comparison instead of a gather: it fuses, and its gradient is no scatter.
    is_target_BLV = jnp.arange(logits_BLV.shape[-1])[None, None, :] == targets_BL[:, :, None]
    target_logit_BL = jnp.sum(jnp.where(is_target_BLV, logits_BLV, 0.0), axis=-1)
    nats_BL = log_normaliser_BL - target_logit_BL
    return LossSums(
        cross_entropy=jnp.sum(nats_BL * weights_BL),
        z_loss=jnp.sum(jnp.square(log_normaliser_BL) * weights_BL),
        weight=jnp.sum(weights_BL),
        auxiliary=jnp.zeros(()),
    )


def chunked_cross_entropy(
    readout: Readout,
    targets_BL: Int[Array, "B L"],
    weights_BL: Float[Array, "B L"],
    *,
    z_loss: float,
    constrain: Constrain,
    chunk_tokens: int = 0,
) -> tuple[Float[Array, ""], LossSums]:
    """`cross_entropy_sums` of a head's logits, of which only a chunk of tokens exists at a time.

    Each device takes its tokens chunk by chunk and computes the gradients of features and kernel in
    the same pass: three products, as with whole logits, none repeated. Cut over a mesh, the kernel
    is gathered along the model width once, its gradient summed over devices once, after the last
    chunk; a cut vocabulary exchanges one number a token.

    Args:
      z_loss: its factor in the first result.
      chunk_tokens: tokens of one device in a chunk; 0: as many as suit the platform.

    Returns:
      cross_entropy + z_loss · z_loss sum, the only result that carries a gradient; all sums.
    """
    plan = _Plan.of(readout, constrain, z_loss, chunk_tokens)
    result: Any = _total(plan, readout[:3], targets_BL, weights_BL)
    total, sums = result
    return total, jax.lax.stop_gradient(sums)


def score_readout(
    readout: Readout,
    targets_BL: Int[Array, "B L"],
    weights_BL: Float[Array, "B L"],
    *,
    constrain: Constrain,
    chunk_tokens: int = 0,
) -> Scored:
    """Sums and which targets are the likeliest tokens (the first, of several), chunk by chunk."""
    plan = _Plan.of(readout, constrain, 0.0, chunk_tokens)
    sums, is_correct_BL = plan.on_devices(_score_tokens, "sums", "tokens")(
        *readout[:3], targets_BL, weights_BL
    )
    return Scored(sums, is_correct_BL)


class _Plan(NamedTuple):
    """How the work is cut: static, so that it can be told to `custom_vjp`."""

    constrain: Constrain
    batch: MeshAxes
    length: MeshAxes
    embed: MeshAxes
    vocab: MeshAxes
    softcap: float
    z_loss: float
    chunk_tokens: int

    @classmethod
    def of(
        cls, readout: Readout, constrain: Constrain, z_loss: float, chunk_tokens: int
    ) -> "_Plan":
        batch, length, _ = constrain.cut_by(
            ("batch", "length", "activation_embed"), readout.features_BLD.shape
        )
        embed, vocab = constrain.cut_by(("embed", "vocab"), readout.kernel_DV.shape)
        V = readout.kernel_DV.shape[1] // constrain.num_devices(vocab)
        if not chunk_tokens:
            chunk_tokens = max(128, _CHUNK_BYTES[constrain.platform] // (4 * V) // 128 * 128)
        return cls(constrain, batch, length, embed, vocab, readout.softcap, z_loss, chunk_tokens)

    @property
    def tokens(self) -> MeshAxes:
        return self.batch + self.length

    def on_devices(self, function: Callable[..., Any], *outputs: str) -> Callable[..., Any]:
        """`function` of this plan and one device's pieces, on every device."""
        if not (self.tokens or self.embed or self.vocab):
            return partial(function, self)
        axes = {
            "sums": PartitionSpec(),
            "tokens": PartitionSpec(self.batch or None, self.length or None),
            "features": PartitionSpec(self.batch or None, self.length or None, None),
            "kernel": PartitionSpec(self.embed or None, self.vocab or None),
            "bias": PartitionSpec(self.vocab or None),
        }
        inputs = ("features", "kernel", "bias", "tokens", "tokens")
        return jax.shard_map(
            partial(function, self),
            mesh=self.constrain.mesh,
            in_specs=tuple(axes[name] for name in inputs),
            out_specs=tuple(axes[name] for name in outputs),
            check_vma=False,  # nothing inside is differentiated, and what is summed is said
        )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _total(plan: _Plan, parts: Any, targets_BL: Any, weights_BL: Any) -> Any:
    sums = plan.on_devices(_sum_tokens, "sums")(*parts, targets_BL, weights_BL)[0]
    return sums.cross_entropy + plan.z_loss * sums.z_loss, sums


def _total_and_gradients(plan: _Plan, parts: Any, targets_BL: Any, weights_BL: Any) -> Any:
    step = plan.on_devices(_sum_and_differentiate, "sums", "features", "kernel", "bias")
    sums, *gradients = step(*parts, targets_BL, weights_BL)
    return (sums.cross_entropy + plan.z_loss * sums.z_loss, sums), tuple(gradients)


def _times_cotangent(plan: _Plan, gradients: Any, cotangents: Any) -> Any:
    del plan
    scale = cotangents[0]
    scaled = jax.tree.map(lambda g: (g * scale).astype(g.dtype), gradients)
    return scaled, None, None


_total.defvjp(_total_and_gradients, _times_cotangent)


class _Chunk(NamedTuple):
    """A chunk of one device: fp32 logits of v entries, and what they say of its tokens."""

    logits_cv: Float[Array, "c v"]
    is_target_cv: Bool[Array, "c v"]
    log_normaliser_c: Float[Array, " c"]
    target_logit_c: Float[Array, " c"]

    def sums(self, weights_c: jax.Array) -> LossSums:
        nats_c = self.log_normaliser_c - self.target_logit_c
        return LossSums(
            cross_entropy=jnp.sum(nats_c * weights_c),
            z_loss=jnp.sum(jnp.square(self.log_normaliser_c) * weights_c),
            weight=jnp.sum(weights_c),
            auxiliary=jnp.zeros(()),
        )


def _sum_tokens(plan, features_BLD, kernel_DV, bias_V, targets_BL, weights_BL):
    """Sums over all tokens, the same on every device."""
    kernel_Dv = _gather(kernel_DV, plan.embed)

    def add(sums: LossSums, chunk: Any) -> tuple[LossSums, None]:
        features_cD, targets_c, weights_c = chunk
        of_chunk = _chunk(plan, features_cD, kernel_Dv, bias_V, targets_c)
        return jax.tree.map(jnp.add, sums, of_chunk.sums(weights_c)), None

    chunks = _cut(plan, features_BLD, targets_BL, weights_BL)
    sums, _ = jax.lax.scan(add, LossSums.zeros(), chunks)
    return (_sum_over(sums, plan.tokens),)


def _score_tokens(plan, features_BLD, kernel_DV, bias_V, targets_BL, weights_BL):
    """`_sum_tokens`, and for each token whether its target has the highest logit."""
    kernel_Dv = _gather(kernel_DV, plan.embed)

    def add(sums: LossSums, chunk: Any) -> tuple[LossSums, jax.Array]:
        features_cD, targets_c, weights_c = chunk
        of_chunk = _chunk(plan, features_cD, kernel_Dv, bias_V, targets_c)
        is_correct_c = _likeliest(plan, of_chunk.logits_cv) == targets_c
        return jax.tree.map(jnp.add, sums, of_chunk.sums(weights_c)), is_correct_c

    chunks = _cut(plan, features_BLD, targets_BL, weights_BL)
    sums, is_correct = jax.lax.scan(add, LossSums.zeros(), chunks)
    is_correct_BL = jnp.reshape(jnp.ravel(is_correct)[: targets_BL.size], targets_BL.shape)
    return _sum_over(sums, plan.tokens), is_correct_BL


def _sum_and_differentiate(plan, features_BLD, kernel_DV, bias_V, targets_BL, weights_BL):
    """`_sum_tokens`, and the gradients of cross_entropy + z_loss · z_loss, in one pass."""
    kernel_Dv = _gather(kernel_DV, plan.embed)
    dtype, tokens = kernel_Dv.dtype, targets_BL.size
    keeps = _keeps_gradients(tokens, kernel_Dv)

    def add(carry: Any, chunk: Any) -> tuple[Any, tuple[jax.Array, jax.Array | None]]:
        sums, kernel_grad_Dv, bias_grad_v = carry
        features_cD, targets_c, weights_c = chunk
        of = _chunk(plan, features_cD, kernel_Dv, bias_V, targets_c)
        # d(nats)/d(logit) = p − [target], d(logsumexp²)/d(logit) = 2 · logsumexp · p.
        scale_c = weights_c * (1.0 + 2.0 * plan.z_loss * of.log_normaliser_c)
        p_cv = jnp.exp(of.logits_cv - of.log_normaliser_c[:, None])
        grad_cv = p_cv * scale_c[:, None] - jnp.where(of.is_target_cv, weights_c[:, None], 0.0)
        if plan.softcap:
            grad_cv = grad_cv * (1.0 - jnp.square(of.logits_cv / plan.softcap))
        if bias_V is not None:
            bias_grad_v = bias_grad_v + jnp.sum(grad_cv, axis=0)
        grad_cv = grad_cv.astype(dtype)
        features_grad_cD = jnp.dot(grad_cv, kernel_Dv.T, preferred_element_type=jnp.float32)
        if not keeps:
            kernel_grad_Dv = kernel_grad_Dv + _transposed_product(features_cD, grad_cv)
        features_grad_cD = _sum_over(features_grad_cD.astype(dtype), plan.vocab)
        sums = jax.tree.map(jnp.add, sums, of.sums(weights_c))
        return (sums, kernel_grad_Dv, bias_grad_v), (features_grad_cD, grad_cv if keeps else None)

    start = (
        LossSums.zeros(),
        None if keeps else jnp.zeros(kernel_Dv.shape, jnp.float32),
        None if bias_V is None else jnp.zeros_like(bias_V),
    )
    chunks = _cut(plan, features_BLD, targets_BL, weights_BL)
    (sums, kernel_grad_Dv, bias_grad_v), (features_grad, grads) = jax.lax.scan(add, start, chunks)
    if keeps:
        assert grads is not None
        features_TD, grad_Tv = (jnp.reshape(x, (-1, x.shape[-1])) for x in (chunks[0], grads))
        kernel_grad_Dv = _transposed_product(features_TD, grad_Tv)
    features_grad_TD = jnp.reshape(features_grad, (-1, features_grad.shape[-1]))
    features_grad_BLD = jnp.reshape(features_grad_TD[:tokens], features_BLD.shape)
    # Together, or the compiler puts the kernel's gradient off until the optimizer reads it, and
    # keeps what it is made of all through the layers' backward pass.
    features_grad_BLD, kernel_grad_DV = jax.lax.optimization_barrier(
        (features_grad_BLD, _sum_and_cut(plan, kernel_grad_Dv.astype(dtype)))
    )
    return (
        _sum_over(sums, plan.tokens),
        features_grad_BLD,
        kernel_grad_DV,
        _sum_over(bias_grad_v, plan.tokens),
    )


def _keeps_gradients(tokens: int, kernel_Dv: jax.Array) -> bool:
    """Whether the logits' gradients, 16 bits each, take no more room than a sum in fp32 would.

    Kept, they are multiplied with the features at once; a sum is read and written with each chunk.
    """
    return kernel_Dv.dtype.itemsize == 2 and 2 * tokens <= 4 * len(kernel_Dv)


def _transposed_product(
    features_cD: Float[Array, "c D"], grad_cv: Float[Array, "c v"]
) -> Float[Array, "D v"]:
    return jnp.dot(features_cD.T, grad_cv, preferred_element_type=jnp.float32)


def _chunk(
    plan: _Plan,
    features_cD: Float[Array, "c D"],
    kernel_Dv: Float[Array, "D v"],
    bias_v: Float[Array, " v"] | None,
    targets_c: Int[Array, " c"],
) -> _Chunk:
    logits_cv = jnp.dot(features_cD, kernel_Dv, preferred_element_type=jnp.float32)
    if bias_v is not None:
        logits_cv = logits_cv + bias_v[None, :]
    if plan.softcap:
        logits_cv = plan.softcap * jnp.tanh(logits_cv / plan.softcap)
    v = logits_cv.shape[-1]
    is_target_cv = (_first_entry(plan, v) + jnp.arange(v))[None, :] == targets_c[:, None]
    highest_c = jnp.max(logits_cv, axis=-1)
    if plan.vocab:
        highest_c = jax.lax.pmax(highest_c, plan.vocab)
    total_c = _sum_over(jnp.sum(jnp.exp(logits_cv - highest_c[:, None]), axis=-1), plan.vocab)
    target_c = _sum_over(jnp.sum(jnp.where(is_target_cv, logits_cv, 0.0), axis=-1), plan.vocab)
    return _Chunk(logits_cv, is_target_cv, highest_c + jnp.log(total_c), target_c)


def _likeliest(plan: _Plan, logits_cv: Float[Array, "c v"]) -> Int[Array, " c"]:
    """The token with the highest logit of all devices' entries, the first of several."""
    token_c = _first_entry(plan, logits_cv.shape[-1]) + jnp.argmax(logits_cv, axis=-1)
    if not plan.vocab:
        return token_c
    highest_c = jnp.max(logits_cv, axis=-1)
    is_highest_c = highest_c == jax.lax.pmax(highest_c, plan.vocab)
    return jax.lax.pmin(jnp.where(is_highest_c, token_c, jnp.iinfo(jnp.int32).max), plan.vocab)


def _first_entry(plan: _Plan, v: int) -> Any:
    return v * jax.lax.axis_index(plan.vocab) if plan.vocab else 0


def _cut(plan: _Plan, features_BLD: jax.Array, *per_token: jax.Array) -> tuple[jax.Array, ...]:
    """Features and what there is per token in chunks of one size; missing tokens weigh nothing."""
    T = math.prod(features_BLD.shape[:2])
    num_chunks = -(-T // plan.chunk_tokens)
    size = -(-T // num_chunks)

    def cut(x: jax.Array, rest: tuple[int, ...]) -> jax.Array:
        x = jnp.reshape(x, (T, *rest))
        if num_chunks * size > T:
            x = jnp.pad(x, [(0, num_chunks * size - T)] + [(0, 0)] * len(rest))
        return jnp.reshape(x, (num_chunks, size, *rest))

    return cut(features_BLD, features_BLD.shape[2:]), *(cut(x, ()) for x in per_token)


def _gather(kernel_DV: jax.Array, axes: MeshAxes) -> jax.Array:
    return jax.lax.all_gather(kernel_DV, axes, axis=0, tiled=True) if axes else kernel_DV


def _sum_and_cut(plan: _Plan, gradient_Dv: jax.Array) -> jax.Array:
    """The sum over devices with different tokens, cut like the kernel."""
    whole = tuple(axis for axis in plan.tokens if axis not in plan.embed)
    if plan.embed:
        gradient_Dv = jax.lax.psum_scatter(gradient_Dv, plan.embed, scatter_dimension=0, tiled=True)
        # Devices along an axis that cuts the kernel but no tokens have all added the same.
        alike = tuple(axis for axis in plan.embed if axis not in plan.tokens)
        gradient_Dv = gradient_Dv / math.prod(jax.lax.axis_size(axis) for axis in alike)
    return _sum_over(gradient_Dv, whole)


def _sum_over(tree: Any, axes: MeshAxes) -> Any:
    return jax.tree.map(lambda x: jax.lax.psum(x, axes), tree) if axes else tree
