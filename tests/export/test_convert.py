"""The table: strict, and its own inverse."""

import numpy as np
import pytest

from configs.errors import InputError
from export.convert import flatten, from_hf, to_hf
from export.families.family import Entry
from export.families.llama import LLAMA
from model.build import abstract_params
from tests.export.samples import MODELS, make_config, make_params


@pytest.mark.parametrize("name", MODELS)
def test_the_table_names_every_parameter_of_the_model_with_its_shape(name):
    import jax

    config = make_config(**MODELS[name])
    built = jax.tree.map(lambda leaf: leaf.shape, abstract_params(config))
    assert built == jax.tree.map(np.shape, make_params(config))


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_is_equal_bit_for_bit(name):
    config = make_config(**MODELS[name])
    params = make_params(config)
    back = flatten(from_hf(to_hf(params, config, LLAMA), config, LLAMA))
    assert back.keys() == flatten(params).keys()
    for path, array in flatten(params).items():
        assert array.tobytes() == back[path].tobytes() and array.shape == back[path].shape


def test_tensors_are_contiguous_and_in_their_layout():
    config = make_config()
    params = make_params(config)
    tensors = to_hf(params, config, LLAMA)
    assert all(tensor.flags.c_contiguous for tensor in tensors.values())
    query_DHC = params["decoder"]["layers"]["attention"]["query"]["kernel"][1]
    theirs = tensors["model.layers.1.self_attn.q_proj.weight"]
    assert theirs[2 * 8 + 3, 5] == query_DHC[5, 2, 3]
    out_HCD = params["decoder"]["layers"]["attention"]["out"]["kernel"][2]
    assert tensors["model.layers.2.self_attn.o_proj.weight"][5, 2 * 8 + 3] == out_HCD[2, 3, 5]


def test_joined_axes_split_back_in_the_order_written():
    entry = Entry(ours="x", theirs="y", our_axes="A B C", their_axes="(C A) B")
    sizes = {"A": 2, "B": 3, "C": 5}
    array = np.arange(30, dtype=np.float32).reshape(2, 3, 5)
    theirs = entry.to_theirs(array, sizes)
    assert theirs.shape == entry.their_shape(sizes) == (10, 3)
    assert theirs[4 * 2 + 1, 2] == array[1, 2, 4]
    np.testing.assert_array_equal(entry.to_ours(theirs, sizes), array)


def test_a_missing_parameter_is_named():
    config = make_config()
    params = make_params(config)
    del params["decoder"]["layers"]["mlp"]["up"]
    with pytest.raises(InputError, match="^parameters: missing decoder/layers/mlp/up/kernel$"):
        to_hf(params, config, LLAMA)


def test_a_parameter_the_table_does_not_know_is_named():
    config = make_config()
    params = make_params(config) | {"head": {"kernel": np.zeros((32, 512), np.float32)}}
    with pytest.raises(InputError, match="^parameters: unused head/kernel$"):
        to_hf(params, config, LLAMA)


def test_missing_and_unused_tensors_are_named_together():
    config = make_config()
    tensors = to_hf(make_params(config), config, LLAMA)
    tensors["../evil"] = tensors.pop("model.norm.weight")
    with pytest.raises(InputError, match=r"missing model.norm.weight; unused \.\./evil"):
        from_hf(tensors, config, LLAMA)


def test_a_layer_too_many_is_an_error():
    config = make_config()
    tensors = to_hf(make_params(config), config, LLAMA)
    with pytest.raises(InputError, match="unused model.layers.2.*"):
        from_hf(tensors, make_config(num_layers=2), LLAMA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:-1], r"got shape \(31,\), expected \(32,\)"),
        (lambda x: x.astype(np.float16), "got dtype float16, expected float32"),
    ],
)
def test_wrong_shapes_and_dtypes_are_errors_both_ways(change, message):
    config = make_config()
    params = make_params(config)
    tensors = to_hf(params, config, LLAMA)
    tensors["model.norm.weight"] = change(tensors["model.norm.weight"])
    with pytest.raises(InputError, match=f"^model.norm.weight: {message}"):
        from_hf(tensors, config, LLAMA)
    params["decoder"]["final_norm"]["scale"] = change(params["decoder"]["final_norm"]["scale"])
    with pytest.raises(InputError, match=f"^decoder/final_norm/scale: {message}"):
        to_hf(params, config, LLAMA)
