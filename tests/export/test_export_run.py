"""The whole way out and back in, and everything that must stop it."""

import json
import shutil
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest

from configs.errors import InputError
from export import verify
from export.convert import flatten, to_hf
from export.express import first_difference
from export.families.llama import LLAMA
from export.import_ import import_folder
from export.reference import Outputs, Rows
from export.tensors import SINGLE, read_tensors, write_tensors
from export.verify import VerificationError, verify_export
from export.write import export_run
from tests.export.samples import MODELS, make_config, make_params, nasty_lines, quick_apply

SEQ_LEN = 64
CONFIG_DIFFERS = "got .*, expected .*config.json"


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    """(folder, config, params, apply_fn) of one verified export."""
    config = make_config()
    params, apply_fn = make_params(config), quick_apply(config)
    folder = tmp_path_factory.mktemp("exports") / "llama"
    export_run(params, config, tokenizer, folder, seq_len=SEQ_LEN, apply_fn=apply_fn)
    return folder, config, params, apply_fn


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of that export, to damage."""
    return shutil.copytree(exported[0], tmp_path / "copy")


@pytest.mark.parametrize("name", MODELS)
def test_transformers_agrees_on_logits_and_greedy_tokens(name, tokenizer, tmp_path):
    import torch
    import transformers

    config = make_config(**MODELS[name])
    params = make_params(config)
    lines = nasty_lines(50)
    result = export_run(
        params,
        config,
        tokenizer,
        tmp_path / "x",
        seq_len=SEQ_LEN,
        lines=lines,
        apply_fn=quick_apply(config),
    )
    report = result.verification
    assert report.reference == (
        f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    )
    assert report.max_abs_logit_difference <= 1e-4
    assert report.greedy_tokens == 32
    assert report.num_lines == len(lines) + len(verify.PROBES)
    assert report.num_tensors == len(to_hf(params, config, LLAMA))
    assert result.num_params == sum(leaf.size for leaf in flatten(params).values())


@pytest.mark.parametrize("name", MODELS)
def test_export_then_import_is_equal_bit_for_bit(name, tokenizer, tmp_path):
    config = make_config(**MODELS[name])
    params = make_params(config)
    export_run(
        params,
        config,
        tokenizer,
        tmp_path / "x",
        seq_len=SEQ_LEN,
        max_shard_bytes=20_000,
        apply_fn=quick_apply(config),
    )
    imported = import_folder(tmp_path / "x")
    assert first_difference(imported.config, config) is None and imported.seq_len == SEQ_LEN
    assert imported.tokenizer is not None
    assert imported.tokenizer.model_bytes == tokenizer.model_bytes
    assert flatten(imported.params).keys() == flatten(params).keys()
    for path, array in flatten(params).items():
        assert flatten(imported.params)[path].tobytes() == array.tobytes()


def test_parameters_our_model_initialises_are_exported_in_bf16_runs_too(tokenizer, tmp_path):
    import jax

    from model.build import build_model, init_params

    config = make_config(compute_dtype="bfloat16", scan_layers=False)
    params = jax.jit(lambda key: init_params(build_model(config), key))(jax.random.key(0))
    result = export_run(params, config, tokenizer, tmp_path / "x", seq_len=SEQ_LEN)
    assert result.verification.max_abs_logit_difference <= 1e-4
    assert result.verification.greedy_tokens == 32


def test_a_model_saved_by_transformers_imports(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
    theirs.save_pretrained(str(tmp_path))
    imported = import_folder(tmp_path)
    tokens_BL = np.random.default_rng(0).integers(0, 64, (2, 9), dtype=np.int32)
    import torch

    with torch.no_grad():
        expected_BLV = theirs.eval()(torch.from_numpy(tokens_BL).long()).logits.numpy()
    rows = Rows(tokens_BL, np.ones(tokens_BL.shape, bool), 0)
    logits_BLV = np.asarray(quick_apply(imported.config)(imported.params, rows))
    np.testing.assert_allclose(logits_BLV, expected_BLV, atol=1e-5)  # fp32 sums in another order
    assert imported.tokenizer is None


def perturb(path, at=-4):
    """Moves one number by one unit in its last place."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("with_transformers", [True, False])
