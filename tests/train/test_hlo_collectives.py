"""Collectives of programs whose exchanges are known, on a mesh of 8 devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from train.compiled import traffic_of
from train.hlo import program_costs
from train.hlo_collectives import SLICES, device_groups, mesh_axes_of

SIZES = {"a": 2, "b": 2, "c": 2}
ROWS, COLUMNS = 16, 24
SHARD_BYTES = ROWS // 8 * COLUMNS * 4


ROWS_CUT = P(("a", "b", "c"))


def exchanged(function, out_specs=ROWS_CUT) -> set[tuple[str, tuple[str, ...], int, int]]:
    """(kind, axes, calls, payload bytes a call) of a function of one device's rows."""
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(2, 2, 2), tuple(SIZES),
                axis_types=(AxisType.Auto,) * 3)  # fmt: skip
    cut = partial(jax.shard_map, mesh=mesh, in_specs=ROWS_CUT, check_vma=False)
    program = jax.jit(cut(function, out_specs=out_specs))
    array = jax.ShapeDtypeStruct((ROWS, COLUMNS), jnp.float32)
    text = program.lower(array).compile().as_text()
    assert text is not None
    return {
        (c.kind, mesh_axes_of(c.groups, SIZES), count, c.payload_bytes)
        for c, count in program_costs(text).collectives.items()
    }


