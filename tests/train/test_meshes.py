"""The same training on eight devices, however they are arranged, as on one; and really cut up.

In fp32 the first loss within 1e-6, each gradient leaf within 1e-5 (norm of the difference over
the norm), ten losses within 1e-5: sums over rows and widths are only added up in another order.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from math import prod
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import pytest

from configs.errors import InputError
from configs.optimizer_config import MuonConfig
from configs.schema import MeshConfig, RunConfig
from configs.sharding import resolve
from data.batches import Batch
from planner.parameters import parameters
from tests.model.samples import QUICK_COMPILE, assert_trees_close, relative_difference
from tests.train.samples import ONE_DEVICE, mesh_of, random_batch, random_state, tiny_run
from train import losses
from train.feed import put_batch
from train.mesh import make_mesh
from train.programs import abstract_batch
from train.state import abstract_state, init_state
from train.step import batch_sharding, make_train_step

MESHES = {
    "data=8": MeshConfig(data=8),
    "fsdp=8": MeshConfig(fsdp=8),
    "tensor=4, data=2": MeshConfig(tensor=4, data=2),
    "fsdp=2, tensor=2, data=2": MeshConfig(fsdp=2, tensor=2, data=2),
    "sequence=4, replica=2": MeshConfig(sequence=4, replica=2),
}
NUM_STEPS = 10


class Trained(NamedTuple):
    """Ten steps on a mesh.

    gradient: each leaf of the first step's, times a number: the first moment after it, the
    gradient not being clipped. losses: of every step. params: the last. compiled: the program.
    """

    gradient: Any
    losses: np.ndarray
    params: Any
    compiled: Any


@cache
def train_on(mesh_config: MeshConfig) -> Trained:
    return train_with(tiny_run(mesh=mesh_config))


def train_with(config: RunConfig) -> Trained:
    mesh = mesh_of(config)
    sharding = batch_sharding(config, mesh)

    def batch(step: int) -> Batch:
        return put_batch(random_batch(config, seed=step), sharding)

    state = random_state(config, mesh)
    compiled = make_train_step(config, mesh).lower(state, batch(0)).compile(QUICK_COMPILE)
    losses, first_moment = [], None
    for number in range(NUM_STEPS):
        state, metrics = compiled(state, batch(number))
        losses.append(float(metrics.loss))
        if number == 0:
            moments = [mu for _, mu in optax.tree.get_all_with_path(state.opt_state, "mu")]
            first_moment = jax.tree.map(np.asarray, moments)
    return Trained(first_moment, np.array(losses), state.params, compiled)


@pytest.fixture(params=MESHES)
def mesh_config(request) -> MeshConfig:
    return MESHES[request.param]


def test_losses_and_gradients_equal_those_of_one_device(mesh_config):
    one, eight = train_on(ONE_DEVICE), train_on(mesh_config)
    assert eight.losses[0] == pytest.approx(one.losses[0], rel=1e-6)
    assert_trees_close(eight.gradient, one.gradient, 1e-5)
    np.testing.assert_allclose(eight.losses, one.losses, rtol=1e-5)


def test_parameters_after_ten_steps_equal_those_of_one_device(mesh_config):
    one, eight = train_on(ONE_DEVICE), train_on(mesh_config)
    assert_trees_close(eight.params, one.params, 1e-5)
    start = random_state(tiny_run(), mesh_of(tiny_run()))
    moved = jax.tree.map(relative_difference, one.params, start.params)
    assert min(jax.tree.leaves(moved)) > 1e-2  # ten steps changed every leaf, so equal says much


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp=8", "fsdp=2, tensor=2, data=2"])
def test_scanned_rematerialised_accumulated_training_equals_plain_training_on_one_device(name):
    one = train_on(ONE_DEVICE)
    plain = tiny_run(mesh=MESHES[name])
    rows = 16 if name == "fsdp=8" else 8  # a microbatch must divide over the devices
    config = replace(
        plain,
        model=replace(plain.model, scan_layers=True, remat="full"),
        training=replace(plain.training, num_microbatches=2, batch_size=rows),
    )
    if rows != 8:
        one = train_with(tiny_run(batch_size=rows))
    eight = train_with(config)
    assert_trees_close(eight.gradient, one.gradient, 1e-5)
    np.testing.assert_allclose(eight.losses, one.losses, rtol=1e-5)
    # Adam's steps do not shrink with the gradient: a tiny one whose sign flips shows.
    assert_trees_close(eight.params, one.params, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp=8", "fsdp=2, tensor=2, data=2"])
def test_muon_on_eight_devices_equals_muon_on_one(name):
    muon = MuonConfig(schedule=tiny_run().optimizer.schedule, clip_norm=0.0)
    one, eight = (
        train_with(replace(tiny_run(mesh=mesh), optimizer=muon))
        for mesh in (ONE_DEVICE, MESHES[name])
    )
    assert_trees_close(eight.gradient, one.gradient, 1e-5)
    np.testing.assert_allclose(eight.losses, one.losses, rtol=1e-5)
    assert_trees_close(eight.params, one.params, 1e-5)


def local_shapes(mesh_config: MeshConfig) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Each parameter's path and the shape of one device's piece, from the planner's list."""
    sizes = mesh_config.axis_sizes
    for spec in parameters(tiny_run().model):
        axes = resolve(mesh_config.rules, spec.logical_axes, spec.shape, sizes)
        pieces = [prod(sizes[axis] for axis in dimension) for dimension in axes]
        yield spec.path, tuple(n // p for n, p in zip(spec.shape, pieces, strict=True))


def test_each_device_holds_its_piece_of_parameters_and_moments_and_no_more(mesh_config):
    config = tiny_run(mesh=mesh_config)
    state = random_state(config, mesh_of(config))
    trained = train_on(mesh_config).params
    for path, shape in local_shapes(mesh_config):
        leaves = [
            leaf
            for tree in (state, trained)
            for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if tuple(k.key for k in keys if hasattr(k, "key"))[-len(path) :] == path
        ]
        assert len(leaves) == 4, path  # the parameter, Adam's two moments, the trained parameter
        for leaf in leaves:
            assert {shard.data.shape for shard in leaf.addressable_shards} == {shape}, path


def test_muons_single_moment_of_a_kernel_is_cut_like_the_kernel(mesh_config):
    config = tiny_run(mesh=mesh_config)
    muon = MuonConfig(schedule=config.optimizer.schedule)
    state = abstract_state(replace(config, optimizer=muon), mesh_of(config))
    shapes = dict(local_shapes(mesh_config))
    moments = {path: 0 for path in shapes}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state):
        names = tuple(key.key for key in keys if hasattr(key, "key"))
        for path in shapes:
            if names[-len(path) :] == path:
                assert leaf.sharding.shard_shape(leaf.shape) == shapes[path]
                moments[path] += 1
    expected = {path: 1 if path[-1] == "kernel" else 2 for path in shapes}
    assert moments == expected