def test_one_perturbed_number_on_disk_fails_verification(
    copy, exported, tokenizer, monkeypatch, with_transformers
):
    _, config, params, apply_fn = exported
    if not with_transformers:
        monkeypatch.setitem(sys.modules, "transformers", None)
    perturb(copy / SINGLE)
    with pytest.raises(VerificationError, match="1 of [0-9]+ numbers on disk different"):
        verify_export(copy, params, config, tokenizer, apply_fn)


def test_one_perturbed_number_fails_import(copy):
    perturb(copy / SINGLE)
    with pytest.raises(InputError, match=r"model.safetensors: got another checksum"):
        import_folder(copy)


def test_without_transformers_the_report_says_reload_from_disk(exported, tokenizer, monkeypatch):
    folder, config, params, apply_fn = exported
    monkeypatch.setitem(sys.modules, "transformers", None)
    report = verify_export(folder, params, config, tokenizer, apply_fn)
    assert report.reference == "reload from disk"
    assert report.max_abs_logit_difference == 0 and report.greedy_tokens == 32


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rms_norm_eps", 1e-6, CONFIG_DIFFERS),
        ("rope_theta", 1e4, None),  # transformers 5 and we read rope_parameters
        (
            "rope_parameters",
            {"rope_type": "default", "rope_theta": 1e4},
            CONFIG_DIFFERS,
        ),
        ("tie_word_embeddings", False, CONFIG_DIFFERS),
        ("num_hidden_layers", 2, CONFIG_DIFFERS),
        ("model_type", "bloom", "model_type: got 'bloom'"),
    ],
)
def test_a_wrong_config_on_disk_fails_verification(
    copy, exported, tokenizer, field, value, message
):
    _, config, params, apply_fn = exported
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    if message is None:
        verify_export(copy, params, config, tokenizer, apply_fn)
        return
    with pytest.raises(VerificationError, match=message):
        verify_export(copy, params, config, tokenizer, apply_fn)


def test_a_forward_pass_that_differs_from_transformers_fails_verification(exported, tokenizer):
    folder, config, params, _ = exported
    other = quick_apply(replace(config, norm=replace(config.norm, epsilon=0.1)))
    with pytest.raises(VerificationError, match="logits: got a difference"):
        verify_export(folder, params, config, tokenizer, other)


def test_nan_logits_fail_verification(exported, tokenizer):
    folder, config, params, apply_fn = exported
    with pytest.raises(VerificationError, match="logits: got a difference of nan"):
        verify_export(
            folder, params, config, tokenizer, lambda p, t: np.nan * np.asarray(apply_fn(p, t))
        )


def outputs(first: float, second: float, chosen: list[int]) -> Outputs:
    """One row, two steps, two tokens; the second step's logits are given."""
    logits_BGV = np.array([[[1.0, 0.0], [first, second]]], np.float32)
    return Outputs(
        logits_BLV=logits_BGV, greedy_BG=np.array([chosen]), greedy_logits_BGV=logits_BGV
    )


def test_larger_logits_may_be_further_apart_but_never_by_what_a_wrong_model_shows():
    assert verify.logit_tolerance(3.0) == verify.LOGIT_TOLERANCE
    assert verify.LOGIT_TOLERANCE < verify.logit_tolerance(20.0) <= 1e-3


def test_greedy_tokens_may_part_only_where_two_tie():
    ours, theirs = outputs(2.00001, 2.0, [0, 0]), outputs(2.0, 2.00001, [0, 1])
    assert verify.compare_greedy(ours, theirs, "a reference") == 1
    with pytest.raises(VerificationError, match="greedy tokens: got"):
        verify.compare_greedy(outputs(2.01, 2.0, [0, 0]), theirs, "a reference")


