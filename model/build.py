"""From a config to a module, its parameters' shapes and how they are cut over a mesh."""

from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int

from configs.mlp_config import MoEConfig
from configs.model_config import ModelConfig, T5InitConfig
from configs.sharding import ShardingRules
from model.attention import ATTENTION
from model.cache import Cache
from model.constrain import UNCONSTRAINED, Constrain, named_sharding
from model.decoder_only import DecoderOnly
from model.encoder_decoder import EncoderDecoder
from model.encoder_only import EncoderOnly
from model.head import Readout
from model.initializers import width_multiplier
from model.mlp import Losses

Params = dict[str, Any]
Model = DecoderOnly | EncoderOnly | EncoderDecoder

ARCHITECTURES: dict[str, type[Model]] = {
    "decoder_only": DecoderOnly,
    "encoder_only": EncoderOnly,
    "encoder_decoder": EncoderDecoder,
}


def build_model(
    config: ModelConfig, constrain: Constrain = UNCONSTRAINED, *, stacked: bool = True
) -> Model:
    """The module a config describes; not stacked, it takes what `unstack_layers` gives."""
    return ARCHITECTURES[config.architecture](config, constrain, stacked)


@jax.jit
def unstack_layers(params: Params) -> Params:
    """Parameters with a tree for each layer: {"layers": {…[N, …]}} becomes layers_0, layers_1, …

    Generation reads them so. Arrays are copied.
    """
    unstacked: Params = {}
    for stack, tree in params.items():
        unstacked[stack] = {name: leaf for name, leaf in tree.items() if name != "layers"}
        if "layers" in tree:
            layers = tree["layers"]
            for layer in range(len(jax.tree.leaves(layers)[0])):
                unstacked[stack][f"layers_{layer}"] = jax.tree.map(
                    lambda leaf, layer=layer: leaf[layer], layers
                )
    return unstacked


def forward_with_losses(
    model: Model, params: Params, tokens_BL: Int[Array, "B L"], **fields: jax.Array | None
) -> tuple[Float[Array, "B L V"], Losses]:
    """Logits of packed rows, and auxiliary losses by name: the model on plain parameters.

    Args:
      fields: what the architecture's `__call__` takes; those that are None are left out.

    Returns:
      fp32 logits; fp32 scalars, weighted already, means over the rows' tokens ({} without any).
    """
    given: dict[str, Any] = {name: field for name, field in fields.items() if field is not None}
    return cast(tuple[jax.Array, Losses], model.apply({"params": params}, tokens_BL, **given))


def forward_readout(
    model: Model, params: Params, tokens_BL: Int[Array, "B L"], **fields: jax.Array | None
) -> tuple[Readout, Losses]:
    """`forward_with_losses` up to the head, of a model whose logits are over the vocabulary."""
    given: dict[str, Any] = {name: field for name, field in fields.items() if field is not None}
    method = type(model).readout
    applied = model.apply({"params": params}, tokens_BL, **given, method=method)
    return cast(tuple[Readout, Losses], applied)


def forward(
    model: Model, params: Params, tokens_BL: Int[Array, "B L"], **fields: jax.Array | None
) -> Float[Array, "B L V"]:
    """Logits of packed rows: `forward_with_losses` without the losses."""
    return forward_with_losses(model, params, tokens_BL, **fields)[0]


def forward_with_attention(
    model: Model, params: Params, tokens_BL: Int[Array, "B L"], **fields: jax.Array | None
) -> tuple[Float[Array, "B L V"], dict[str, dict[str, Float[Array, "_ B H _ _"]]]]:
    """Logits, and the attention weights of every layer.

    Args:
      model: a stacked one.
      fields: as `forward_with_losses`.

    Returns:
      fp32 logits; for each stack ("encoder", "decoder") its weights by kind, "self" and, where it
      reads a memory, "cross": fp32, every query's adding up to 1 over the keys (evenly over all of
      them where a query of padding may see none).
    """
    given: dict[str, Any] = {name: field for name, field in fields.items() if field is not None}
    applied: Any = model.apply({"params": params}, tokens_BL, **given, mutable=[ATTENTION])
    (logits_BLV, _), shown = applied
    kinds = {"self": "attention", "cross": "cross_attention"}
    weights = {
        stack: {
            kind: layers["layers"][name]["weights"][0]
            for kind, name in kinds.items()
            if name in layers["layers"]
        }
        for stack, layers in shown[ATTENTION].items()
    }
    return logits_BLV, weights


def start(
    model: EncoderDecoder,
    params: Params,
    tokens_BL: Int[Array, "B L"],
    cache: Cache,
    *,
    num_logits: int | None = None,
    **fields: jax.Array,
) -> tuple[Float[Array, "B l V"], Cache]:
    """Encodes and reads a decoder's first tokens: `EncoderDecoder.start`."""
    given: dict[str, Any] = {"num_logits": num_logits, **fields}
    started = model.apply(
        {"params": params}, tokens_BL, cache, **given, method=EncoderDecoder.start
    )
    return cast(tuple[jax.Array, Cache], started)


