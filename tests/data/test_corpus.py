import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from configs.errors import InputError
from data.corpus import OtherCorpusError, open_corpus, prepare_corpus
from data.sources import Document
from data.token_chunks import CHUNK_TOKENS, TokenChunks, TokenStream, token_dtype


@pytest.fixture
def copy(corpus, tmp_path):
    return shutil.copytree(corpus.path, tmp_path / "copy")


def _records(folder, split="train"):
    return next((folder / "token_chunks").rglob(f"*-{split}.array_record*"))


def _edit_card(folder, **changes):
    path = folder / "corpus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_documents_come_back_exactly_and_bytes_add_up(corpus, source):
    texts = {"train": [], "held_out": []}
    for document in source.documents():
        split = "held_out" if source.is_held_out(document.id) else "train"
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


def test_reading_is_circular_and_agrees_with_one_long_read(corpus):
    stream = corpus.stream("train")
    size = stream.num_tokens
    tokens, starts = stream.read(0, size)
    rng = np.random.default_rng(0)
    for start, length in [
        (size - 3, 9),
        (0, 2 * size + 5),
        (CHUNK_TOKENS - 1, 2),
        (7 * size + 4, 3),
        (5, 0),
        *rng.integers(0, size, (50, 2)).tolist(),
    ]:
        index = (start + np.arange(length)) % size
        got_tokens, got_starts = stream.read(start, length)
        np.testing.assert_array_equal(got_tokens, tokens[index])
        np.testing.assert_array_equal(got_starts, starts[index])
        assert got_tokens.dtype == np.int32 and got_starts.dtype == bool


def test_threads_read_the_same_tokens(corpus):
    expected, _ = corpus.stream("train").read(0, corpus.stream("train").num_tokens)
    stream = open_corpus(corpus.path).stream("train")

    def agrees(start):
        return bool((stream.read(start, 50)[0] == expected[start : start + 50]).all())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(agrees, range(0, len(expected) - 50, 31)))


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(256, "u1"), (257, "<u2"), (65_536, "<u2"), (65_537, "<u4")]
)
def test_tokens_are_stored_in_the_smallest_type(tmp_path, vocab_size, dtype):
    assert token_dtype(vocab_size) == np.dtype(dtype)
    tokens = np.arange(20_000).astype(dtype)
    tokens[-1] = vocab_size - 1
    offsets = np.array([0, 1, CHUNK_TOKENS - 1, CHUNK_TOKENS, 19_999])
    files = TokenChunks({"train": (tokens, offsets)}, data_dir=tmp_path).write()
    paths = [path for path in files if "array_record" in path.name]
    stream = TokenStream(paths, num_tokens=20_000, dtype=np.dtype(dtype))
    read, starts = stream.read(0, 20_000)
    np.testing.assert_array_equal(read, tokens)
    np.testing.assert_array_equal(np.flatnonzero(starts), offsets)


def test_the_dataset_opens_with_tfds_too(corpus):
    import tensorflow_datasets as tfds

    [folder] = (corpus.path / "token_chunks").iterdir()
    builder = tfds.builder_from_directory(str(folder))
    chunks = builder.as_data_source("train")  # pyright: ignore[reportCallIssue]
    assert len(chunks) == corpus.splits["train"].chunks
    tokens = np.concatenate([chunk["tokens"] for chunk in chunks])
    np.testing.assert_array_equal(tokens, corpus.stream("train").read(0, len(tokens))[0])


def test_the_same_source_and_seed_give_the_same_corpus_and_another_seed_does_not(
    corpus, source, tmp_path
):
    again = prepare_corpus(source, tmp_path / "again", vocab_size=600, seed=3)
    assert again.sha == corpus.sha
    other = prepare_corpus(source, tmp_path / "other", vocab_size=600, seed=4)
    assert other.sha != corpus.sha
    size = corpus.splits["train"].tokens
    tokens = [c.stream("train").read(0, size)[0] for c in (corpus, again, other)]
    np.testing.assert_array_equal(tokens[0], tokens[1])
    assert not np.array_equal(tokens[0], tokens[2])


