"""The one function: it runs the kernel asked for, or says why another."""

import logging

import jax
import numpy as np
import pytest

from configs.errors import InputError
from model.kernels import attend, choice
from model.kernels.attend import say_once
from tests.model.kernels.cases import random_inputs


@pytest.fixture
def inputs():
    return random_inputs(L=20)


def traced(inputs, kernel: str) -> str:
    run = jax.make_jaxpr(lambda q, k, v: attend(q, k, v, inputs.seen, kernel=kernel, scale=1.0))
    return str(run(*inputs[:3]))


def test_auto_changes_to_blocks_where_scores_are_many(inputs, monkeypatch):
    assert traced(inputs, "auto") == traced(inputs, "reference")
    monkeypatch.setattr(choice, "LONG_SCORES", 20 * 20)
    assert "scan" in traced(inputs, "auto")


def test_blocks_are_taken_when_asked_for(inputs):
    assert "scan" in traced(inputs, "blockwise")
    assert "scan" not in traced(inputs, "reference")


@pytest.mark.skipif(jax.default_backend() == "tpu", reason="a TPU takes it")
def test_a_kernel_that_cannot_is_replaced_with_one_line_in_the_log(inputs, caplog):
    say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "isoflop"):
        outs = [
            attend(
                inputs.q_BLHC, inputs.k_BKMC, inputs.v_BKMC, inputs.seen, kernel=kernel, scale=1.0
            )
            for kernel in ("reference", "splash", "splash")
        ]
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])
    (line,) = caplog.messages
    assert line.startswith("attention kernel reference in place of splash: it needs a TPU")


def test_an_unknown_kernel_raises(inputs):
    with pytest.raises(InputError, match="model.attention.kernel: got 'flash'"):
        traced(inputs, "flash")
