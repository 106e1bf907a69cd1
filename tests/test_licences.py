"""Every pinned package's licence is listed, and none is a surprise."""

import re
from importlib.metadata import distribution

import pytest

from docs.list_licences import LOCKS, PAGE, ROOT, is_restricted, licence_of, pinned, remark_of


def listed() -> dict[str, dict[str, tuple[str, str]]]:
    """Lock file -> package -> its versions and licence, as the page has them."""
    sections = re.split(r"^## (\w+)\.txt$", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    row = re.compile(r"^\| ([\w.-]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
    return {
        lock: {name: (versions, licence) for name, versions, licence in row.findall(text)[1:]}
        for lock, text in zip(sections[::2], sections[1::2], strict=True)
    }


def test_every_lock_file_is_listed():
    assert set(LOCKS) == {path.stem for path in (ROOT / "requirements").glob("*.txt")}


@pytest.mark.parametrize("lock", LOCKS)
def test_the_page_lists_what_is_pinned(lock):
    expected = {name: ", ".join(versions) for name, versions in pinned()[lock].items()}
    assert len(expected) >= 1
    assert {name: versions for name, (versions, _) in listed()[lock].items()} == expected


def test_copyleft_is_named_and_looked_at():
    restricted = {
        (lock, name)
        for lock, packages in listed().items()
        for name, (_, licence) in packages.items()
        if is_restricted(licence)
    }
    core = {name for lock, name in restricted if lock == "core"}
    assert core == {"certifi", "tqdm"}
    named = PAGE.read_text("utf-8").partition("## core.txt")[0]
    for lock, name in restricted:
        assert remark_of(name)
        assert f"{name} ({lock})" in named


@pytest.mark.parametrize("licence", ["GPL-3.0-only", "LGPL-2.1-or-later", "AGPLv3", "MPL-2.0"])
def test_an_unknown_package_with_copyleft_stops_the_script(licence):
    assert is_restricted(licence)
    with pytest.raises(SystemExit, match="look, and write a remark"):
        remark_of("some-package")


def test_licences_are_read_from_metadata():
    assert licence_of(distribution("jax")) == "Apache-2.0"
    assert licence_of(distribution("rich")) == "MIT"
    assert not is_restricted(licence_of(distribution("numpy")))