def test_preparing_the_same_corpus_again_touches_nothing(copy, source):
    def state():
        files = [p for p in copy.rglob("*") if p.is_file() and p.name != ".lock"]
        return {path: path.stat().st_mtime_ns for path in files}

    before, stages = state(), []
    prepare_corpus(
        source, copy, vocab_size=600, seed=3, progress=lambda stage, _: stages.append(stage)
    )
    assert state() == before and set(stages) == {"reading"}


@pytest.mark.parametrize("vocab_size, seed", [(601, 3), (600, 4)])
def test_another_recipe_is_refused_and_the_corpus_there_kept(
    copy, source, corpus, vocab_size, seed
):
    with pytest.raises(OtherCorpusError, match="^out: "):
        prepare_corpus(source, copy, vocab_size=vocab_size, seed=seed)
    assert open_corpus(copy).sha == corpus.sha


def test_a_damaged_corpus_is_rebuilt_and_other_files_spared(copy, source, corpus):
    (copy / "notes.txt").write_text("mine")
    _records(copy).write_bytes(b"gone")
    assert prepare_corpus(source, copy, vocab_size=600, seed=3).sha == corpus.sha
    assert (copy / "notes.txt").read_text() == "mine"
    open_corpus(copy)


def test_progress_goes_from_zero_to_one_in_every_stage(source, tmp_path):
    seen = []
    prepare_corpus(
        source, tmp_path / "c", vocab_size=600, progress=lambda stage, f: seen.append((stage, f))
    )
    stages = list(dict.fromkeys(stage for stage, _ in seen))
    assert stages == ["reading", "tokenizer", "encoding", "writing"]
    for stage in stages:
        fractions = [fraction for s, fraction in seen if s == stage]
        assert fractions == sorted(fractions) and fractions[-1] == 1 and min(fractions) >= 0


_PREPARE = """
import sys
from data.corpus import prepare_corpus
from data.sources import open_source

def progress(stage, fraction):
    if stage == sys.argv[3] and fraction > 0:
        print("here", flush=True)
        sys.stdin.read()

prepare_corpus(open_source(sys.argv[1]), sys.argv[2], vocab_size=500, progress=progress)
"""


@pytest.mark.parametrize("stage", ["tokenizer", "writing"])
def test_a_killed_preparation_is_not_a_corpus_and_a_rerun_builds_it(tmp_path, stage):
    texts, out = tmp_path / "texts", tmp_path / "out"
    texts.mkdir()
    for i in range(40):
        (texts / f"{i}.txt").write_text(f"file {i} speaks of {i * i} and {i**3} things\n" * 30)
    process = subprocess.Popen(
        [sys.executable, "-c", _PREPARE, str(texts), str(out), stage],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGKILL)
    with pytest.raises(InputError, match="without a readable corpus.json"):
        open_corpus(out)
    from data.sources import open_source

    rebuilt = prepare_corpus(open_source(str(texts)), out, vocab_size=500)
    clean = prepare_corpus(open_source(str(texts)), tmp_path / "clean", vocab_size=500)
    assert rebuilt.sha == clean.sha
    names = [{p.name for p in c.path.rglob("*") if p.is_file()} for c in (rebuilt, clean)]
    assert names[0] == names[1], "nothing is left over"


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


