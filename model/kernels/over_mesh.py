"""A kernel on every device's own rows, heads and queries, under `shard_map`.

The compiler cannot look into a kernel, and would gather its operands whole. Batch, heads and
queries are cut as the sharding rules say; keys and values stay whole along their length, so no
device needs another's result: what is exchanged is keys and values, and their gradients.

Legend: B batch, L queries, M keys, H heads, K key/value heads, C head dim.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from configs.errors import require
from configs.sharding import MeshAxes
from model.constrain import Constrain
from model.masks import Places


class Operands(NamedTuple):
    """What a kernel reads: all of it, or one device's part."""

    q_BLHC: Float[Array, "B L H C"]
    k_BKMC: Float[Array, "B K M C"]
    v_BKMC: Float[Array, "B K M C"]
    places: Places
    bias_HLM: Float[Array, "H L M"] | None


class Cuts(NamedTuple):
    """Mesh axes of more than one device, by what they cut."""

    batch: MeshAxes = ()
    length: MeshAxes = ()
    heads: MeshAxes = ()
    kv_heads: MeshAxes = ()


def attention_cuts(constrain: Constrain, query_shape: tuple[int, ...], num_kv_heads: int) -> Cuts:
    """How the mesh cuts queries of shape [B, L, H, C].

    Raises:
      InputError: what `configs.sharding.resolve` refuses; key/value heads that are cut, but not
        by the axes that cut the query heads; fewer query heads on a device than a key/value head
        has, or more, and not a multiple.
    """
    B, L, H, _ = query_shape
    _, kv_heads = constrain.cut_by(("batch", "kv_heads"), (B, num_kv_heads))
    batch, length, heads = constrain.cut_by(("batch", "length", "heads"), (B, L, H))
    cuts = Cuts(batch, length, heads, kv_heads)
    require(
        cuts.kv_heads in (cuts.heads, ()),
        "mesh.rules.kv_heads",
        cuts.kv_heads,
        f"the axes that cut heads ({', '.join(cuts.heads) or 'none'}), or none",
    )
    if not cuts.kv_heads:
        group, own_heads = H // num_kv_heads, H // constrain.num_devices(cuts.heads)
        require(
            own_heads % group == 0 or group % own_heads == 0,
            "mesh.rules.heads",
            cuts.heads,
            f"axes that leave a device a multiple or a divisor of the {group} query heads that "
            f"share a key/value head, not {own_heads}",
        )
    return cuts


def over_mesh(
    kernel: Callable[[Operands, Any], Float[Array, "B L H C"]],
    operands: Operands,
    constrain: Constrain,
    extra: Any = None,
    extra_specs: Any = None,
) -> Float[Array, "B L H C"]:
    """`kernel(operands, extra)`, each device on its own part.

    Args:
      extra: arrays besides the operands, or None; `extra_specs` says how they are cut.

    Raises:
      InputError: what `attention_cuts` refuses.
    """
    B, L, H, C = operands.q_BLHC.shape
    cuts = attention_cuts(constrain, (B, L, H, C), operands.k_BKMC.shape[1])
    if not any(cuts):
        return kernel(operands, extra)

    gathered = (
        cuts.length if operands.k_BKMC.shape[2] % constrain.num_devices(cuts.length) == 0 else ()
    )

    def on_device(operands: Operands, extra: Any) -> jax.Array:
        if gathered:
            # Gathered here, their gradients are added up and scattered, not added up everywhere.
            operands = _with_keys(
                operands, lambda x: jax.lax.all_gather(x, gathered, axis=2, tiled=True)
            )
        if cuts.heads and not cuts.kv_heads:
            operands = _own_kv_heads(operands, cuts.heads, H)
        return kernel(operands, extra)

    batch, length, heads, kv_heads = (axes or None for axes in cuts)
    spec: Any = PartitionSpec  # stands where arrays stand, in the same tuples
    by_query = spec(batch, length, heads, None)
    by_key = spec(batch, kv_heads, gathered or None, None)
    prefix = None if operands.places.key_prefix_BM is None else spec(batch, None)
    places = Places(spec(length), spec(None), spec(batch, length), spec(batch, None), prefix)
    bias = None if operands.bias_HLM is None else spec(heads, length, None)
    return jax.shard_map(
        on_device,
        mesh=constrain.mesh,
        in_specs=(Operands(by_query, by_key, by_key, places, bias), extra_specs),
        out_specs=by_query,
        # Pallas kernels and hand-written gradients do not say over which axes they vary.
        check_vma=False,
    )(operands, extra)


def _own_kv_heads(operands: Operands, axes: MeshAxes, num_heads: int) -> Operands:
    """Only the key/value heads that this device's query heads read, of keys that hold all."""
    own_heads, num_kv_heads = operands.q_BLHC.shape[2], operands.k_BKMC.shape[1]
    group = num_heads // num_kv_heads
    first, count = jax.lax.axis_index(axes) * own_heads // group, max(1, own_heads // group)
    return _with_keys(operands, lambda x: jax.lax.dynamic_slice_in_dim(x, first, count, axis=1))


def _with_keys(operands: Operands, change: Callable[[jax.Array], jax.Array]) -> Operands:
    return operands._replace(k_BKMC=change(operands.k_BKMC), v_BKMC=change(operands.v_BKMC))
