import pickle
import sys

import pytest

from configs.errors import InputError
from data.sources import Problems, documents_of, open_source
from data.sources.near_duplicates import CONTAINMENT, near_duplicate_pairs
from data.sources.stdlib import StdlibSource
from data.sources.stdlib_held_out import draw


@pytest.fixture(scope="module")
def texts():
    return {document.id: document.text for document in documents_of(open_source("stdlib"))}


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
    pinned = StdlibSource().pinned_held_out
    held_out = [name for name in texts if name in pinned]
    num_bytes = {name: len(text.encode()) for name, text in texts.items()}
    assert 0.04 <= len(held_out) / len(texts) <= 0.06
    assert 0.04 <= sum(num_bytes[n] for n in held_out) / sum(num_bytes.values()) <= 0.06


def test_no_held_out_file_has_a_near_duplicate_in_training(pairs):
    pinned = StdlibSource().pinned_held_out
    crossing = {p: c for p, c in pairs.items() if (p[0] in pinned) != (p[1] in pinned)}
    assert not crossing, f"containment of {CONTAINMENT} or more"


def test_known_near_duplicates_are_found(texts, pairs):
    known = [("ntpath.py", "posixpath.py"), ("_py_abc.py", "abc.py"), ("cProfile.py", "profile.py")]
    for pair in known:
        assert pair in pairs, pair


def test_the_pinned_list_is_what_the_draw_gives_on_the_python_it_was_drawn_on(texts, pairs):
    pinned = [name for name in texts if name in StdlibSource().pinned_held_out]
    drawn = draw(texts, pairs)
    assert drawn == draw(texts, pairs)
    if sys.version_info[:3] == (3, 11, 7):
        assert drawn == pinned


def test_shards_are_a_handful_and_read_from_their_pickles(texts):
    shards = StdlibSource().shards()
    assert 3 <= len(shards) <= 20
    again = [pickle.loads(pickle.dumps(shard)) for shard in shards]
    ids = [document.id for shard in again for document in shard.documents(Problems())]
    assert ids == list(texts)


def test_size_signature_and_card(tmp_path):
    (tmp_path / "a.py").write_text("a = 1")
    source = StdlibSource(tmp_path)
    before = source.signature()
    assert source.size_bytes() == 5 and before == StdlibSource(tmp_path).signature()
    (tmp_path / "a.py").write_text("a = 10")
    assert source.signature() != before
    card = source.describe()
    assert card["kind"] == "stdlib" and "pinned list of" in card["held_out"]


def test_an_unreadable_library_names_the_source(tmp_path):
    (tmp_path / "bad.py").write_bytes(b"# caf\n\xe9")
    (tmp_path / "good.py").write_text("good = True")
    with pytest.raises(InputError, match="^source: got .*bad.py .*invalid UTF-8.* line 2"):
        list(documents_of(StdlibSource(tmp_path)))
    problems = Problems(skip=True)
    assert [d.id for d in documents_of(StdlibSource(tmp_path), problems)] == ["good.py"]
    assert problems.skipped == {"invalid UTF-8": 1}
    for folder in (tmp_path / "missing", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="^source: got .*(missing|empty)"):
            StdlibSource(folder).shards()