def test_flipped_bits_after_opening_never_change_a_token_that_is_read(copy, corpus):
    """Each chunk is read under its own checks, so damage that comes later is an error too."""
    size = corpus.stream("train").num_tokens
    expected, _ = corpus.stream("train").read(0, size)
    path = _records(copy)
    contents, found = bytearray(path.read_bytes()), 0
    for position in range(0, len(contents), len(contents) // 60):
        contents[position] ^= 0x10
        path.write_bytes(contents)
        try:
            stream = TokenStream([path], num_tokens=size, dtype=token_dtype(600))
            np.testing.assert_array_equal(stream.read(0, size)[0], expected)
        except InputError as error:
            assert "data.corpus" in str(error) and "\n" not in str(error)
            found += 1
        contents[position] ^= 0x10
    assert found > 0


def test_a_chunk_out_of_place_or_with_changed_tokens_fails_its_crc():
    from tensorflow_datasets.proto import tf_example_pb2

    from data.token_chunks import chunk_crc, parse_chunk

    tokens, starts = np.arange(9, dtype="<u2"), np.array([0, 4], "<u2")

    def record(tokens, starts, crc):
        example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
        for name, value in (("tokens", tokens), ("document_starts", starts)):
            example.features.feature[name].bytes_list.value.append(value.tobytes())
        example.features.feature["crc"].int64_list.value.append(crc)
        return example.SerializeToString()

    crc = chunk_crc(2, tokens, starts)
    good, is_start = parse_chunk(record(tokens, starts, crc), number=2, dtype=tokens.dtype)
    np.testing.assert_array_equal(good, tokens)
    assert np.flatnonzero(is_start).tolist() == [0, 4]
    for bad, number in [
        (record(tokens, starts, crc), 3),
        (record(tokens ^ 1, starts, crc), 2),
        (record(tokens, starts + np.uint16(1), crc), 2),
        (b"not a record", 2),
        (b"", 2),
    ]:
        with pytest.raises(InputError, match="^data.corpus: got .* chunk"):
            parse_chunk(bad, number=number, dtype=tokens.dtype)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version: got 2, expected 1"),
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


class _Source:
    name = "list"

    def __init__(self, *documents: Document):
        self._documents = documents

    def documents(self):
        return iter(self._documents)

    def is_held_out(self, document_id: str) -> bool:
        return document_id == "held"

    def describe(self) -> dict[str, str]:
        return {"kind": "list"}


def test_a_source_without_training_or_held_out_text_names_the_source(tmp_path):
    text = "some words of text\n" * 100
    for documents in ([], [Document("a", text)], [Document("held", text)]):
        with pytest.raises(InputError, match="^source: got .* documents$"):
            prepare_corpus(_Source(*documents), tmp_path / "out", vocab_size=300)


def test_the_tokenizer_never_sees_held_out_text(tmp_path):
    train = Document("a", "".join(f"plain words number {i} of text\n" for i in range(400)))
    tokenizers = [
        prepare_corpus(
            _Source(train, Document("held", text * 200)), tmp_path / text, vocab_size=300
        ).tokenizer.sha
        for text in ("zebra", "quagga")
    ]
    assert tokenizers[0] == tokenizers[1]


def test_an_unwritable_folder_names_out(tmp_path, source):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="^out: got"):
            prepare_corpus(source, path, vocab_size=600)


def test_preparing_prints_nothing(tmp_path, source, capfd):
    prepare_corpus(source, tmp_path / "out", vocab_size=600)
    assert capfd.readouterr() == ("", "")


def test_two_preparations_of_one_folder_wait_for_each_other(tmp_path, source, corpus):
    with ThreadPoolExecutor(2) as threads:
        jobs = [
            threads.submit(prepare_corpus, source, tmp_path / "c", vocab_size=600, seed=3)
            for _ in range(2)
        ]
    assert [job.result().sha for job in jobs] == [corpus.sha] * 2


@pytest.mark.slow
def test_the_standard_library_is_prepared_in_well_under_ten_processor_seconds(tmp_path):
    from data.sources import open_source

    start = time.process_time()
    built = prepare_corpus(open_source("stdlib"), tmp_path / "stdlib", vocab_size=2048)
    seconds = time.process_time() - start
    # Measured 5 s on one of two cores; CPU time, since other tests may share the machine.
    assert seconds < 10
    assert built.bytes_per_token > 3.0
    for split in ("train", "held_out"):
        assert built.splits[split].bytes == len(built.text(split))


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