def extend(
    model: DecoderOnly | EncoderDecoder,
    params: Params,
    tokens_BL: Int[Array, "B L"],
    cache: Cache,
    *,
    positions: Int[Array, "B L"],
    segment_ids: Int[Array, "B L"],
    prefix: Int[Array, "B L"] | None = None,
    num_logits: int | None = None,
) -> tuple[Float[Array, "B l V"], Cache]:
    """Logits of further tokens, and the longer cache: the decoder's `extend`.

    Args:
      prefix: for a decoder-only model; None where no token sees a later one.
      num_logits: only those of the last l places; None: of all.
    """
    fields: dict[str, Any] = {"positions": positions, "segment_ids": segment_ids}
    fields["num_logits"] = num_logits
    if prefix is not None:
        fields["prefix"] = prefix
    extended = model.apply(
        {"params": params}, tokens_BL, cache, **fields, method=type(model).extend
    )
    return cast(tuple[jax.Array, Cache], extended)


def init_params(model: Model, key: jax.Array) -> Params:
    """Fresh fp32 parameters, a plain nested dict. Jit it with `out_shardings` for large models."""
    return nn.meta.unbox(_init_boxed(model, key))


def abstract_params(config: ModelConfig) -> Params:
    """Shape and dtype of every parameter, without computing any."""
    return nn.meta.unbox(_abstract_boxed(config))


def param_shardings(
    config: ModelConfig, mesh: Mesh, rules: ShardingRules, *, stacked: bool = True
) -> Params:
    """Sharding of every parameter: its logical axes through the strict resolver.

    Raises:
      InputError: what `configs.sharding.resolve` refuses.
    """

    def shard(box: nn.LogicallyPartitioned) -> NamedSharding:
        return named_sharding(mesh, rules, box.names, box.value.shape)

    return jax.tree.map(
        shard,
        _abstract_boxed(config, stacked=stacked),
        is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned),
    )


def rate_multipliers(config: ModelConfig) -> Params | None:
    """muP's factor on Adam's learning rate for each parameter; None where all are 1.

    1/m for hidden kernels, whose fan-in grows with the width (Yang et al. 2022, table 8).
    """
    m = width_multiplier(config)
    if m == 1.0:
        return None

    def multiplier(path: tuple[Any, ...], _: Any) -> float:
        is_output = path[0].key == "head" and path[-2].key != "dense"
        return 1 / m if path[-1].key == "kernel" and not is_output else 1.0

    return jax.tree_util.tree_map_with_path(multiplier, abstract_params(config))


def step_multipliers(config: ModelConfig) -> Params | None:
    """A factor on any optimizer's step of each parameter; None where all are 1.

    T5 does not scale scores: 1/sqrt(head_dim) is part of how its queries begin (`T5InitConfig`) and
    so must be of their steps. Adafactor, which T5 was trained with, makes steps in proportion to a
    parameter's size; those of Adam and Muon have a size of their own, and saturate every softmax.
    """
    if not isinstance(config.init, T5InitConfig):
        return None

    def multiplier(path: tuple[Any, ...], _: Any) -> float:
        return config.attention.head_dim**-0.5 if path[-2].key == "query" else 1.0

    return jax.tree_util.tree_map_with_path(multiplier, abstract_params(config))


def count_params(params: Params) -> int:
    """Number of scalars in a tree of arrays (or of their shapes)."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def count_matmul_params(params: Params, config: ModelConfig) -> int:
    """Scalars that matrix products use for one token: kernels and, if tied, the token table; of a
    mixture's experts as many as a token is sent to."""
    count = 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [part.key for part in path]
        is_tied_head = names[0] == "token_embedding" and "kernel" not in params.get("head", {})
        if names[-1] == "kernel" or (is_tied_head and config.has_vocab_head):
            active = 1.0
            if "experts" in names and isinstance(config.mlp, MoEConfig):
                active = config.mlp.experts_per_token / config.mlp.num_experts
            count += leaf.size * active
    return round(count)


def _init_boxed(model: Model, key: jax.Array) -> Params:
    row_11 = jnp.zeros((1, 1), jnp.int32)
    fields: dict[str, Any] = {"positions": row_11, "segment_ids": row_11}
    if isinstance(model, EncoderDecoder):
        fields |= {f"encoder_{name}": row_11 for name in ("tokens", "positions", "segment_ids")}
    # Sizes of one row are enough to create parameters, but they do not divide over a mesh.
    plain = model.clone(constrain=UNCONSTRAINED)
    variables = plain.init(key, row_11, **fields)
    return dict(variables["params"])


def _abstract_boxed(config: ModelConfig, *, stacked: bool = True) -> Params:
    model = build_model(config, stacked=stacked)
    return jax.eval_shape(partial(_init_boxed, model), jax.random.key(0))
