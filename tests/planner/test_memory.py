"""Bytes of every architecture against what compilers report and the cache really holds."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import jax
import pytest

from benchmarks.gpu_cases import COMPILED_CASES
from benchmarks.memory_model import MEMORY_CASES, Compiled, compile_case, read_record, write_record
from configs.data_config import DataConfig
from configs.mlp_config import MoEConfig
from configs.model_config import ModelConfig
from configs.objective_config import MaskedLMConfig, SpanCorruptionConfig
from configs.position_config import LearnedPositionConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from model.cache import empty_cache
from planner.memory import kv_cache_bytes, training_bytes
from planner.parameters import parameters
from tests.planner.test_flops import T5_SMALL
from tests.planner.test_parameters import BERT
from train.mesh import make_mesh
from train.programs import abstract_batch
from train.state import abstract_state
from train.step import make_train_step

SIZES: dict[str, Any] = {"emb_dim": 128, "num_layers": 4, "vocab_size": 2048}
BERT_RUN = RunConfig(
    model=replace(
        BERT,
        **SIZES,
        position=LearnedPositionConfig(num_positions=128),
        attention=replace(BERT.attention, num_heads=4, num_kv_heads=4, head_dim=32),
        mlp=replace(BERT.mlp, mlp_dim=512),
    ),
    objective=MaskedLMConfig(),
    data=DataConfig(seq_len=128),
    training=TrainingConfig(batch_size=32),
)
T5_RUN = replace(
    BERT_RUN,
    model=replace(
        T5_SMALL,
        **SIZES,
        num_encoder_layers=4,
        attention=replace(T5_SMALL.attention, num_heads=4, num_kv_heads=4, head_dim=32),
        mlp=replace(T5_SMALL.mlp, mlp_dim=344),
    ),
    objective=SpanCorruptionConfig(),
)
MOE_RUN = RunConfig(
    model=ModelConfig(**SIZES, mlp=MoEConfig(mlp_dim=344, num_experts=4)),
    data=DataConfig(seq_len=128),
    training=TrainingConfig(batch_size=32),
)


RECORDED = read_record()


@pytest.mark.parametrize("name", RECORDED)
def test_tpu_bytes_are_within_a_tenth_of_the_compilers(name):
    case = RECORDED[name]
    planned = training_bytes(case.run(), platform="tpu")
    assert planned.total == pytest.approx(case.peak_bytes, rel=0.1)
    # Of arguments nothing is left to estimate: state, a batch of 4-byte numbers, a few counters.
    run = case.run()
    places = 3 * run.lengths.encoder_length + 5 * run.lengths.length
    arguments = planned.params + planned.optimizer
    arguments += 4 * places * run.training.batch_size // run.mesh.num_devices
    if name == "t5-large-v5e-16":
        # Heads of 64 and widths cut to 64: no dimension of attention's kernels fills 128 lanes.
        kernels = [spec for spec in parameters(run.model) if "head_dim" in spec.logical_axes]
        arguments += 4 * sum(spec.size for spec in kernels) // run.mesh.num_devices
    assert arguments == pytest.approx(case.argument_bytes, rel=0.005)


# Arguments and temporaries of one H200 in GB, by the CUDA compiler of jaxlib 0.10.2, 2026-11-28
# (python -m benchmarks.gpu_compiled).
ON_GPUS = {
    "1b-2048-h200": 27.52,
    "1b-8192-h200": 28.33,
    "1b-8192-8xh200": 10.51,
    "7b-2048-h200": 110.95,
    "8b-2048-h200": 129.41,
    "8b-adafactor-8192-h200": 65.28,
    "8b-2048-8xh200": 24.65,
    "8b-8192-8xh200": 25.04,
    "t5-large-h200": 96.62,
    "bert-large-h200": 63.85,
}


@pytest.mark.parametrize("case", COMPILED_CASES, ids=lambda case: case.name)
def test_gpu_bytes_are_within_a_tenth_of_the_compilers(case):
    planned = training_bytes(case.config(), platform="gpu").total
    assert planned == pytest.approx(ON_GPUS[case.name] * 1e9, rel=0.1)


def test_the_record_has_programs_that_no_constant_was_fitted_on():
    held_out = [case for case in RECORDED.values() if not case.is_fitted]
    assert len(held_out) >= 6 and len(RECORDED) > len(held_out)
    for case in RECORDED.values():
        of_case, is_fitted = MEMORY_CASES[case.name]
        assert (of_case.config(), is_fitted) == (case.run(), case.is_fitted)
        assert (of_case.topology, of_case.num_slices) == (case.topology, case.num_slices)


def test_a_record_reads_back_as_written(tmp_path):
    cases = list(RECORDED.values())
    write_record(cases, tmp_path / "record.json")
    assert list(read_record(tmp_path / "record.json").values()) == cases


@pytest.mark.slow
def test_a_program_compiled_now_is_within_a_tenth():
    if find_spec("libtpu"):
        case: Compiled = compile_case(*MEMORY_CASES["1b-tensor-v5e-16"])
        total, planned = case.peak_bytes, training_bytes(case.run(), platform="tpu").total
    else:  # without the TPUs' compiler: for eight of this machine's devices
        mesh = MeshConfig(data=2, fsdp=2, tensor=2)
        config = replace(BERT_RUN, mesh=mesh, model=replace(BERT_RUN.model, num_layers=8))
        total, planned = compiled_bytes(config), training_bytes(config).total
    assert planned == pytest.approx(total, rel=0.1)


def compiled_bytes(config: RunConfig) -> int:
    """Arguments and temporaries of the train step on this machine's devices."""
    mesh = make_mesh(config.mesh, jax.devices()[: config.mesh.num_devices])
    state, batch = abstract_state(config, mesh), abstract_batch(config, mesh)
    memory = make_train_step(config, mesh).lower(state, batch).compile().memory_analysis()
    assert memory is not None
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(BERT_RUN, id="bert"),
        pytest.param(T5_RUN, id="t5", marks=pytest.mark.slow),
        pytest.param(MOE_RUN, id="mixture", marks=pytest.mark.slow),
        pytest.param(
            replace(MOE_RUN, mesh=MeshConfig(expert=2, fsdp=2)),
            id="mixture on an expert axis",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bytes_are_near_those_the_compiler_reports(config):
    # First order: masks, copies in other layouts and what a dispatch sorts by are not counted.
    assert training_bytes(config).total == pytest.approx(compiled_bytes(config), rel=0.2)


def test_policies_keep_less_and_add_more_in_turn():
    def held(remat: Any, pattern: Any = ("remat",)) -> Any:
        model = replace(BERT_RUN.model, remat=remat, remat_pattern=pattern)
        return training_bytes(replace(BERT_RUN, model=model))

    none, attention, dots, full = map(held, ("none", "attention", "dots", "full"))
    assert none.activations > attention.activations > dots.activations > full.activations
    assert attention.layer > none.layer and full.layer > dots.layer
    half = held("full", ("remat", "keep"))
    assert half.activations == (none.activations + full.activations) / 2
    assert half.layer == max(none.layer, full.layer)


def test_a_sequence_axis_cuts_what_layers_keep():
    cut = replace(BERT_RUN, mesh=MeshConfig(sequence=4))
    for platform in ("cpu", "gpu", "tpu"):
        whole, held = (training_bytes(run, platform=platform) for run in (BERT_RUN, cut))
        assert held.activations == whole.activations / 4


def test_kernels_do_not_keep_scores():
    def kept(seq_len: int, kernel: Any) -> int:
        attention = replace(MOE_RUN.model.attention, kernel=kernel)
        model = replace(MOE_RUN.model, attention=attention)
        run = replace(MOE_RUN, model=model, data=DataConfig(seq_len=seq_len))
        return training_bytes(run).activations

    assert kept(512, "reference") > 2.3 * kept(256, "reference")
    assert kept(512, "blockwise") < 2.1 * kept(256, "blockwise")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cache_with_memory_holds_both_sides_keys_and_values(dtype):
    model = replace(T5_RUN.model, compute_dtype=dtype)
    cache = jax.eval_shape(lambda: empty_cache(model, 3, 40, memory_slots=17))
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache))
    assert kv_cache_bytes(model, 3, 40, memory_length=17) == held
    assert kv_cache_bytes(BERT, 3, 40) == 0


