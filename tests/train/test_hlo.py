"""Products counted in hand-made programs, and in the real train step against the planner."""

import random
from typing import Literal

import jax
import jax.numpy as jnp
import pytest

from configs.data_config import DataConfig
from configs.mlp_config import SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig
from configs.optimizer_config import AdamWConfig, MuonConfig, OptimizerConfig
from configs.schema import RunConfig, TrainingConfig
from planner.flops import executed_flops_per_step
from train.hlo import dot_flops, program_costs
from train.mesh import make_mesh
from train.programs import abstract_batch
from train.state import abstract_state
from train.step import make_train_step


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def optimized_text(lowered: jax.stages.Lowered) -> str:
    text = lowered.compile().as_text()
    assert text is not None
    return text


def counted(function, *arguments: jax.ShapeDtypeStruct) -> float:
    return dot_flops(optimized_text(jax.jit(function).lower(*arguments)))


def test_a_matrix_product_is_two_m_n_k():
    assert counted(jnp.dot, floats(7, 11), floats(11, 5)) == 2 * 7 * 11 * 5


def test_batch_axes_multiply():
    product = jax.vmap(jnp.dot)
    assert counted(product, floats(3, 7, 11), floats(3, 11, 5)) == 3 * 2 * 7 * 11 * 5


def test_two_contracted_axes_multiply():
    def product(x, y):
        return jnp.einsum("abc,bcd->ad", x, y)

    assert counted(product, floats(4, 5, 6), floats(5, 6, 7)) == 2 * 4 * 5 * 6 * 7


def test_a_scan_counts_its_body_once_a_trip():
    def scanned(x, ws):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, ws)[0]

    assert counted(scanned, floats(7, 11), floats(9, 11, 11)) == 9 * 2 * 7 * 11 * 11


def test_nested_loops_multiply():
    def nested(x, w):
        def outer(x, _):
            return jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ w), x), None

        return jax.lax.scan(outer, x, length=3)[0]

    assert counted(nested, floats(7, 11), floats(11, 11)) == 3 * 5 * 2 * 7 * 11 * 11


def test_a_gradient_is_two_more_products():
    def loss(w, v, x):
        return jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ v))

    forward = 2 * 7 * 11 * 13 + 2 * 7 * 13 * 5
    first_input_gradient = 2 * 7 * 11 * 13  # x is data: nobody asks for it
    program = jax.grad(loss, argnums=(0, 1))
    counted_flops = counted(program, floats(11, 13), floats(13, 5), floats(7, 11))
    assert counted_flops == 3 * forward - first_input_gradient


def test_a_conditional_counts_its_costliest_branch():
    def either(flag, x, w):
        return jax.lax.cond(flag, lambda: jnp.tanh(x @ w) @ w, lambda: x @ w)

    flag = jax.ShapeDtypeStruct((), jnp.bool_)
    arguments = (flag, floats(7, 11), floats(11, 11))
    assert counted(either, *arguments) == 2 * 2 * 7 * 11 * 11
    costs = program_costs(optimized_text(jax.jit(either).lower(*arguments)))
    assert costs.optional_flops == 2 * 7 * 11 * 11


def test_a_convolution_counts_its_window():
    def convolve(x_NCW, kernel_OIW):
        return jax.lax.conv_general_dilated(x_NCW, kernel_OIW, (1,), "VALID")

    # 16 channels to 24, window 3, width 10 to 8.
    assert counted(convolve, floats(2, 16, 10), floats(24, 16, 3)) == 2 * (2 * 24 * 8) * (16 * 3)


def test_elementwise_work_counts_nothing():
    assert counted(lambda x: jnp.sum(jnp.exp(x) * x), floats(64, 64)) == 0


def test_a_loop_of_unknown_length_is_refused():
    def until_large(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 10, lambda x: jnp.tanh(x @ w), x)

    with pytest.raises(ValueError, match="without a known trip count"):
        counted(until_large, floats(7, 11), floats(11, 11))