def test_a_missing_and_an_extra_tensor_fail_verification_by_name(copy, exported, tokenizer):
    _, config, params, apply_fn = exported
    tensors = read_tensors(copy)
    tensors["model.extra"] = tensors.pop("model.norm.weight")
    write_tensors(tensors, copy)
    with pytest.raises(VerificationError, match="missing model.norm.weight; unused model.extra"):
        verify_export(copy, params, config, tokenizer, apply_fn)


def test_a_tokenizer_with_a_lost_merge_fails_verification(copy, exported, tokenizer):
    _, config, params, apply_fn = exported
    path = copy / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = content["model"]["merges"][40:]
    path.write_text(json.dumps(content))
    with pytest.raises(VerificationError, match="tokenizer.json: got ids"):
        verify_export(copy, params, config, tokenizer, apply_fn)


def test_a_tokenizer_config_that_matches_specials_in_text_fails_verification(
    copy, exported, tokenizer
):
    _, config, params, apply_fn = exported
    path = copy / "tokenizer_config.json"
    content = json.loads(path.read_text()) | {"split_special_tokens": False}
    path.write_text(json.dumps(content))
    with pytest.raises(VerificationError, match="AutoTokenizer: got ids"):
        verify_export(copy, params, config, tokenizer, apply_fn)


def test_a_failed_export_leaves_the_earlier_one_and_no_litter(copy, exported, tokenizer):
    _, config, params, _ = exported
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    other = quick_apply(replace(config, norm=replace(config.norm, epsilon=0.1)))
    with pytest.raises(VerificationError):
        export_run(params, config, tokenizer, copy, seq_len=SEQ_LEN, apply_fn=other)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_an_earlier_export_is_replaced(copy, exported, tokenizer):
    _, config, _, apply_fn = exported
    params = make_params(config, seed=1)
    (copy / "stale.txt").write_text("of the earlier export")
    export_run(params, config, tokenizer, copy, seq_len=SEQ_LEN, apply_fn=apply_fn)
    embedding = import_folder(copy).params["token_embedding"]["embedding"]
    np.testing.assert_array_equal(embedding, params["token_embedding"]["embedding"])
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    assert not (copy / "stale.txt").exists()


def test_a_folder_that_holds_something_else_is_left_alone(exported, tokenizer, tmp_path):
    _, config, params, _ = exported
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="^out: got"):
        export_run(params, config, tokenizer, tmp_path, seq_len=SEQ_LEN)
    with pytest.raises(InputError, match="^out: got"):
        export_run(params, config, tokenizer, tmp_path / "thesis.tex", seq_len=SEQ_LEN)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tokenizer, tmp_path):
    config = make_config(vocab_size=300)
    with pytest.raises(InputError, match="^tokenizer: got 512 pieces"):
        export_run(make_params(config), config, tokenizer, tmp_path / "x", seq_len=SEQ_LEN)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "model.safetensors"])
def test_a_file_missing_from_an_export_fails_import_by_name(copy, name):
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"{name}: got no file"):
        import_folder(copy)


def test_a_manifest_that_leaves_the_folder_is_refused(copy):
    path = copy / "isoflop.json"
    content = json.loads(path.read_text())
    content["xxh3_128"]["../secret"] = "0"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="expected a plain file name"):
        import_folder(copy)


def test_importing_what_is_no_model_folder_names_the_file(tmp_path):
    with pytest.raises(InputError, match="config.json: got no such file"):
        import_folder(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="config.json: got a list"):
        import_folder(tmp_path)


def test_importing_a_folder_of_pickles_is_refused(copy):
    (copy / SINGLE).rename(copy / "pytorch_model.bin")
    (copy / "isoflop.json").unlink()
    with pytest.raises(InputError, match="pickled weights are not read: pytorch_model.bin"):
        import_folder(copy)


def test_everyone_may_read_what_was_exported(exported):
    for path in (exported[0], *exported[0].iterdir()):
        assert path.stat().st_mode & 0o044 == 0o044


def test_the_file_says_it_is_for_pytorch(exported):
    content = (exported[0] / SINGLE).read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    assert header["__metadata__"] == {"format": "pt"}


def test_importing_the_export_room_loads_neither_torch_nor_transformers():
    import subprocess

    code = (
        "import sys, export.write, export.import_; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
