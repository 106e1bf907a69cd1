"""From a config to a module, its parameters' shapes and how they are cut over a mesh."""

from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int

from configs.model_config import ModelConfig
from configs.sharding import ShardingRules
from model.constrain import UNCONSTRAINED, Constrain, named_sharding
from model.decoder_only import Cache, DecoderOnly

Params = dict[str, Any]

ARCHITECTURES = {"decoder_only": DecoderOnly}


def build_model(config: ModelConfig, constrain: Constrain = UNCONSTRAINED) -> DecoderOnly:
    """The module a config describes."""
    return ARCHITECTURES[config.architecture](config, constrain)


def forward(
    model: DecoderOnly,
    params: Params,
    tokens_BL: Int[Array, "B L"],
    *,
    positions: Int[Array, "B L"],
    segment_ids: Int[Array, "B L"],
) -> Float[Array, "B L V"]:
    """Logits of packed rows: `DecoderOnly.__call__` on plain parameters."""
    variables = {"params": params}
    logits_BLV = model.apply(variables, tokens_BL, positions=positions, segment_ids=segment_ids)
    return cast(jax.Array, logits_BLV)


def extend(
    model: DecoderOnly,
    params: Params,
    tokens_BL: Int[Array, "B L"],
    cache: Cache,
    *,
    positions: Int[Array, "B L"],
    segment_ids: Int[Array, "B L"],
) -> tuple[Float[Array, "B L V"], Cache]:
    """Logits of further tokens, and the longer cache: `DecoderOnly.extend`."""
    extended = model.apply(
        {"params": params},
        tokens_BL,
        cache,
        positions=positions,
        segment_ids=segment_ids,
        method=DecoderOnly.extend,
    )
    return cast(tuple[jax.Array, Cache], extended)


def init_params(model: DecoderOnly, key: jax.Array) -> Params:
    """Fresh fp32 parameters, a plain nested dict. Jit it with `out_shardings` for large models."""
    return nn.meta.unbox(_init_boxed(model, key))


def abstract_params(config: ModelConfig) -> Params:
    """Shape and dtype of every parameter, without computing any."""
    return nn.meta.unbox(_abstract_boxed(config))


def param_shardings(config: ModelConfig, mesh: Mesh, rules: ShardingRules) -> Params:
    """Sharding of every parameter: its logical axes through the strict resolver.

    Raises:
      InputError: what `configs.sharding.resolve` refuses.
    """

    def shard(box: nn.LogicallyPartitioned) -> NamedSharding:
        return named_sharding(mesh, rules, box.names, box.value.shape)

    return jax.tree.map(
        shard, _abstract_boxed(config), is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
    )


def count_params(params: Params) -> int:
    """Number of scalars in a tree of arrays (or of their shapes)."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def count_matmul_params(params: Params) -> int:
    """Scalars that matrix products use: all but norm scales and an untied look-up table."""
    counts = {
        path: leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1].key != "scale"
    }
    if "head" in params:
        counts = {path: n for path, n in counts.items() if path[0].key != "token_embedding"}
    return sum(counts.values())


def _init_boxed(model: DecoderOnly, key: jax.Array) -> Params:
    row_11 = jnp.zeros((1, 1), jnp.int32)
    # Sizes of one row are enough to create parameters, but they do not divide over a mesh.
    plain = model.clone(constrain=UNCONSTRAINED)
    variables = plain.init(key, row_11, positions=row_11, segment_ids=row_11)
    return dict(variables["params"])


def _abstract_boxed(config: ModelConfig) -> Params:
    return jax.eval_shape(partial(_init_boxed, build_model(config)), jax.random.key(0))
