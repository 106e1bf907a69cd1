"""Bytes of programs whose traffic is known."""

import jax
import jax.numpy as jnp
import pytest

from train.hlo import program_costs
from train.hlo_text import parse_hlo

N, LAYERS = 4096, 12


def moved(function, *shapes: tuple[int, ...]) -> float:
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    text = jax.jit(function).lower(*arrays).compile().as_text()
    assert text is not None
    return program_costs(text).memory_bytes


def test_an_elementwise_chain_reads_and_writes_once():
    # Room for the scalars of a program: under a hundredth.
    assert moved(lambda x: jnp.tanh(x) * 2 + 1, (N,)) == pytest.approx(2 * 4 * N, rel=0.01)


def test_a_loop_over_layers_reads_each_layers_slice_not_the_stack():
    def scanned(x, ws):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x * w), None), x, ws)[0]

    per_layer = 3 * 4 * N  # carry in, slice, carry out
    # XLA may slice first and multiply then, or copy the carry: up to twice the least.
    assert per_layer * LAYERS <= moved(scanned, (N,), (LAYERS, N)) <= 2.2 * per_layer * LAYERS


def test_a_loop_that_stacks_its_results_writes_each_once():
    def scanned(x):
        return jax.lax.scan(lambda x, _: (jnp.sin(x), jnp.cos(x)), x, length=LAYERS)[1]

    per_layer = 3 * 4 * N  # carry in, carry out, a row of the stack
    stack = LAYERS * 4 * N  # which is zeroed once, and may be copied
    assert per_layer * LAYERS <= moved(scanned, (N,)) <= 2.5 * per_layer * LAYERS + 2 * stack


ON_CHIP = """HloModule jit_f, is_scheduled=true

ENTRY %main (x: f32[1024], y: f32[1024]) -> f32[1024] {
  %x = f32[1024]{0:T(1024)} parameter(0)
  %y = f32[1024]{0:T(1024)} parameter(1)
  %copy-start.1 = (f32[1024]{0:T(1024)S(1)}, f32[1024]{0:T(1024)}, u32[]{:S(2)}) copy-start(%x)
  %copy-done.1 = f32[1024]{0:T(1024)S(1)} copy-done(%copy-start.1)
  ROOT %add.1 = f32[1024]{0:T(1024)} add(%copy-done.1, %y)
}
"""


def test_arrays_in_the_chips_own_memory_cost_nothing():
    assert program_costs(ON_CHIP).memory_bytes == 4096 + 2 * 4096


WHILE = """HloModule jit_f, is_scheduled=true

%cond (p: (s32[], f32[8], s32[])) -> pred[] {
  %p = (s32[]{:T(128)}, f32[8]{0:T(128)}, s32[]{:T(128)}) parameter(0)
  %limit = s32[]{:T(128)} constant(LIMIT)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body (q: (s32[], f32[8], s32[])) -> (s32[], f32[8], s32[]) {
  %q = (s32[]{:T(128)}, f32[8]{0:T(128)}, s32[]{:T(128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  %j.copy = s32[]{:T(128)S(6)} copy(%j)
  %step = s32[]{:T(128)} get-tuple-element(%q), index=2
  %j.next = s32[]{:T(128)} add(%j.copy, %step)
  %x = f32[8]{0:T(128)} get-tuple-element(%q), index=1
  ROOT %next = (s32[]{:T(128)}, f32[8]{0:T(128)}, s32[]{:T(128)}) tuple(%j.next, %x, %step)
}

ENTRY %main (x: f32[8]) -> (s32[], f32[8], s32[]) {
  %x.1 = f32[8]{0:T(128)} parameter(0)
  %start = s32[]{:T(128)} constant(START)
  %start.copy = s32[]{:T(128)} copy(%start)
  %two = s32[]{:T(128)} constant(2)
  %init = (s32[]{:T(128)}, f32[8]{0:T(128)}, s32[]{:T(128)}) tuple(%start.copy, %x.1, %two)
  ROOT %while.1 = (s32[]{:T(128)}, f32[8]{0:T(128)}, s32[]{:T(128)}) while(%init), \
condition=%cond, body=%body
}
"""


@pytest.mark.parametrize(
    ("start", "limit", "trips"), [(0, 16, 8), (1, 16, 8), (4, 5, 1), (7, 7, 0)]
)
def test_trips_are_read_from_a_loops_condition_where_the_backend_does_not_say(start, limit, trips):
    program = parse_hlo(WHILE.replace("START", str(start)).replace("LIMIT", str(limit)))
    entry = program.computations[program.entry]
    assert program.trip_count(entry, entry.instructions["while.1"]) == trips


def test_trips_are_unknown_where_the_bound_is_computed():
    text = WHILE.replace("START", "0").replace(
        "s32[]{:T(128)} constant(LIMIT)", "s32[]{:T(128)} get-tuple-element(%p), index=2"
    )
    text = text.replace("%two = s32[]{:T(128)} constant(2)", "%two = s32[]{:T(128)} partition-id()")
    program = parse_hlo(text)
    entry = program.computations[program.entry]
    assert program.trip_count(entry, entry.instructions["while.1"]) is None
    assert program_costs(text).unknown_loops == ("while.1",)