def test_both_sides_activations_are_kept_until_the_encoders_turn():
    t5 = training_bytes(T5_RUN)
    shallow = replace(T5_RUN.model, num_encoder_layers=1)
    assert training_bytes(replace(T5_RUN, model=shallow)).activations < 0.5 * t5.activations
    remat = replace(T5_RUN, model=replace(T5_RUN.model, remat="full"))
    assert training_bytes(remat).activations < 0.2 * t5.activations
    # With rematerialisation the decoder is small: its rows have 30 places, the encoder's 128.
    assert training_bytes(remat).layer > t5.activations / 8


def test_the_expert_axis_cuts_the_experts_and_the_rows():
    mlp = MoEConfig(mlp_dim=344, num_experts=4, dispatch="capacity")
    run = replace(MOE_RUN, model=replace(MOE_RUN.model, mlp=mlp))
    cut = replace(run, mesh=MeshConfig(expert=4))
    whole, held = training_bytes(run), training_bytes(cut)
    experts = 4 * 4 * 3 * 4 * 128 * 344  # bytes of all layers' four experts
    assert held.params == whole.params - experts * 3 / 4
    assert held.activations < 0.27 * whole.activations
    # A chunk of logits at a time, and the head is cut by no axis of it.
    assert held.logits == whole.logits
