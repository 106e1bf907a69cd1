"""A corpus on disk: what was written comes back exactly, or an error names what is wrong."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from configs.errors import InputError
from data.corpus import open_corpus, verify_corpus
from data.corpus_card import CARD_CHECKSUM, card_checksum
from data.sources import documents_of
from data.token_chunks import CHUNK_TOKENS


@pytest.fixture
def copy(corpus, tmp_path):
    return shutil.copytree(corpus.path, tmp_path / "copy")


def _records(folder, split="train"):
    return next((folder / "token_chunks").rglob(f"*-{split}.array_record*"))


def _edit_card(folder, **changes):
    path = folder / "corpus.json"
    card = json.loads(path.read_text()) | changes
    del card[CARD_CHECKSUM]
    path.write_text(json.dumps(card | {CARD_CHECKSUM: card_checksum(card)}))


def test_documents_come_back_exactly_and_bytes_add_up(corpus, source):
    texts = {"train": [], "held_out": []}
    for document in documents_of(source):
        split = "held_out" if document.id in source.pinned_held_out else "train"
        texts[split].append(document.text)
    for split, expected in texts.items():
        documents = list(corpus.documents(split))
        decoded = [corpus.tokenizer.decode(document.tokens) for document in documents]
        assert sorted(decoded) == sorted(expected)
        assert decoded != expected, "documents are shuffled"
        for text, document in zip(decoded, documents, strict=True):
            assert document.num_bytes == len(text.encode())
        assert corpus.text(split) == "".join(decoded).encode()
        card = corpus.splits[split]
        assert card.documents == len(expected)
        assert card.bytes == sum(len(text.encode()) for text in expected)
        assert card.tokens == sum(len(document.tokens) + 2 for document in documents)


def test_every_document_stands_between_bos_and_eos(corpus):
    tokenizer, stream = corpus.tokenizer, corpus.stream("train")
    tokens, starts = stream.read(0, stream.num_tokens)
    np.testing.assert_array_equal(tokens == tokenizer.bos_id, starts)
    np.testing.assert_array_equal(np.roll(tokens == tokenizer.eos_id, 1), starts)
    assert stream.num_tokens > CHUNK_TOKENS, "the test must cross a chunk"


def test_the_dataset_opens_with_tfds_too(corpus):
    import tensorflow_datasets as tfds

    [folder] = (corpus.path / "token_chunks").iterdir()
    builder = tfds.builder_from_directory(str(folder))
    chunks = builder.as_data_source("train")  # pyright: ignore[reportCallIssue]
    assert len(chunks) == corpus.splits["train"].chunks
    tokens = np.concatenate([chunk["tokens"] for chunk in chunks])
    np.testing.assert_array_equal(tokens, corpus.stream("train").read(0, len(tokens))[0])


def test_a_flipped_bit_in_any_file_is_found_when_opening(copy, corpus):
    for name in corpus.card["files"]:
        path = copy / name
        contents = bytearray(path.read_bytes())
        contents[len(contents) // 3] ^= 1
        path.write_bytes(contents)
        with pytest.raises(InputError, match=f"^data.corpus: {name}: got .+ expected .+damaged"):
            open_corpus(copy)
        contents[len(contents) // 3] ^= 1
        path.write_bytes(contents)
    open_corpus(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 1}, "schema_version: got 1, expected 3"),
        ({"vocab_size": 601}, "vocab_size: got 601, expected the tokenizer's 600"),
        ({"tokenizer_sha": "0"}, "tokenizer_sha"),
        ({"splits": {}}, "splits"),
        ({"unknown": 1}, "keys"),
        ({"sha": 7}, "sha"),
        ({"files": {"../../x": {"bytes": 1, "xxh3": "", "footer_xxh3": ""}}}, "in the folder"),
        ({"files": {"gone": {"bytes": 1, "xxh3": "", "footer_xxh3": ""}}}, "gone"),
        ({"files": {}}, "chunks: got 0"),
    ],
)
def test_a_wrong_card_is_a_one_line_error_naming_the_field(copy, changes, message):
    _edit_card(copy, **changes)
    with pytest.raises(InputError, match=f"^data.corpus: [^\n]*{message}[^\n]*$"):
        open_corpus(copy)


def test_a_flipped_bit_of_the_card_is_found(copy):
    path = copy / "corpus.json"
    text = path.read_text()
    place = text.index('"sha": "') + len('"sha": "')
    digit = "1" if text[place] == "0" else "0"
    path.write_text(text[:place] + digit + text[place + 1 :])
    with pytest.raises(InputError, match="^data.corpus: corpus.json checksum: got"):
        open_corpus(copy)


def test_a_card_of_the_version_before_has_no_checksum_and_is_read(copy):
    path = copy / "corpus.json"
    card = json.loads(path.read_text()) | {"schema_version": 2}
    del card[CARD_CHECKSUM]
    path.write_text(json.dumps(card))
    assert open_corpus(copy).card["schema_version"] == 2


def test_an_empty_split_in_the_card_is_refused(copy, corpus):
    splits = corpus.card["splits"]
    _edit_card(copy, splits=splits | {"train": splits["train"] | {"tokens": 0}})
    with pytest.raises(InputError, match="^data.corpus: splits.train: got"):
        open_corpus(copy)


def test_missing_damaged_and_foreign_folders_are_refused(copy, tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="^data.corpus: got .* without a readable corpus.json"):
            open_corpus(path)
    (copy / "corpus.json").write_text("{")
    with pytest.raises(InputError, match="^data.corpus: got a damaged corpus.json"):
        open_corpus(copy)


def test_a_damaged_tokenizer_is_refused(copy):
    (copy / "tokenizer.model").write_bytes(b"")
    with pytest.raises(InputError, match="^tokenizer: got .*tokenizer.model"):
        open_corpus(copy)
    (copy / "tokenizer.model").unlink()
    with pytest.raises(InputError, match="^tokenizer: got .*tokenizer.model"):
        open_corpus(copy)


def test_the_data_room_never_imports_jax():
    script = (
        "import pkgutil, sys, importlib, data\n"
        "for module in pkgutil.walk_packages(data.__path__, 'data.'):\n"
        "    importlib.import_module(module.name)\n"
        "print([name for name in ('jax', 'grain', 'flax', 'tensorflow') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ},
    )
    assert run.stdout.strip() == "[]"


def test_the_card_counts_lengths_and_says_so_to_a_person(corpus):
    for split, card in corpus.splits.items():
        lengths = [len(document.tokens) + 2 for document in corpus.documents(split)]
        assert (card.shortest, card.longest) == (min(lengths), max(lengths))
        expected = np.bincount([length.bit_length() for length in lengths])
        assert card.length_counts == {str(b): int(n) for b, n in enumerate(expected) if n}
    page = (corpus.path / "corpus.md").read_text()
    for number in (card.documents, card.tokens, card.longest):
        assert f"{number:,}" in page
    assert corpus.tokenizer.sha in page


@pytest.fixture
def unchecked(monkeypatch):
    """As if the corpus were too large to read all of it when it is opened."""
    monkeypatch.setattr("data.corpus_card._WHOLE_CHECK_BYTES", 0)


def test_damage_in_a_large_corpus_is_found_by_a_full_check_that_names_the_file(copy, unchecked):
    verified = []
    verify_corpus(copy, verified.append)
    assert verified[-1] == 1 and verified == sorted(verified)
    path = _records(copy)
    contents = bytearray(path.read_bytes())
    for position in range(0, len(contents) - 70_000, 9_973):
        contents[position] ^= 4
        path.write_bytes(contents)
        with pytest.raises(InputError, match=f"{path.name}|chunk"):
            verify_corpus(copy)
        contents[position] ^= 4


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_truncated_or_missing_shard_is_found_when_opening(copy, unchecked, split):
    path = _records(copy, split)
    contents = path.read_bytes()
    for kept in (len(contents) - 1, len(contents) // 2, 0):
        path.write_bytes(contents[:kept])
        with pytest.raises(InputError, match=f"{path.name}: got '{kept} bytes'"):
            open_corpus(copy)
    path.unlink()
    with pytest.raises(InputError, match=f"{path.name}.*No such file"):
        open_corpus(copy)


def test_a_swapped_tokenizer_is_found_when_opening(copy, unchecked):
    from data.tokenizer import train_tokenizer

    other = train_tokenizer(["some other text of words and letters\n" * 50], 300)
    (copy / "tokenizer.model").write_bytes(other.model_bytes)
    with pytest.raises(InputError, match="^data.corpus: tokenizer_sha: got"):
        open_corpus(copy)


def test_swapped_shards_are_found_when_opening(copy, unchecked):
    train, held_out = _records(copy), _records(copy, "held_out")
    contents = train.read_bytes()
    train.write_bytes(held_out.read_bytes())
    held_out.write_bytes(contents)
    with pytest.raises(InputError, match="^data.corpus: .*array_record"):
        open_corpus(copy)
