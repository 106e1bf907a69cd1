"""Files of tensors: sharding, and what reading refuses."""

import json
import struct

import numpy as np
import pytest

from configs.errors import InputError
from export.tensors import INDEX, SINGLE, read_tensors, write_tensors


def some_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((4, 5)).astype(np.float32) for name in "abcde"}


def test_a_strided_view_is_written_as_it_reads(tmp_path):
    tensor = some_tensors()["a"].T
    write_tensors({"a": tensor}, tmp_path)
    np.testing.assert_array_equal(read_tensors(tmp_path)["a"], tensor)


def test_shards_hold_what_the_index_says_and_stay_under_the_limit(tmp_path):
    tensors = some_tensors()
    write_tensors(tensors, tmp_path, max_shard_bytes=2 * tensors["a"].nbytes)
    index = json.loads((tmp_path / INDEX).read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert files == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(set(index["weight_map"].values())) == files
    assert index["metadata"]["total_size"] == 5 * tensors["a"].nbytes
    back = read_tensors(tmp_path)
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)


def test_a_tensor_above_the_limit_gets_a_file_of_its_own(tmp_path):
    write_tensors(some_tensors(), tmp_path, max_shard_bytes=1)
    assert len(list(tmp_path.glob("*.safetensors"))) == 5
    assert read_tensors(tmp_path).keys() == some_tensors().keys()


def test_half_precision_widens_without_rounding(tmp_path):
    import torch
    from safetensors.torch import save_file

    numbers = torch.tensor([1.5, -0.0078125, 3.0])
    save_file(
        {"bf16": numbers.to(torch.bfloat16), "fp16": numbers.to(torch.float16)}, tmp_path / SINGLE
    )
    for tensor in read_tensors(tmp_path).values():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, numbers.numpy())


def test_pickled_weights_are_not_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(InputError, match="pickled weights are not read: pytorch_model.bin"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    "file", ["../model.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "x.bin", 3, ""]
)
def test_an_index_that_names_anything_but_a_plain_file_is_refused(tmp_path, file):
    write_tensors(some_tensors(), tmp_path)
    write_tensors(some_tensors(), tmp_path.parent)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(InputError, match="expected the plain name of a .safetensors file"):
        read_tensors(tmp_path)


def test_an_index_that_disagrees_with_its_files_is_refused(tmp_path):
    write_tensors(some_tensors(), tmp_path, max_shard_bytes=160)
    index = json.loads((tmp_path / INDEX).read_text())
    del index["weight_map"]["b"]
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="disagree about b"):
        read_tensors(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    write_tensors(some_tensors(), tmp_path, max_shard_bytes=160)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match="names model-00002-of-00003.safetensors"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"weight_map": 3}', '{"weight_map": {}, "weight_map": {}}']
)
def test_a_damaged_index_is_a_one_line_error(tmp_path, content):
    write_tensors({}, tmp_path)
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(InputError) as caught:
        read_tensors(tmp_path)
    assert "\n" not in str(caught.value)


def test_duplicate_names_are_refused(tmp_path):
    spec = '{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    header = f'{{"a":{spec % (0, 4)},"a":{spec % (4, 8)}}}'
    (tmp_path / SINGLE).write_bytes(
        struct.pack("<Q", len(header)) + header.encode() + np.ones(2, np.float32).tobytes()
    )
    with pytest.raises(InputError, match="duplicate names: a"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 40, -4])
def test_a_truncated_file_is_refused(tmp_path, keep):
    write_tensors(some_tensors(), tmp_path)
    content = (tmp_path / SINGLE).read_bytes()
    (tmp_path / SINGLE).write_bytes(content[:keep])
    with pytest.raises(InputError, match="damaged"):
        read_tensors(tmp_path)


def test_other_dtypes_are_refused_by_name(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.int32)}, tmp_path / SINGLE)
    with pytest.raises(InputError, match="a: got dtype int32"):
        read_tensors(tmp_path)


def test_tensors_are_renamed_and_those_left_out_are_not_read(tmp_path):
    from safetensors.numpy import save_file

    number = np.ones(2, np.float32)
    save_file({"a.gamma": number, "ids": np.arange(3)}, tmp_path / SINGLE)  # int64 is refused
    tensors = read_tensors(tmp_path, {"a.gamma": "a.weight"}.get)
    assert list(tensors) == ["a.weight"]
    np.testing.assert_array_equal(tensors["a.weight"], number)


def test_two_names_of_one_tensor_are_refused(tmp_path):
    write_tensors(some_tensors(), tmp_path)
    with pytest.raises(InputError, match="got two tensors that are x"):
        read_tensors(tmp_path, lambda name: "x")