@pytest.mark.parametrize(
    ("name", "cut_in"),
    [("data=8", 1), ("fsdp=8", 8), ("tensor=4, data=2", 4), ("fsdp=2, tensor=2, data=2", 4)],
)
def test_kernels_are_cut_in_as_many_pieces_as_the_mesh_promises(name, cut_in):
    pieces = {
        path: prod(shape) for path, shape in local_shapes(MESHES[name]) if path[-1] != "scale"
    }
    wholes = {spec.path: spec.size for spec in parameters(tiny_run().model)}
    assert {wholes[path] // size for path, size in pieces.items()} == {cut_in}


def entry_shapes(hlo: str) -> list[str]:
    """Types of the compiled program's arguments, as one device sees them."""
    layout = re.search(r"entry_computation_layout=\{\((.*?)\)->", hlo, re.DOTALL)
    assert layout
    return re.findall(r"([a-z]+\d+\[[\d,]*\])", layout[1])


def test_the_compiled_step_takes_pieces_of_parameters_and_of_the_batch(mesh_config):
    arguments = entry_shapes(train_on(mesh_config).compiled.as_text())
    for path, shape in local_shapes(mesh_config):
        text = f"f32[{','.join(map(str, shape))}]"
        assert arguments.count(text) >= 3, path  # the parameter and two moments
    piece = f"{8 // row_shards(mesh_config)},{16 // mesh_config.sequence}"
    assert arguments.count(f"s32[{piece}]") == 4
    assert arguments.count(f"f32[{piece}]") == 1


def row_shards(mesh_config: MeshConfig) -> int:
    return mesh_config.replica * mesh_config.data * mesh_config.fsdp


def test_the_compiled_step_communicates_as_its_mesh_needs():
    def collectives(name: str) -> set[str]:
        hlo = train_on(MESHES[name]).compiled.as_text()
        return set(re.findall(r"\b(all-gather|all-reduce|reduce-scatter|all-to-all)\(", hlo))

    assert "all-gather" not in collectives("data=8")  # whole parameters everywhere
    assert "all-reduce" in collectives("data=8")  # gradients
    assert "all-gather" in collectives("fsdp=8")  # parameters, as each layer needs them
    assert {"all-reduce", "reduce-scatter"} & collectives("fsdp=8")
    assert "all-reduce" in collectives("tensor=4, data=2")
    assert "all-gather" in collectives("fsdp=2, tensor=2, data=2")
    hlo = train_on(ONE_DEVICE).compiled.as_text()
    assert not re.search(r"all-gather|all-reduce|reduce-scatter|all-to-all", hlo)


def test_no_activation_is_cut_one_way_and_then_another(mesh_config):
    # What the compiler inserts where two neighbouring shardings do not fit together.
    # (The all-to-all of the embedding is meant: rows of the table travel to their tokens.)
    hlo = train_on(mesh_config).compiled.as_text()
    meant = r"token_embedding"
    exchanges = re.findall(r"^.*\b(?:all-to-all|collective-permute)\(.*$", hlo, re.MULTILINE)
    assert [line for line in exchanges if not re.search(meant, line)] == []


def test_no_device_computes_the_logits_of_the_whole_batch(mesh_config):
    hlo = train_on(mesh_config).compiled.as_text()
    batch, vocab = 8 * 16, 64
    assert not re.search(rf"f32\[(8,16|{batch}),{vocab}\]", hlo)
    tokens = 8 // row_shards(mesh_config) * 16 // mesh_config.sequence
    columns = vocab // mesh_config.tensor
    assert re.search(rf"f32\[{tokens},{columns}\]", hlo)


@pytest.mark.slow
def test_training_starts_from_the_same_numbers_on_any_mesh():
    def start(mesh_config: MeshConfig):
        config = tiny_run(mesh=mesh_config, seed=5)
        return init_state(config, mesh_of(config))

    one = start(ONE_DEVICE)
    for mesh_config in MESHES.values():
        state = start(mesh_config)
        jax.tree.map(np.testing.assert_array_equal, state, one)
        config = tiny_run(mesh=mesh_config)
        expected = abstract_state(config, mesh_of(config))
        assert jax.tree.all(
            jax.tree.map(
                lambda x, a: x.sharding.is_equivalent_to(a.sharding, x.ndim), state, expected
            )
        )


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    message = (
        r"mesh: got data=2 × fsdp=2 = 4 devices, expected 8 "
        r"\(what this machine shows\); for example --mesh.data 8"
    )
    with pytest.raises(InputError, match=message):
        make_mesh(MeshConfig(data=2, fsdp=2))


def test_a_mesh_has_its_axes_in_order():
    mesh = make_mesh(MeshConfig(data=2, tensor=4))
    assert tuple(mesh.axis_names) == ("replica", "data", "fsdp", "expert", "sequence", "tensor")
    assert mesh.devices.shape == (1, 2, 1, 1, 1, 4)
    assert len(set(mesh.devices.flat)) == 8


@pytest.mark.parametrize("mesh_config", [ONE_DEVICE, MeshConfig(fsdp=2, sequence=2, tensor=2)])
def test_whole_logits_are_nowhere_in_the_compiled_step(mesh_config, monkeypatch):
    monkeypatch.setitem(losses._CHUNK_BYTES, "cpu", 2 * 2**20)  # of its default, a quarter
    # 4,096 tokens of 4,096 pieces: on no device is there an array of its tokens by its pieces.
    config = tiny_run(mesh=mesh_config, batch_size=64)
    model = replace(config.model, vocab_size=4096, num_layers=1)
    config = replace(config, model=model, data=replace(config.data, seq_len=64))
    mesh = mesh_of(config)
    step = make_train_step(config, mesh).lower(
        abstract_state(config, mesh), abstract_batch(config, mesh)
    )
    hlo = str(step.compile(QUICK_COMPILE).as_text())
    tokens = 64 // row_shards(mesh_config) * 64 // mesh_config.sequence
    pieces = 4096 // mesh_config.tensor
    sizes = [
        prod(map(int, shape.split(",")))
        for shape in re.findall(r"\bf32\[([\d,]+)\]", hlo)
        if str(pieces) in shape.split(",")
    ]
    assert sizes and max(sizes) < tokens * pieces
    assert any(size >= 128 * pieces for size in sizes)  # a chunk of them is
