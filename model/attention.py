"""Multi-head attention with grouped keys and values: of a row to itself, and to a memory."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from configs.model_config import LayerNormConfig, ModelConfig, NormConfig
from model.constrain import Constrain
from model.initializers import Init
from model.kernels import (
    Seen,
    attend,
    attention_weights,
    causal_attention,
    heads_first,
    kernel_for,
)
from model.linear import Linear
from model.norms import make_norm
from model.rotary import Rotation, rotate

ATTENTION = "attention"  # the collection that attention weights go to where it is asked for


class LayerCache(NamedTuple):
    """Keys and values of the S slots a layer has room for, in compute dtype.

    Heads come before slots, as attention multiplies them: nothing is transposed at every token.
    """

    key_BKSC: Float[Array, "B K S C"]
    value_BKSC: Float[Array, "B K S C"]


class Visible(NamedTuple):
    """What decides the scores besides queries and keys.

    seen: who sees whom. bias_HLM: added to the scores. rotation: turns queries and keys.
    """

    seen: Seen
    bias_HLM: Float[Array, "H L M"] | None = None
    rotation: Rotation | None = None


class _Projections(nn.Module):
    """Queries, keys and values of H and K heads, and the projection back: D → heads → D.

    rematerialises: scores and softmax are computed again in the backward pass.
    """

    config: ModelConfig
    constrain: Constrain
    rematerialises: bool

    def setup(self):
        a, dtype, init = self.config.attention, jnp.dtype(self.config.compute_dtype), self._init
        D, H, K, C = self.config.emb_dim, a.num_heads, a.num_kv_heads, a.head_dim

        def heads(count: int, axis: str, stddev: float) -> Linear:
            bias_axes = (axis, "head_dim") if a.use_qkv_bias else ()
            axes = ("embed", axis, "head_dim")
            return Linear((D,), (count, C), axes, dtype, stddev, self.constrain, bias_axes)

        self.query = heads(H, "heads", init.stddev("query", D))
        self.key = heads(K, "kv_heads", init.stddev("hidden", D))
        self.value = heads(K, "kv_heads", init.stddev("hidden", D))
        self.out = Linear(
            (H, C),
            (D,),
            ("heads", "head_dim", "embed"),
            dtype,
            init.stddev("residual", H * C),
            self.constrain,
            ("norm",) if a.use_out_bias else (),
        )
        if a.qk_norm:
            norm = _head_norm(self.config.norm)
            self.query_norm = make_norm(norm, dtype, logical_axis="head_dim")
            self.key_norm = make_norm(norm, dtype, logical_axis="head_dim")

    @property
    def _init(self) -> Init:
        return Init(self.config)

    def queries(
        self, x_BLD: Float[Array, "B L D"], angles: Rotation | None
    ) -> Float[Array, "B L H C"]:
        q_BLHC = self.query(x_BLD)
        if self.config.attention.qk_norm:
            q_BLHC = self.query_norm(q_BLHC)
        if angles is not None:
            q_BLHC = rotate(q_BLHC, angles, platform=self.constrain.platform)
        return self.constrain(q_BLHC, "batch", "length", "heads", None)

    def keys_and_values(
        self, x_BMD: Float[Array, "B M D"], angles: Rotation | None
    ) -> tuple[Float[Array, "B M K C"], Float[Array, "B M K C"]]:
        if self.constrain.platform == "tpu":
            k_BMKC, v_BMKC = self.key.and_alike(self.value, x_BMD)
        else:  # a CPU would copy both kernels in every step
            k_BMKC, v_BMKC = self.key(x_BMD), self.value(x_BMD)
        if self.config.attention.qk_norm:
            k_BMKC = self.key_norm(k_BMKC)
        if angles is not None:
            k_BMKC = rotate(k_BMKC, angles, platform=self.constrain.platform)
        k_BMKC = self.constrain(k_BMKC, "batch", "length", "kv_heads", None)
        return k_BMKC, self.constrain(v_BMKC, "batch", "length", "kv_heads", None)

    def attended(
        self,
        q_BLHC: Float[Array, "B L H C"],
        k_BKMC: Float[Array, "B K M C"],
        v_BKMC: Float[Array, "B K M C"],
        seen: Seen,
        bias_HLM: Float[Array, "H L M"] | None = None,
        *,
        reads_cache: bool,
    ) -> Float[Array, "B L H C"]:
        """What the queries take of the values, by the kernel that suits."""
        a = self.config.attention
        self._show(q_BLHC, k_BKMC, seen, bias_HLM)
        kernel = kernel_for(
            "reference" if reads_cache else a.kernel,
            q_BLHC,
            k_BKMC,
            seen,
            softcap=a.logit_softcap,
            has_bias=bias_HLM is not None,
            constrain=self.constrain,
        )
        is_causal_row = seen.spec.causal and seen.places.key_prefix_BM is None and not reads_cache
        if kernel == "reference":
            # Whole along the length, since every query may see any of them; kernels see to it.
            k_BKMC, v_BKMC = (
                self.constrain(x, "batch", "kv_heads", None, None) for x in (k_BKMC, v_BKMC)
            )
        scores = {"scale": a.score_scale, "softcap": a.logit_softcap}

        def out(q_BLHC: jax.Array, k_BKMC: jax.Array, v_BKMC: jax.Array) -> jax.Array:
            if kernel == "reference" and is_causal_row and a.causal_blocks > 1:
                return causal_attention(
                    q_BLHC,
                    k_BKMC,
                    v_BKMC,
                    seen.mask_BLM,
                    num_blocks=a.causal_blocks,
                    bias_HLL=bias_HLM,
                    **scores,
                )
            return attend(
                q_BLHC,
                k_BKMC,
                v_BKMC,
                seen,
                kernel=kernel,
                bias_HLM=bias_HLM,
                constrain=self.constrain,
                **scores,
            )

        return (jax.checkpoint(out) if self.rematerialises else out)(q_BLHC, k_BKMC, v_BKMC)

    def _show(
        self,
        q_BLHC: Float[Array, "B L H C"],
        k_BKMC: Float[Array, "B K M C"],
        seen: Seen,
        bias_HLM: Float[Array, "H L M"] | None,
    ) -> None:
        """Puts the weights, fp32 [B, H, L, M], where a caller asked for them; else does nothing."""
        if self.is_mutable_collection(ATTENTION) and not self.is_initializing():
            a = self.config.attention
            weights_BKGLM = attention_weights(
                q_BLHC,
                k_BKMC,
                seen.mask_BLM,
                scale=a.score_scale,
                softcap=a.logit_softcap,
                bias_HLM=bias_HLM,
            )
            B, K, G, L, M = weights_BKGLM.shape
            self.sow(ATTENTION, "weights", jnp.reshape(weights_BKGLM, (B, K * G, L, M)))

    def joined(self, heads_BLHC: Float[Array, "B L H C"]) -> Float[Array, "B L D"]:
        return self.out(self.constrain(heads_BLHC, "batch", "length", "heads", None))


class Attention(_Projections):
    """Self-attention: projects, turns queries and keys, attends, projects back.

    With a cache, keys and values of the L new tokens are written at slot `write_slot` on, and
    queries attend over all S slots (their segments say which hold something).
    """

    def __call__(
        self,
        x_BLD: Float[Array, "B L D"],
        visible: Visible,
        cache: LayerCache | None = None,
        write_slot: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B L D"], LayerCache | None]:
        q_BLHC = self.queries(x_BLD, visible.rotation)
        k_BMKC, v_BMKC = self.keys_and_values(x_BLD, visible.rotation)
        k_BKMC, v_BKMC = heads_first(k_BMKC), heads_first(v_BMKC)
        reads_cache = cache is not None
        if cache is not None:
            assert write_slot is not None
            k_BKMC = jax.lax.dynamic_update_slice_in_dim(cache.key_BKSC, k_BKMC, write_slot, 2)
            v_BKMC = jax.lax.dynamic_update_slice_in_dim(cache.value_BKSC, v_BKMC, write_slot, 2)
            cache = LayerCache(k_BKMC, v_BKMC)
        out_BLHC = self.attended(
            q_BLHC, k_BKMC, v_BKMC, visible.seen, visible.bias_HLM, reads_cache=reads_cache
        )
        return self.joined(out_BLHC), cache


class CrossAttention(_Projections):
    """Queries from the decoder, keys and values from the encoder's memory; no positions.

    Without the memory itself, keys and values come from the cache that an earlier call returned.
    """

    def __call__(
        self,
        x_BLD: Float[Array, "B L D"],
        memory_BMD: Float[Array, "B M D"] | None,
        seen: Seen,
        cache: LayerCache | None = None,
    ) -> tuple[Float[Array, "B L D"], LayerCache]:
        reads_cache = memory_BMD is None
        if memory_BMD is None:
            assert cache is not None
        else:
            cache = LayerCache(*map(heads_first, self.keys_and_values(memory_BMD, None)))
        q_BLHC = self.queries(x_BLD, None)
        out_BLHC = self.attended(
            q_BLHC, cache.key_BKSC, cache.value_BKSC, seen, reads_cache=reads_cache
        )
        return self.joined(out_BLHC), cache


def _head_norm(config: NormConfig) -> NormConfig:
    """The model's norm, over a head; a layer norm without its bias."""
    if isinstance(config, LayerNormConfig):
        return LayerNormConfig(epsilon=config.epsilon, use_bias=False)
    return config
