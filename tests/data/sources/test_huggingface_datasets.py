"""The adapter against a stand-in for `datasets`, and, where it is installed, against itself.

The stand-in gives back the shapes that datasets 5.2 was seen to give: see `Streamed` and `Saved`.
"""

import importlib.util
import json
import pickle
import sys
from types import ModuleType, SimpleNamespace

import pytest

from configs.errors import InputError
from data.sources import Problems, documents_of, huggingface_datasets, open_source

ROWS = [{"text": f"row {i}", "n": i, "meta": {"body": f"body {i}"}} for i in range(10)]
INSTALLED = importlib.util.find_spec("datasets") is not None


class Streamed:
    """As `load_dataset(..., streaming=True)` gives: parts that are read from the start."""

    column_names = ["text", "n", "meta"]

    def __init__(self, parts, fails_at=None):
        self.parts = parts
        self.num_shards = len(parts)
        self.fails_at = fails_at
        self.info = SimpleNamespace(splits={"train": SimpleNamespace(num_bytes=1234)})

    def shard(self, num_shards, index):
        assert num_shards == self.num_shards
        return Streamed([self.parts[index]], self.fails_at)

    def __iter__(self):
        for row in (row for part in self.parts for row in part):
            if row["n"] == self.fails_at:
                raise ConnectionError("lost\nafter a while")
            yield row


class Saved:
    """As `load_from_disk` gives: rows by number."""

    column_names = ["text", "n", "meta"]
    info = SimpleNamespace(splits=None)

    def __init__(self, rows, split=None):
        self.rows = rows
        self.split = split

    def __len__(self):
        return len(self.rows)

    def select(self, indices):
        return Saved([self.rows[i] for i in indices])

    def __iter__(self):
        return iter(self.rows)


