"""FLOPs of single instructions, against what they compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.hlo import dot_flops, program_costs


def program(instruction: str, *operands: str) -> str:
    """The text of a program of one instruction; `operands` are array types."""
    params = "\n".join(f"  %p{i} = {text} parameter({i})" for i, text in enumerate(operands))
    body = f"{params}\n  ROOT {instruction}\n"
    return f"HloModule jit_f\n\nENTRY %main (x: f32[]) -> f32[] {{\n{body}}}\n"


def windowed(**options) -> tuple[float, float]:
    """FLOPs counted of a compiled 1-D convolution, and multiply-adds done by hand × 2."""
    x, kernel = np.ones((3, 5, 11), np.float32), np.ones((7, 5, 4), np.float32)
    arguments = {"window_strides": (1,), "padding": [(0, 0)]} | options
    convolve = lambda x, k: jax.lax.conv_general_dilated(x, k, **arguments)  # noqa: E731
    text = jax.jit(convolve).lower(x, kernel).compile().as_text()
    assert text is not None
    # Of ones every output is the number of real inputs under its window, over all features.
    pairs = float(jnp.sum(convolve(jnp.asarray(x), jnp.asarray(kernel))))
    return dot_flops(text), 2 * pairs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": [(3, 3)]},
        {"window_strides": (2,), "padding": [(1, 2)]},
        {"lhs_dilation": (3,), "padding": [(2, 2)]},
        {"rhs_dilation": (2,), "padding": [(4, 1)]},
        {"lhs_dilation": (4,), "window_strides": (3,), "padding": [(3, 3)]},
    ],
)
def test_a_convolution_counts_only_inputs_that_are_there(options):
    counted, by_hand = windowed(**options)
    assert counted == by_hand


def test_a_batched_product_that_a_tpu_writes_as_a_convolution_counts_once():
    """8 products of [4, 16] and [16, 32], over whose batch axis the window slides."""
    text = program(
        "%c = bf16[8,4,32]{2,1,0} convolution(%p0, %p1), "
        "window={size=8 stride=7 pad=0_0 lhs_dilate=8}, dim_labels=0bf_0io->0bf",
        "bf16[8,4,16]{2,1,0}",
        "bf16[8,16,32]{2,1,0}",
    )
    assert dot_flops(text) == 8 * 2 * 4 * 16 * 32


FORWARD = (
    "%a = (bf16[2,4,64,32]{3,1,2,0}, u8[0]{0}) custom-call(%p0, %p1, %p2), "
    'custom_call_target="__cudnn$fmhaSoftmax", backend_config={"cudnn_fmha_backend_config": '
    '{"fmha_scale": 0.1, "intermediate_tensor_shape": {"element_type": "BF16", "dimensions": '
    '["2", "4", "64", "64"], "tuple_shapes": []}, "mask_type": "MASK"}}'
)
HEADS = ("bf16[2,64,4,32]{3,2,1,0}",) * 3


@pytest.mark.parametrize(
    ("mask", "backward", "factor"),
    [("NO_MASK", False, 1), ("CAUSAL", False, 0.5), ("CAUSAL", True, 2.5 * 0.5)],
)
def test_cudnns_attention_is_counted_from_its_scores(mask, backward, factor):
    text = FORWARD.replace('"MASK"', f'"{mask}"')
    if backward:
        text = text.replace("fmhaSoftmax", "fmhaSoftmaxBackward")
    whole = 2 * (2 * 2 * 4 * 64 * 64 * 32)
    assert dot_flops(program(text, *HEADS)) == factor * whole


KERNEL = (
    '%splash_fwd.3 = f32[8]{0} custom-call(%p0), custom_call_target="tpu_custom_call", '
    "backend_config=C"
)


def test_a_kernel_is_counted_by_the_cost_it_states():
    stated = '{"custom_call_config":{"cost_estimate":{"flops":"1234","bytes_accessed":"5"}}}'
    assert dot_flops(program(KERNEL.replace("=C", f"={stated}"), "f32[8]{0}")) == 1234


def test_a_kernel_that_states_no_cost_is_named_not_guessed():
    text = program(KERNEL.replace("=C", "={}"), "f32[8]{0}")
    costs = program_costs(text)
    assert (costs.flops, dict(costs.uncounted)) == (0.0, {"splash_fwd": 1})
    with pytest.raises(ValueError, match="tpu_custom_call"):
        dot_flops(text)


def test_attributes_over_several_lines_belong_to_their_instruction():
    """Pallas writes its own metadata with line breaks, one of them before a brace."""
    text = program(
        '%k.1 = f32[8]{0} custom-call(%p0), custom_call_target="tpu_custom_call", '
        'frontend_attributes={kernel_metadata={\n"block_q":"128"\n}}, backend_config={"custom_'
        'call_config":{"cost_estimate":{"flops":"77"}}}\n  %last.1 = f32[8]{0} negate(%k.1)',
        "f32[8]{0}",
    )
    assert dot_flops(text) == 77
    assert program_costs(text).memory_bytes == 4 * 8 * 4  # both instructions, in and out
