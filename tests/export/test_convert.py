"""The table: strict, and its own inverse."""

from dataclasses import replace

import numpy as np
import pytest

from configs.errors import InputError
from configs.model_config import LayerNormConfig
from export.convert import flatten, from_hf, table_name, to_hf
from export.families.family import Entry
from export.families.llama import LLAMA
from tests.export.samples import MODELS, make_config, make_params

CONFIG = make_config()


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
    entry = Entry(ours="x", theirs="y", our_axes="V D H", their_axes="(H V) D")
    sizes = {"V": 2, "D": 3, "H": 5}
    array = np.arange(30, dtype=np.float32).reshape(2, 3, 5)
    theirs = np.zeros(entry.their_shape(sizes), np.float32)
    entry.put(array, theirs, sizes)
    assert theirs.shape == (10, 3)
    assert theirs[4 * 2 + 1, 2] == array[1, 2, 4]
    np.testing.assert_array_equal(entry.take(theirs, sizes), array)


@pytest.mark.parametrize(
    ("their_axes", "at"),
    [("D (3 F)", (1, 2 * 5 + 4)), ("(F 3) D", (4 * 3 + 2, 1)), ("3 F D", (2, 4, 1))],
)
def test_a_part_of_a_fused_tensor_is_written_and_read_where_its_number_stands(their_axes, at):
    entry = Entry(ours="x", theirs="y", our_axes="D F", their_axes=their_axes, part=2)
    sizes = {"D": 3, "F": 5}
    array = np.arange(1, 16, dtype=np.float32).reshape(3, 5)
    theirs = np.zeros(entry.their_shape(sizes), np.float32)
    entry.put(array, theirs, sizes)
    assert theirs.size == 45 and np.count_nonzero(theirs) == 15
    assert theirs[at] == array[1, 4]
    np.testing.assert_array_equal(entry.take(theirs, sizes), array)


def test_a_constant_axis_is_theirs_only():
    entry = Entry(ours="x", theirs="y", our_axes="V", their_axes="1 V")
    theirs = np.zeros(entry.their_shape({"V": 3}), np.float32)
    entry.put(np.arange(3, dtype=np.float32), theirs, {"V": 3})
    np.testing.assert_array_equal(theirs, [[0, 1, 2]])
    np.testing.assert_array_equal(entry.take(theirs, {"V": 3}), [0, 1, 2])


def test_a_layer_without_a_tensor_is_filled_and_a_tensor_that_may_be_missing_too():
    changed = {
        "decoder/layers/attention_norm/scale": {"first_layer": 1, "fill": 7.0},
        "decoder/final_norm/scale": {"fill": 5.0},
    }
    table = tuple(replace(entry, **changed.get(entry.ours, {})) for entry in LLAMA.entries(CONFIG))
    family = replace(LLAMA, entries=lambda config: table)
    params = make_params(CONFIG)
    tensors = to_hf(params, CONFIG, family)
    assert "model.layers.0.input_layernorm.weight" not in tensors
    del tensors["model.norm.weight"]
    decoder = from_hf(tensors, CONFIG, family)["decoder"]
    assert (decoder["final_norm"]["scale"] == 5.0).all()
    scale_ND = decoder["layers"]["attention_norm"]["scale"]
    assert (scale_ND[0] == 7.0).all()
    expected_ND = params["decoder"]["layers"]["attention_norm"]["scale"]
    np.testing.assert_array_equal(scale_ND[1:], expected_ND[1:])
    del tensors["model.layers.1.input_layernorm.weight"]
    with pytest.raises(
        InputError, match="^tensors: missing model.layers.1.input_layernorm.weight$"
    ):
        from_hf(tensors, CONFIG, family)


def test_a_copy_must_equal_its_original_and_stands_in_for_it():
    params = make_params(CONFIG)
    tensors = to_hf(params, CONFIG, LLAMA)
    table_VD = tensors["model.embed_tokens.weight"]
    for stored in ({"lm_head.weight": table_VD}, {"lm_head.weight": table_VD.copy()}):
        both = tensors | stored
        np.testing.assert_array_equal(
            from_hf(both, CONFIG, LLAMA)["token_embedding"]["embedding"], table_VD
        )
    del both["model.embed_tokens.weight"]
    assert from_hf(both, CONFIG, LLAMA).keys() == params.keys()
    with pytest.raises(InputError, match="^lm_head.weight: got numbers that differ"):
        from_hf(tensors | {"lm_head.weight": table_VD + 1}, CONFIG, LLAMA)


def test_names_are_renamed_in_order_and_left_out_by_pattern():
    family = replace(
        LLAMA,
        renames=lambda config: ((r"\.gamma$", ".weight"), (r"^(?=layers\.)", "model.")),
        left_out={r"model\.layers\.\d+\.mask": "a mask"},
    )
    names = ("layers.3.norm.gamma", "layers.12.mask", "model.layers.1.mask.weight", "x.gamma.y")
    assert [table_name(name, CONFIG, family) for name in names] == [
        "model.layers.3.norm.weight",
        None,
        "model.layers.1.mask.weight",
        "x.gamma.y",
    ]


def test_a_parameter_that_no_entry_names_is_an_error():
    config = make_config(norm=LayerNormConfig())
    message = r"^family: got 'llama', which has no place for the model's decoder/final_norm/bias"
    with pytest.raises(InputError, match=message):
        to_hf(make_params(config), config, LLAMA)


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