@pytest.fixture(autouse=True)
def _forget_what_was_loaded():
    huggingface_datasets._load.cache_clear()
    yield
    huggingface_datasets._load.cache_clear()


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a `datasets` in place; returns the calls it gets."""
    calls = []
    module = ModuleType("datasets")

    def install(streamed=None, saved=None):
        def load_dataset(path, config, *, split, streaming):
            calls.append((path, config, split, streaming))
            if isinstance(streamed, Exception):
                raise streamed
            return streamed

        def load_from_disk(path):
            calls.append(path)
            return saved

        vars(module).update(
            load_dataset=load_dataset,
            load_from_disk=load_from_disk,
            disable_progress_bars=lambda: None,
        )
        monkeypatch.setitem(sys.modules, "datasets", module)
        return calls

    return install


def read(spec, problems=None, **options):
    return [(d.id, d.text) for d in documents_of(open_source(spec, **options), problems)]


def test_a_name_is_streamed_part_by_part(stand_in):
    calls = stand_in(Streamed([ROWS[:4], ROWS[4:]]))
    documents = read("hf:allenai/c4@en:train")
    assert documents[3:5] == [
        ("hf:allenai/c4@en:train#0/3", "row 3"),
        ("hf:allenai/c4@en:train#1/0", "row 4"),
    ]
    assert len(documents) == 10
    assert calls == [("allenai/c4", "en", "train", True)]


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("hf:wikitext", ("wikitext", None, "train", True)),
        ("hf:a/b:test", ("a/b", None, "test", True)),
        ("hf:a/b.c-d@20230601.en", ("a/b.c-d", "20230601.en", "train", True)),
        ("hf:/x/y@en:test", ("/x/y", "en", "test", True)),
        ("hf:../x:y/z", ("{parent}/x:y/z", None, "train", True)),
    ],
)
def test_names_are_taken_apart(stand_in, spec, expected, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    calls = stand_in(Streamed([ROWS]))
    open_source(spec).shards()
    assert calls == [(expected[0].format(parent=tmp_path), *expected[1:])]


@pytest.mark.parametrize(
    "spec", ["hf:", "hf:a/b/c", "hf:a b", "hf:.hidden/x", "hf:a/../b", "hf:a@"]
)
def test_names_that_are_none_are_refused(spec):
    with pytest.raises(InputError, match="^source: got .*expected hf:NAME@CONFIG:SPLIT"):
        open_source(spec)


@pytest.fixture
def saved_folder(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "state.json").write_text("{}")
    return tmp_path / "text"


def test_a_saved_dataset_is_read_by_rows(stand_in, saved_folder, monkeypatch):
    monkeypatch.setattr(huggingface_datasets, "_SHARD_ROWS", 4)
    calls = stand_in(saved=Saved(ROWS))
    source = open_source(f"hf:{saved_folder}")
    assert len(source.shards()) == 3
    documents = [(d.id, d.text) for d in documents_of(source)]
    assert documents == [(f"hf:text:train#{i}", f"row {i}") for i in range(10)]
    assert calls == [str(saved_folder)]
    assert source.signature() is not None and source.size_bytes() == 2


def test_a_saved_dataset_has_the_splits_it_has(stand_in, saved_folder):
    stand_in(saved={"train": Saved(ROWS[:1]), "test": Saved(ROWS[1:])})
    assert len(read(f"hf:{saved_folder}:test")) == 9
    with pytest.raises(InputError, match="has the splits train, test"):
        read(f"hf:{saved_folder}:nope")
    huggingface_datasets._load.cache_clear()
    stand_in(saved=Saved(ROWS, split="test"))
    with pytest.raises(InputError, match="has the splits test"):
        read(f"hf:{saved_folder}")


def test_the_text_may_be_another_column_or_a_field_of_a_struct(stand_in):
    stand_in(Streamed([ROWS]))
    assert read("hf:a/b", text_field="meta.body")[0] == ("hf:a/b:train#0/0", "body 0")
    with pytest.raises(InputError, match=r"no column 'body'; it has text, n, meta\), expected"):
        read("hf:a/b", text_field="body")


def test_problems_are_named_or_counted(stand_in):
    texts = ["a", None, 3, "\ud800", " ", "b"]
    stand_in(Streamed([[{"text": text, "n": i} for i, text in enumerate(texts)]]))
    with pytest.raises(InputError, match=r"^source: got hf:a/b:train#0/1 \(no text in the field"):
        read("hf:a/b")
    problems = Problems(skip=True)
    assert [text for _, text in read("hf:a/b", problems)] == ["a", "b"]
    assert sorted(problems.skipped) == [
        "blank",
        "missing text field",
        "text field is not a string",
        "unpaired surrogate",
    ]


def test_failures_of_the_hub_are_one_line(stand_in):
    stand_in(ConnectionError("cannot reach\nthe hub"))
    with pytest.raises(InputError, match=r"^source: got hf:a/b:train \(ConnectionError: cannot re"):
        read("hf:a/b")
    stand_in(Streamed([ROWS], fails_at=2))
    with pytest.raises(
        InputError, match=r"^source: got hf:a/b:train#0/2 \(ConnectionError: lost\)"
    ):
        read("hf:a/b", Problems(skip=True))


def test_shards_are_read_from_their_pickles(stand_in):
    stand_in(Streamed([ROWS[:4], ROWS[4:]]))
    shards = open_source("hf:a/b").shards()
    assert [shard.name for shard in shards] == ["hf:a/b:train#0", "hf:a/b:train#1"]
    again = [pickle.loads(pickle.dumps(shard)) for shard in shards]
    assert [d.text for shard in again for d in shard.documents(Problems())] == [
        row["text"] for row in ROWS
    ]


def test_size_signature_and_card_of_a_streamed_dataset(stand_in):
    stand_in(Streamed([ROWS]))
    source = open_source("hf:a/b")
    assert source.size_bytes() == 1234 and source.signature() is None
    assert source.describe() == {"kind": "hf", "spec": "hf:a/b"}
    assert source.pinned_held_out is None


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'isoflop\[datasets\]'$"):
        open_source("hf:allenai/c4@en").shards()


if INSTALLED:

    @pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
    def test_the_package_itself_reads_a_folder_of_files_and_a_saved_one(tmp_path, suffix):
        import datasets

        folder = tmp_path / "files"
        folder.mkdir()
        for i, rows in enumerate([ROWS[:4], ROWS[4:]]):
            path = folder / f"train-{i}{suffix}"
            if suffix == ".jsonl":
                path.write_text("\n".join(json.dumps(row) for row in rows))
            else:
                datasets.Dataset.from_list(rows).to_parquet(path)
        source = open_source(f"hf:{folder}", text_field="meta.body")
        shards = [pickle.loads(pickle.dumps(shard)) for shard in source.shards()]
        assert [d.text for shard in shards for d in shard.documents(Problems())] == [
            row["meta"]["body"] for row in ROWS
        ]
        assert read(f"hf:{folder}")[4] == ("hf:files:train#1/0", "row 4")
        assert source.signature() is not None and source.size_bytes()
        with pytest.raises(InputError, match="^source: got [^\n]*nope[^\n]*$"):
            read(f"hf:{folder}:nope")
        with pytest.raises(InputError, match=r"no column 'body'; it has .*text"):
            read(f"hf:{folder}", text_field="body")

        saved = datasets.Dataset.from_list(ROWS)
        saved.save_to_disk(tmp_path / "one")
        datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path / "several")
        for spec in (f"hf:{tmp_path}/one", f"hf:{tmp_path}/several:test"):
            assert [text for _, text in read(spec)] == [row["text"] for row in ROWS]

    def test_the_package_itself_out_of_reach_of_the_hub_is_one_line(monkeypatch):
        from datasets import config

        monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
        for spec in ("hf:nobody/nothing@en", "hf:/no/such/folder"):
            with pytest.raises(
                InputError, match="^source: got hf:(nobody|folder)[^\n]*expected[^\n]*$"
            ):
                open_source(spec).shards()
