"""A config.json of version 2 means what it meant; one of version 3 is read strictly.

version_2/ holds files as version 2 wrote them.
"""

import json
from pathlib import Path

import pytest

from configs.errors import InputError
from configs.presets import PRESETS
from configs.serialize import SCHEMA_VERSION, dumps, load_config, read_json, save, to_json

FOLDER = Path(__file__).parent / "version_2"
FILES = sorted(FOLDER.glob("*.json"))
assert FILES, f"no files in {FOLDER}"
ADDED = [
    ("mesh", "replica", 1),
    ("mesh", "sequence", 1),
    ("mesh.rules", "residual_length", []),
    ("model.attention", "kernel", "auto"),
    ("model", "remat_pattern", ["remat"]),
]


def part(data: dict, path: str) -> dict:
    """The object at a dotted path; "" for the whole."""
    for name in filter(None, path.split(".")):
        data = data[name]
    return data


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_version_2_file_is_kept_as_written_and_what_version_3_added_is_off(path):
    expected = read_json(path)
    del expected["schema_version"]
    for owner, name, value in ADDED:
        assert name not in part(expected, owner)
        part(expected, owner)[name] = value
    assert to_json(load_config(path)) == expected


def test_a_version_2_rule_for_length_cuts_what_layers_add_to_as_well(tmp_path):
    data = read_json(FOLDER / "encoder_decoder.tiny.json")
    data["mesh"]["rules"] |= {"batch": ["fsdp", "expert"], "length": ["data"]}
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert load_config(tmp_path / "config.json").mesh.rules.residual_length == ("data",)


def test_a_version_2_file_is_written_again_as_the_present_version(tmp_path):
    config = load_config(FOLDER / "decoder_only.base_1b.json")
    save(config, tmp_path / "config.json")
    assert read_json(tmp_path / "config.json")["schema_version"] == SCHEMA_VERSION == 3
    assert load_config(tmp_path / "config.json") == config


@pytest.mark.parametrize("owner, name", [(owner, name) for owner, name, _ in ADDED])
def test_a_version_3_file_must_have_what_version_3_added(tmp_path, owner, name):
    data = json.loads(dumps(PRESETS["decoder_only"]()))
    del part(data, owner)[name]
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=rf"config\.json: {owner}\.{name}: got nothing"):
        load_config(tmp_path / "config.json")


@pytest.mark.parametrize(
    "owner, value, message",
    [
        ("mesh", 3, "mesh: got 3, expected a JSON object"),
        ("mesh.rules", [], "mesh.rules: got [], expected a JSON object"),
        ("mesh.rules.length", "data", "mesh.rules.length: got 'data', expected a list"),
        ("model.attention", None, "model.attention: got None, expected a JSON object"),
        ("mesh.slices", 2, "mesh.slices: got an unknown field"),
    ],
)
def test_a_bad_field_of_a_version_2_file_is_one_line_naming_it(tmp_path, owner, value, message):
    data = read_json(FOLDER / "decoder_only.base_1b.json")
    *owners, name = owner.split(".")
    part(data, ".".join(owners))[name] = value
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(InputError) as caught:
        load_config(tmp_path / "config.json")
    assert message in str(caught.value) and "\n" not in str(caught.value)
