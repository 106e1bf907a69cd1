"""Folders for output: found to be writable beforehand, and gone again after bad input."""

import pytest

from configs.errors import InputError
from configs.folders import (
    make_folder,
    remove_folders,
    require_writable_file,
    require_writable_folder,
)


def test_only_what_was_made_is_taken_away(tmp_path):
    (tmp_path / "there").mkdir()
    made = make_folder(tmp_path / "there/new/deep")
    (tmp_path / "there/new/deep/file").write_text("a")
    remove_folders(made)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_a_folder_that_others_use_meanwhile_stays(tmp_path):
    made = make_folder(tmp_path / "new/deep")
    (tmp_path / "new/theirs").write_text("a")
    remove_folders(made)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "theirs"]


def test_a_folder_that_was_there_is_left_as_it_is(tmp_path):
    (tmp_path / "file").write_text("a")
    remove_folders(make_folder(tmp_path))
    assert (tmp_path / "file").read_text() == "a"


def test_a_place_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("a")
    require_writable_folder("out", tmp_path / "new/deep")
    require_writable_file("out", tmp_path / "file")
    for path in (tmp_path / "file", tmp_path / "file/new"):
        with pytest.raises(InputError, match="out: got .*is no folder"):
            require_writable_folder("out", path)
    for path in (tmp_path, tmp_path / "file/new", tmp_path / "none/new"):
        with pytest.raises(InputError, match="out: got .*folder"):
            require_writable_file("out", path)