@pytest.mark.parametrize("axes", [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")])
def test_an_all_reduce_sends_what_each_device_has(axes):
    found = exchanged(lambda x: jax.lax.psum(x, axes))
    assert found == {("all-reduce", axes, 1, SHARD_BYTES)}


@pytest.mark.parametrize("axes", [("b",), ("a", "c"), ("a", "b", "c")])
def test_an_all_gather_counts_what_it_gives(axes):
    found = exchanged(lambda x: jax.lax.all_gather(x, axes), out_specs=P(None, ("a", "b", "c")))
    assert found == {("all-gather", axes, 1, SHARD_BYTES * 2 ** len(axes))}


@pytest.mark.parametrize("axes", [("c",), ("a", "b")])
def test_a_reduce_scatter_counts_what_it_takes(axes):
    def scatter(x):
        return jax.lax.psum_scatter(x, axes, scatter_dimension=1, tiled=True)

    assert exchanged(scatter) == {("reduce-scatter", axes, 1, SHARD_BYTES)}


def test_an_all_to_all_counts_what_it_takes():
    def exchange(x):
        return jax.lax.all_to_all(x, "b", split_axis=1, concat_axis=0, tiled=True)

    assert exchanged(exchange) == {("all-to-all", ("b",), 1, SHARD_BYTES)}


@pytest.mark.parametrize("axis", ["a", "b", "c"])
def test_a_permutation_belongs_to_the_axis_it_moves_along(axis):
    found = exchanged(lambda x: jax.lax.ppermute(x, axis, [(0, 1), (1, 0)]))
    assert found == {("collective-permute", (axis,), 1, SHARD_BYTES)}


def test_a_loop_exchanges_once_a_trip():
    def many(x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(jax.lax.psum(x, "c")), None), x, length=5)[0]

    assert exchanged(many) == {("all-reduce", ("c",), 5, SHARD_BYTES)}


def test_nothing_is_exchanged_by_rows_on_their_own():
    assert exchanged(lambda x: jnp.tanh(x)) == set()


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['x'=4,'y'=2] {'y'}", [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ("mesh['x'=4,'y'=2] {'x'}", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ("mesh['x'=4,'y'=1,'z'=2] {'x','z'}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        ("mesh['x'=2,'y'=4], device_ids=([4,2]T(1,0)) {'y'}", [[0, 2, 4, 6], [1, 3, 5, 7]]),
        ("mesh['x'=2,'y'=2], device_ids=(0,2,1,3) {'y'}", [[0, 2], [1, 3]]),
        ("mesh['x'=8] {'x':(1)2}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['x'=8] {'x':(2)4}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_every_spelling_of_groups_is_read(groups, expected):
    assert device_groups(groups, 8).tolist() == expected


def test_an_unknown_spelling_is_refused():
    with pytest.raises(ValueError, match="expected a known spelling"):
        device_groups("@somewhere", 8)


# Trimmed from a program of libtpu 0.0.42: what it makes of a reduce-scatter.
FUSED = """HloModule jit_f, is_scheduled=true

%fused (p: bf16[64,32]) -> bf16[8,32] {
  %p = bf16[64,32]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.1 = bf16[64,32]{1,0:T(8,128)(2,1)} all-reduce(%p), channel_id=1, \
replica_groups=[1,8]<=[8], use_global_device_ids=true, to_apply=%add
  %zero = s32[]{:T(128)} constant(0)
  ROOT %dynamic-slice.1 = bf16[8,32]{1,0:T(8,128)(2,1)} dynamic-slice(%all-reduce.1, %zero, \
%zero), dynamic_slice_sizes={8,32}
}

ENTRY %main (x: bf16[64,32]) -> bf16[8,32] {
  %x = bf16[64,32]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-reduce-scatter.1 = bf16[8,32]{1,0:T(8,128)(2,1)} fusion(%x), kind=kCustom, calls=%fused
}
"""


def test_an_all_reduce_of_which_a_fusion_keeps_a_slice_is_a_reduce_scatter():
    (collective,) = program_costs(FUSED).collectives
    assert (collective.kind, collective.payload_bytes) == ("reduce-scatter", 64 * 32 * 2)


STARTED = """HloModule jit_f, is_scheduled=true

ENTRY %main (x: f32[4], y: f32[8]) -> f32[8] {
  %x = f32[4]{0} parameter(0)
  %y = f32[8]{0} parameter(1)
  %ag = ((f32[4]{0}, f32[8]{0}), (f32[16]{0}, f32[32]{0})) all-gather-start(%x, %y), \
replica_groups=[2,4]<=[8], dimensions={0}
  %done = (f32[16]{0}, f32[32]{0}) all-gather-done(%ag)
  %first = f32[16]{0} get-tuple-element(%done), index=0
  ROOT %cp = f32[8]{0} slice(%first), slice={[0:8]}
}
"""


def test_a_start_and_its_done_count_once_with_all_the_arrays_combined_in_it():
    ((collective, count),) = program_costs(STARTED).collectives.items()
    assert (collective.kind, collective.payload_bytes, count) == ("all-gather", (16 + 32) * 4, 1)


# Trimmed from a program of libtpu 0.0.42 for two slices.
BETWEEN_SLICES = """HloModule jit_f, is_scheduled=true

ENTRY %main (x: bf16[64,8]) -> bf16[64,8] {
  %x = bf16[64,8]{1,0:T(8,128)(2,1)} parameter(0)
  %after-all = token[] after-all()
  %send.1 = (bf16[64,8]{1,0:T(8,128)(2,1)}, u32[], token[]) send(%x, %after-all), channel_id=2, \
is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name=\
"xla_megascale_runtime",_xla_megascale_target="{1,2}x{0:15}",\
_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv.1 = (bf16[64,8]{1,0:T(8,128)(2,1)}, u32[], token[]) recv(%after-all), channel_id=3
  %recv-done.1 = (bf16[64,8]{1,0:T(8,128)(2,1)}, token[]) recv-done(%recv.1)
  ROOT %done = bf16[64,8]{1,0:T(8,128)(2,1)} get-tuple-element(%recv-done.1), index=0
}
"""


def test_what_goes_between_slices_is_found():
    costs = program_costs(BETWEEN_SLICES)
    ((collective, count),) = costs.collectives.items()
    assert (collective.kind, collective.groups, count) == ("all-reduce", SLICES, 1)
    assert collective.payload_bytes == 64 * 8 * 2
    (part,) = traffic_of(costs, {"data": 2, "fsdp": 16}, {"data": 2})
    assert (part.axes, part.payload_bytes) == (("data",), 64 * 8 * 2)
