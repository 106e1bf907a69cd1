"""Kernels cut over devices by rows, heads and queries equal the reference on one device."""

from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from configs.errors import InputError
from configs.sharding import MESH_AXES, ShardingRules
from model.constrain import Constrain
from model.kernels.blockwise import blockwise_attention
from model.kernels.cudnn import cudnn_attention
from model.kernels.over_mesh import attention_cuts
from model.kernels.splash import splash_attention
from tests.model.kernels.cases import (
    FP32_TOLERANCE,
    assert_close,
    output_and_gradients,
    random_inputs,
    reference,
)

AXES = tuple(dict.fromkeys((*MESH_AXES, "sequence")))
RULES = {"length": ("sequence",)}


def constrain_over(rules: ShardingRules | None = None, **sizes: int) -> Constrain:
    shape = [sizes.get(axis, 1) for axis in AXES]
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    mesh = Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    return Constrain(mesh, rules or ShardingRules(**RULES))


KERNELS = {
    "blockwise": (partial(blockwise_attention, block=16), {}),
    "blockwise, window": (
        partial(blockwise_attention, block=8),
        {"window": 12, "L": 48, "has_bias": True, "has_prefix": True},
    ),
    "splash": (splash_attention, {"L": 256, "window": 150}),
    "splash, nothing hidden": (splash_attention, {"L": 256, "causal": False, "window": 300}),
    "cudnn's call": (partial(cudnn_attention, implementation="xla"), {"window": 20}),
}


SLOW = ("blockwise", "splash, nothing hidden")  # the others cut the same ways


@pytest.mark.parametrize(
    "kernel", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in KERNELS]
)
def test_cut_by_rows_queries_and_heads_equals_the_reference(kernel):
    kernel, case = KERNELS[kernel]
    inputs = random_inputs(**case)
    constrain = constrain_over(fsdp=2, sequence=2, tensor=2)
    got = output_and_gradients(kernel, inputs, constrain=constrain)
    assert_close(got, reference(inputs), FP32_TOLERANCE)


def test_a_device_reads_its_own_of_key_heads_that_are_not_cut():
    constrain = constrain_over(ShardingRules(**RULES, kv_heads=()), tensor=4)
    inputs = random_inputs(H=8, K=2, L=20)  # two devices share a key head
    got = output_and_gradients(partial(blockwise_attention, block=16), inputs, constrain=constrain)
    assert_close(got, reference(inputs), FP32_TOLERANCE)


def test_other_keys_that_the_mesh_does_not_divide_are_taken_whole():
    inputs = random_inputs(causal=False, L=16, M=11)
    got = output_and_gradients(blockwise_attention, inputs, constrain=constrain_over(sequence=4))
    assert_close(got, reference(inputs), FP32_TOLERANCE)


def test_heads_that_no_device_could_attend_with_raise():
    rules = ShardingRules(kv_heads=())
    with pytest.raises(InputError, match="mesh.rules.heads: .* of the 6 query heads .* not 4"):
        attention_cuts(constrain_over(rules, tensor=3), (2, 16, 12, 8), 2)


def test_key_heads_cut_by_other_axes_than_query_heads_raise():
    rules = ShardingRules(kv_heads=("sequence",))
    with pytest.raises(InputError, match="mesh.rules.kv_heads: .*expected the axes that cut heads"):
        attention_cuts(constrain_over(rules, tensor=2, sequence=2), (2, 16, 4, 8), 2)


def test_the_platform_is_that_of_the_meshs_devices():
    assert Constrain().platform == jax.default_backend()
    assert constrain_over(tensor=2).platform == jax.devices()[0].platform
