import sys

import pytest

from configs.errors import InputError
from data.sources import open_source
from data.sources.near_duplicates import CONTAINMENT, near_duplicate_pairs
from data.sources.stdlib import StdlibSource
from data.sources.stdlib_held_out import draw


@pytest.fixture(scope="module")
def texts():
    return {document.id: document.text for document in open_source("stdlib").documents()}


@pytest.fixture(scope="module")
def pairs(texts):
    return near_duplicate_pairs(texts)


def test_documents_are_sorted_relative_paths_with_text(texts):
    assert list(texts) == sorted(texts) and len(texts) > 300
    assert {"abc.py", "json/decoder.py"} <= set(texts)
    assert all(text.strip() for text in texts.values())


def test_tests_tables_and_installed_packages_are_left_out(texts):
    left_out = {"test", "tests", "idle_test", "encodings", "pydoc_data", "site-packages"}
    for name in texts:
        assert not left_out & set(name.split("/")), name
        assert "_sysconfigdata" not in name and "__pycache__" not in name


def test_about_a_twentieth_of_files_and_bytes_is_held_out(texts):
    source = StdlibSource()
    held_out = [name for name in texts if source.is_held_out(name)]
    num_bytes = {name: len(text.encode()) for name, text in texts.items()}
    assert 0.04 <= len(held_out) / len(texts) <= 0.06
    assert 0.04 <= sum(num_bytes[n] for n in held_out) / sum(num_bytes.values()) <= 0.06


def test_no_held_out_file_has_a_near_duplicate_in_training(pairs):
    source = StdlibSource()
    crossing = {
        p: c for p, c in pairs.items() if source.is_held_out(p[0]) != source.is_held_out(p[1])
    }
    assert not crossing, f"containment of {CONTAINMENT} or more"


def test_known_near_duplicates_are_found(texts, pairs):
    known = [("ntpath.py", "posixpath.py"), ("_py_abc.py", "abc.py"), ("cProfile.py", "profile.py")]
    for pair in known:
        assert pair in pairs, pair


def test_the_pinned_list_is_what_the_draw_gives_on_the_python_it_was_drawn_on(texts, pairs):
    source = StdlibSource()
    pinned = [name for name in texts if source.is_held_out(name)]
    drawn = draw(texts, pairs)
    assert drawn == draw(texts, pairs)
    if sys.version_info[:3] == (3, 11, 7):
        assert drawn == pinned


def test_an_unreadable_library_names_the_source(tmp_path):
    (tmp_path / "bad.py").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="^source: got .*bad.py"):
        list(StdlibSource(tmp_path).documents())
    with pytest.raises(InputError, match="^source: got .*missing"):
        list(StdlibSource(tmp_path / "missing").documents())
