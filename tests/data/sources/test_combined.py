import pickle

import pytest

from configs.errors import InputError
from data.sources import Problems, documents_of, open_source


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "abc.py").write_text("not the library's")
    (tmp_path / "x.jsonl").write_text('{"body": "a line"}')
    return tmp_path


def test_kinds_mix_with_ids_that_stay_unique(folder):
    source = open_source(f"{folder},stdlib", text_field="body")
    ids = [document.id for document in documents_of(source)]
    assert {"stdlib:abc.py", "files:abc.py", "files:x.jsonl:1"} <= set(ids)
    assert len(set(ids)) == len(ids) > 300
    assert source.pinned_held_out is None


def test_shards_are_read_from_their_pickles(folder):
    source = open_source(f"stdlib,{folder}/abc.py")
    shard = pickle.loads(pickle.dumps(source.shards()[-1]))
    [document] = shard.documents(Problems())
    assert document == ("files:abc.py", b"not the library's")
    assert shard.name == f"{folder}/abc.py"


def test_size_signature_and_card_are_those_of_the_parts(folder):
    spec = f"stdlib,{folder}/abc.py"
    source = open_source(spec)
    library_bytes = open_source("stdlib").size_bytes()
    assert library_bytes and source.size_bytes() == library_bytes + 17
    before = source.signature()
    assert before == open_source(spec).signature()
    (folder / "abc.py").write_text("changed")
    assert open_source(spec).signature() not in (None, before)
    assert source.describe() == {"kind": "combined", "parts": f"stdlib; {folder}/abc.py"}


def test_the_standard_library_alone_keeps_its_pinned_list():
    assert open_source("stdlib,").pinned_held_out == open_source("stdlib").pinned_held_out
    assert open_source("stdlib").describe()["kind"] == "stdlib"


@pytest.mark.parametrize("spec", ["stdlib,stdlib", "tfds:a:train,tfds:a:test", "hf:a/b,hf:a/b"])
def test_a_dataset_named_twice_is_refused(spec):
    with pytest.raises(InputError, match="^source: got .*expected every dataset once"):
        open_source(spec)


def test_a_missing_part_is_named(folder):
    with pytest.raises(InputError, match="^source: got 'no/such/file'"):
        open_source("stdlib,no/such/file")