def test_a_loop_of_unknown_length_without_products_is_fine():
    def until_large(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 10, lambda x: x + 1, x)

    assert counted(until_large, floats(7)) == 0


def test_text_of_something_else_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        dot_flops("module @jit_f {}")


GEMM = """HloModule jit_f

ENTRY %main.1 (a: f32[64,32], b: f32[32,16]) -> f32[64,16] {
  %a = f32[64,32]{1,0} parameter(0)
  %b = f32[32,16]{1,0} parameter(1)
  %custom-call.1 = (f32[64,16]{1,0}, s8[4096]{0}) custom-call(%a, %b), \
custom_call_target="__cublas$gemm", backend_config={CONFIG}
  ROOT %get-tuple-element = f32[64,16]{1,0} get-tuple-element(%custom-call.1), index=0
}
"""


def test_a_library_product_is_read_from_its_dimension_numbers():
    numbers = (
        '{"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}'
    )
    assert dot_flops(GEMM.replace("CONFIG", numbers)) == 2 * 64 * 32 * 16


def test_a_library_product_of_unknown_dimensions_is_refused():
    with pytest.raises(ValueError, match="cublas"):
        dot_flops(GEMM.replace("CONFIG", "{}"))


def drawn_config(
    draw: random.Random,
    *,
    scan: bool,
    remat: Literal["none", "full"],
    blocks: int,
    microbatches: int,
    optimizer: OptimizerConfig,
) -> RunConfig:
    """A run of random widths; the variants given are those that change what is executed."""
    kv_heads = draw.choice([1, 2, 3])
    return RunConfig(
        model=ModelConfig(
            vocab_size=draw.randrange(64, 400, 4),
            emb_dim=draw.randrange(24, 96, 4),
            num_layers=draw.choice([1, 2, 3]),
            attention=AttentionConfig(
                num_heads=kv_heads * draw.choice([1, 2, 3]),
                num_kv_heads=kv_heads,
                head_dim=draw.randrange(4, 20, 2),
                causal_blocks=blocks,
            ),
            mlp=SwiGLUConfig(mlp_dim=draw.randrange(32, 200, 4)),
            tie_embeddings=draw.random() < 0.5,
            compute_dtype=draw.choice(["float32", "bfloat16"]),
            scan_layers=scan,
            remat=remat,
        ),
        data=DataConfig(seq_len=draw.randrange(16, 64, 2)),
        optimizer=optimizer,
        training=TrainingConfig(
            batch_size=microbatches * draw.choice([2, 3]), num_microbatches=microbatches
        ),
    )


@pytest.mark.parametrize(
    ("scan", "remat", "blocks", "microbatches", "optimizer", "seed"),
    [
        pytest.param(
            *(True, "none", 1, 2, AdamWConfig(), 90_417), id="scan", marks=pytest.mark.slow
        ),
        pytest.param(True, "full", 2, 1, AdamWConfig(), 61_283, id="scan-remat"),
        pytest.param(False, "none", 2, 1, AdamWConfig(), 35_906, id="unrolled"),
        pytest.param(
            *(False, "full", 1, 2, AdamWConfig(), 78_152),
            id="unrolled-remat",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(True, "none", 1, 1, MuonConfig(), 24_639), id="muon", marks=pytest.mark.slow
        ),
    ],
)
def test_executed_flops_are_those_of_the_compiled_train_step(
    scan, remat, blocks, microbatches, optimizer, seed
):
    config = drawn_config(
        random.Random(seed),
        scan=scan,
        remat=remat,
        blocks=blocks,
        microbatches=microbatches,
        optimizer=optimizer,
    )
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    state, batch = abstract_state(config, mesh), abstract_batch(config, mesh)
    text = optimized_text(make_train_step(config, mesh).lower(state, batch))
    # XLA may still merge equal products or drop unused ones: 2% leaves it a little freedom.
    assert dot_flops(text) == pytest.approx(executed_flops_per_step(config).total, rel=0.02)
