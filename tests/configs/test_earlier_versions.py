"""A config.json of version 2 or 3 means what it meant; one of version 4 is read strictly.

version_2/ and version_3/ hold files as those versions wrote them.
"""

import json
import re
from pathlib import Path

import pytest

from configs.earlier_versions import READABLE_VERSIONS
from configs.errors import InputError
from configs.presets import PRESETS
from configs.serialize import SCHEMA_VERSION, dumps, load_config, read_json, save, to_json

HERE = Path(__file__).parent
FOLDER = HERE / "version_2"
FILES = sorted(HERE.glob("version_*/*.json"))
# Version that added a field, where it stands, and what it was before.
ADDED = [
    (3, "mesh", "replica", 1),
    (3, "mesh", "sequence", 1),
    (3, "mesh.rules", "residual_length", []),
    (3, "model.attention", "kernel", "auto"),
    (3, "model", "remat_pattern", ["remat"]),
    (4, "training", "keep_best", 0),
    (
        4,
        "",
        "guard",
        {
            "nonfinite_limit": 1,
            "spike_sigma": 0.0,
            "spike_window": 128,
            "spike_action": "skip",
            "max_rewinds": 3,
            "check_every": 0,
        },
    ),
]


def part(data: dict, path: str) -> dict:
    """The object at a dotted path; "" for the whole."""
    for name in filter(None, path.split(".")):
        data = data[name]
    return data


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_an_earlier_file_is_kept_as_written_and_what_later_versions_added_is_off(path):
    expected = read_json(path)
    version = expected.pop("schema_version")
    assert path.parent.name == f"version_{version}"
    for _, owner, name, value in (one for one in ADDED if one[0] > version):
        assert name not in part(expected, owner)
        part(expected, owner)[name] = value
    assert to_json(load_config(path)) == expected


def test_there_are_files_of_every_earlier_version():
    assert {read_json(path)["schema_version"] for path in FILES} == set(READABLE_VERSIONS[:-1])


def test_a_version_2_rule_for_length_cuts_what_layers_add_to_as_well(tmp_path):
    data = read_json(FOLDER / "encoder_decoder.tiny.json")
    data["mesh"]["rules"] |= {"batch": ["fsdp", "expert"], "length": ["data"]}
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert load_config(tmp_path / "config.json").mesh.rules.residual_length == ("data",)


def test_a_version_2_file_is_written_again_as_the_present_version(tmp_path):
    config = load_config(FOLDER / "decoder_only.base_1b.json")
    save(config, tmp_path / "config.json")
    assert read_json(tmp_path / "config.json")["schema_version"] == SCHEMA_VERSION == 4
    assert load_config(tmp_path / "config.json") == config


@pytest.mark.parametrize("owner, name", [(owner, name) for _, owner, name, _ in ADDED])
def test_a_present_file_must_have_what_versions_added(tmp_path, owner, name):
    data = json.loads(dumps(PRESETS["decoder_only"]()))
    del part(data, owner)[name]
    (tmp_path / "config.json").write_text(json.dumps(data))
    dotted = re.escape(f"{owner}.{name}".lstrip("."))
    with pytest.raises(InputError, match=rf"config\.json: {dotted}: got nothing"):
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
