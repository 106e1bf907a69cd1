"""Which kernel is chosen when, and what is said where one cannot."""

from dataclasses import replace

import jax.numpy as jnp
import pytest

from configs.errors import InputError
from model.constrain import UNCONSTRAINED
from model.kernels import AttentionCase, Choice, attention_case, choose_kernel
from tests.model.kernels.cases import random_inputs

TPU = AttentionCase(platform="tpu", dtype="bfloat16", L=4096, M=4096, H=32, K=8, C=128, causal=True)
GPU = replace(TPU, platform="gpu")
CPU = replace(TPU, platform="cpu", dtype="float32")
SHORT = {"L": 1024, "M": 1024}


@pytest.mark.parametrize(
    ("case", "kernel"),
    [
        (TPU, "splash"),
        (replace(TPU, **SHORT, window=256, softcap=30.0, dtype="float32"), "splash"),
        (replace(TPU, causal=False, M=1024), "splash"),
        (replace(TPU, length_shards=32), "splash"),
        (GPU, "cudnn"),
        (replace(GPU, **SHORT, window=256, has_bias=True, has_prefix=True), "cudnn"),
        (replace(GPU, C=256, max_head_dim=256), "cudnn"),
        (CPU, "blockwise"),
        (replace(CPU, L=2048, M=2048), "blockwise"),
        (replace(CPU, L=2048, M=2047), "reference"),
        (replace(CPU, **SHORT), "reference"),
    ],
)
def test_auto_takes_the_best_kernel_without_a_word(case, kernel):
    assert choose_kernel("auto", case) == Choice(kernel, None)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (replace(TPU, has_bias=True), "splash: it takes no bias"),
        (replace(TPU, has_prefix=True), "splash: it takes no prefix"),
        (replace(TPU, dtype="float16"), "not float16"),
        (replace(TPU, L=4000, M=4000), "4000 queries and 4000 keys on a device"),
        (replace(TPU, length_shards=64), "64 queries and 4096 keys on a device"),
        (replace(TPU, C=80), "head_dim 80 is not a multiple of 64"),
        (replace(TPU, window=64, M=2048), "of 4096 queries on 2048 keys"),
        (replace(GPU, dtype="float32"), "cudnn: it takes bfloat16 or float16, not float32"),
        (replace(GPU, softcap=30.0), "cudnn: it takes no softcap"),
        (replace(GPU, C=100), "head_dim 100 is not a multiple of 8 up to 128"),
        (replace(GPU, C=256), "head_dim 256"),
        (replace(GPU, L=4095, M=4095), "even lengths, not 4095 queries"),
        (replace(GPU, M=2048), "of 4096 queries on 2048 keys"),
    ],
)
def test_what_a_kernel_cannot_do_is_done_in_blocks_where_long_and_said(case, reason):
    choice = choose_kernel("auto", case)
    assert choice.kernel == "blockwise"
    assert choice.reason is not None
    assert reason in choice.reason
    own = {"tpu": "splash", "gpu": "cudnn"}[case.platform]
    assert choose_kernel(own, case) == choice


def test_what_a_kernel_cannot_do_is_done_by_the_reference_where_short():
    choice = choose_kernel("auto", replace(TPU, **SHORT, has_bias=True))
    assert choice == Choice(
        "reference", "attention kernel reference in place of splash: it takes no bias on scores"
    )


@pytest.mark.parametrize("case", [TPU, GPU, CPU, replace(TPU, has_bias=True, softcap=1.0)])
@pytest.mark.parametrize("kernel", ["reference", "blockwise"])
def test_kernels_that_run_everywhere_are_taken_when_asked_for(case, kernel):
    assert choose_kernel(kernel, case) == Choice(kernel, None)


@pytest.mark.parametrize(("kernel", "platform"), [("splash", "TPU"), ("cudnn", "GPU")])
def test_a_kernel_of_another_platform_is_replaced(kernel, platform):
    choice = choose_kernel(kernel, CPU)
    assert choice.kernel == "blockwise"
    assert f"it needs a {platform}, and this is a cpu" in str(choice.reason)


def test_an_unknown_kernel_raises():
    with pytest.raises(InputError, match="model.attention.kernel: got 'flash', expected one of"):
        choose_kernel("flash", CPU)


def test_the_case_is_read_off_the_arrays():
    inputs = random_inputs(L=20, H=4, K=2, C=8, window=5, has_prefix=True, dtype=jnp.bfloat16)
    case = attention_case(
        inputs.q_BLHC,
        inputs.k_BKMC,
        inputs.seen,
        softcap=2.0,
        has_bias=True,
        constrain=UNCONSTRAINED,
    )
    assert replace(case, platform="cpu", max_head_dim=128) == AttentionCase(
        platform="cpu",
        dtype="bfloat16",
        L=20,
        M=20,
        H=4,
        K=2,
        C=8,
        causal=True,
        window=5,
        softcap=2.0,
        has_bias=True,
        has_prefix=True,
    )
