"""Strict JSON: what goes out comes back equal, and anything else is one line naming the field."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.data_config import DataConfig, WeightedMixtureConfig
from configs.errors import InputError
from configs.model_config import ModelConfig
from configs.optimizer_config import AdamWConfig, WarmupStableDecayConfig
from configs.presets import PRESETS
from configs.schema import RunConfig
from configs.serialize import (
    SCHEMA_VERSION,
    dumps,
    fingerprint,
    from_json,
    load_config,
    read_json,
    save,
    to_json,
    write_json,
)

ROOT = Path(__file__).resolve().parents[2]
MISSING = "(left out)"

# Field path, value to put there (MISSING removes it), the error.
BAD_FIELDS = [
    ("training.num_step", 5, "training.num_step: got an unknown field"),
    ("trainnig", {}, "trainnig: got an unknown field"),
    ("mesh.rules.embedd", [], "mesh.rules.embedd: got an unknown field"),
    ("optimizer.schedule.decay_fraction", 0.1, "optimizer.schedule.decay_fraction: got an unknown"),
    ("training.num_steps", MISSING, "training.num_steps: got nothing, expected a whole number"),
    ("model.attention", MISSING, "model.attention: got nothing, expected a JSON object"),
    ("optimizer.schedule", MISSING, "optimizer.schedule: got nothing, expected a JSON object with"),
    ("training.num_steps", "5", "training.num_steps: got '5', expected a whole number"),
    ("training.num_steps", True, "training.num_steps: got True, expected a whole number"),
    ("training.num_steps", 5.0, "training.num_steps: got 5.0, expected a whole number"),
    ("training.num_steps", None, "training.num_steps: got None, expected a whole number"),
    ("training.num_steps", [5], "training.num_steps: got [5], expected a whole number"),
    ("optimizer.learning_rate", "fast", "optimizer.learning_rate: got 'fast', expected a number"),
    ("optimizer.learning_rate", False, "optimizer.learning_rate: got False, expected a number"),
    ("optimizer.learning_rate", 10**400, "optimizer.learning_rate: got inf, expected a number"),
    ("model.tie_embeddings", 1, "model.tie_embeddings: got 1, expected true or false"),
    ("model.tie_embeddings", "true", "model.tie_embeddings: got 'true', expected true or false"),
    ("name", 3, "name: got 3, expected a string"),
    ("model", [], "model: got [], expected a JSON object"),
    ("model.compute_dtype", "float16", "model.compute_dtype: got 'float16', expected one of flo"),
    ("model.mlp.kind", "glu", "model.mlp.kind: got 'glu', expected one of swiglu, geglu, gelu"),
    (
        "model.position.scaling",
        {},
        "model.position.scaling.kind: got nothing, expected one of none",
    ),
    (
        "model.position.scaling.kind",
        "llama4",
        "model.position.scaling.kind: got 'llama4', expected one of none, linear, llama3, yarn",
    ),
    ("model.position.scaling.kind", "linear", "model.position.scaling.factor: got nothing"),
    (
        "model.attention.layer_pattern",
        ["full", "local"],
        "model.attention.layer_pattern[1]: got 'local', expected one of full, window",
    ),
    ("optimizer.schedule", "cosine", "optimizer.schedule: got 'cosine', expected a JSON object"),
    ("optimizer.schedule.kind", "cosin", "optimizer.schedule.kind: got 'cosin', expected one of"),
    ("optimizer.schedule.kind", ["cosine"], "optimizer.schedule.kind: got ['cosine'], expected"),
    ("optimizer.schedule.kind", MISSING, "optimizer.schedule.kind: got nothing, expected one of"),
    ("mesh.rules.batch", "data", "mesh.rules.batch: got 'data', expected a list"),
    ("mesh.rules.batch", ["data", 1], "mesh.rules.batch[1]: got 1, expected a string"),
    ("mesh.data", 3, "training.batch_size: got 16, expected a multiple of"),
    ("model.attention.num_kv_heads", 3, "model.attention.num_kv_heads: got 3, expected a divisor"),
]


def changed(path: str, value: object) -> dict:
    data = to_json(RunConfig())
    *owners, name = path.split(".")
    owner = data
    for part in owners:
        owner = owner[part]
    owner.pop(name, None)
    if value is not MISSING:
        owner[name] = value
    return data


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_the_round_trip(name):
    config = PRESETS[name]()
    assert from_json(RunConfig, json.loads(json.dumps(to_json(config)))) == config


def test_a_file_survives_the_round_trip(tmp_path):
    config = RunConfig(
        name="naïve \udcff", optimizer=AdamWConfig(schedule=WarmupStableDecayConfig())
    )
    save(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == config
    assert (tmp_path / "config.json").read_text() == dumps(config)
    assert read_json(tmp_path / "config.json")["schema_version"] == SCHEMA_VERSION


def test_a_whole_number_may_stand_for_a_fraction():
    config = from_json(RunConfig, changed("optimizer.weight_decay", 0))
    assert config.optimizer.weight_decay == 0.0
    assert type(config.optimizer.weight_decay) is float


@pytest.mark.parametrize("path, value, message", BAD_FIELDS, ids=lambda x: str(x)[:40])
def test_a_bad_field_is_one_line_naming_it(path, value, message):
    with pytest.raises(InputError) as caught:
        from_json(RunConfig, changed(path, value))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_unknown_field_suggests_the_nearest():
    with pytest.raises(InputError, match=r"did you mean 'num_steps'\?$"):
        from_json(RunConfig, changed("training.num_step", 5))


def test_an_unknown_kind_suggests_the_nearest():
    with pytest.raises(InputError, match=r"did you mean 'warmup_stable_decay'\?$"):
        from_json(RunConfig, changed("optimizer.schedule.kind", "warmup_stable"))


def test_a_long_value_is_cut_and_stays_on_one_line():
    with pytest.raises(InputError) as caught:
        from_json(RunConfig, changed("training.num_steps", "x\n" * 5000))
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_a_part_is_reported_under_the_name_it_is_given():
    data = {**to_json(ModelConfig()), "emb_dim": "wide"}
    with pytest.raises(InputError, match=r"^model\.emb_dim: got 'wide'"):
        from_json(ModelConfig, data, field="model")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "got invalid JSON"),
        ("{", "got invalid JSON"),
        ("[1]", "config: got [1], expected a JSON object"),
        ('{"a": 1, "a": 2}', "key 'a' is given twice"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ("[" * 100_000, "got invalid JSON"),
        ("{}", "schema_version: got nothing, expected 2 or 3 or 4"),
        ('{"schema_version": 1}', "schema_version: got 1, expected 2 or 3 or 4"),
        ('{"schema_version": 5}', "schema_version: got 5, expected 2 or 3 or 4"),
        ('{"schema_version": true}', "schema_version: got True, expected 2 or 3 or 4"),
        ('{"schema_version": 4}', "name: got nothing, expected a string"),
    ],
    ids=lambda x: x[:30],
)
def test_a_bad_file_is_one_line_naming_it(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_one_line_naming_it(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.json", tmp_path, tmp_path / "binary.json"):
        with pytest.raises(InputError, match="expected a readable JSON file") as caught:
            read_json(path)
        assert str(path) in str(caught.value)


def test_the_fingerprint_is_the_sha256_of_canonical_json_without_paths_and_threads():
    data = {"schema_version": SCHEMA_VERSION, **to_json(RunConfig())}
    del data["data"]["corpus"], data["data"]["read_threads"]
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    assert fingerprint(RunConfig()) == hashlib.sha256(text.encode()).hexdigest()


def test_the_fingerprint_ignores_where_the_corpus_lies_and_nothing_else():
    config = RunConfig()
    moved = dataclasses.replace(config, data=DataConfig(corpus="/elsewhere"))
    reseeded = dataclasses.replace(config, data=DataConfig(seed=1))
    assert fingerprint(moved) == fingerprint(config)
    assert fingerprint(reseeded) != fingerprint(config)

    def mixed(*corpora, weights=(1.0, 2.0)):
        mixture = WeightedMixtureConfig(corpora=corpora, weights=weights)
        return fingerprint(dataclasses.replace(config, data=DataConfig(mixture=mixture)))

    assert mixed("a", "b") == mixed("x/a", "x/b") != mixed("a", "b", weights=(1.0, 3.0))


def test_a_whole_number_in_place_of_a_fraction_has_the_same_fingerprint():
    whole, fraction = (RunConfig(optimizer=AdamWConfig(weight_decay=x)) for x in (1, 1.0))
    assert fingerprint(whole) == fingerprint(fraction)
    assert dumps(whole) == dumps(fraction)


def test_the_fingerprint_is_the_same_in_another_process():
    script = (
        "from configs.schema import RunConfig\n"
        "from configs.serialize import fingerprint\n"
        "print(fingerprint(RunConfig()))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    result = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == fingerprint(RunConfig())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    write_json(path, {"a": 1})

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"a": 2})
    monkeypatch.undo()
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["plan.json"]


def test_what_json_cannot_say_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []
