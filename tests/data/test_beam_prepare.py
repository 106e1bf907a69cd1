"""Beam's corpus is the local one. The slow tests run Beam, in its own environment .venv-beam."""

import gzip
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import InputError
from data import beam_chunks, beam_runner, token_chunks
from data.beam_chunks import bucket_files, chunks_from
from data.beam_prepare import do_task, prepare_with_beam
from data.beam_runner import RUNNERS, file_system_of, open_runner, require_shared_folder
from data.corpus import open_corpus
from data.corpus_card import SPLITS
from data.encode import EncodeTask, ReadTask, encode_bucket, read_part
from data.parallel import Tally
from data.prepare import Preparation, prepare_corpus
from data.sources import open_source
from data.spool import ordered_bucket, read_part_record
from data.token_chunks import cut_chunks
from data.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
BEAM_PYTHON = ROOT / ".venv-beam" / "bin" / "python"

# TFDS starts another file after 64 MiB; after 64 KiB, small corpora have several.
SMALL_FILES = (
    "import sys; from tensorflow_datasets.core.utils.shard_utils import ShardConfig; "
    "ShardConfig.min_shard_size = 1 << 16; "
    "import isoflop; sys.exit(isoflop.run(sys.argv[1:]))"
)


def contents(chunk) -> tuple:
    return (chunk.number, chunk.tokens.tolist(), chunk.starts.tolist(), chunk[3], chunk[4])


# Buckets of documents' lengths; a document is at least <s> and </s>.
BUCKETS = st.lists(st.lists(st.integers(2, 40), max_size=5), min_size=1, max_size=8)


@given(buckets=BUCKETS, chunk_tokens=st.integers(1, 33), dtype=st.sampled_from(["|u1", "<u2"]))
@settings(max_examples=200, deadline=None)
def test_chunks_made_bucket_by_bucket_are_those_cut_from_the_stream(
    tmp_path_factory, buckets, chunk_tokens, dtype
):
    folder = tmp_path_factory.mktemp("buckets")
    rng = np.random.default_rng(0)
    parts, found = [], []
    for number, lengths in enumerate(buckets):
        tokens = rng.integers(0, 256, sum(lengths)).astype(dtype)
        path = folder / f"{number:04}.train.tokens"
        tokens.tofile(path)
        np.save(path.with_suffix(".lengths.npy"), np.array(lengths, np.int64))
        parts.append((tokens, np.array(lengths, np.int64)))
        found.append((path, len(tokens), len(lengths)))
    files = bucket_files(found, np.dtype(dtype))
    with pytest.MonkeyPatch.context() as patch:
        for module in (token_chunks, beam_chunks):
            patch.setattr(module, "CHUNK_TOKENS", chunk_tokens)
        cut = list(cut_chunks(iter(parts)))
        made = [chunk for bucket in range(len(buckets)) for chunk in chunks_from(files, bucket)]
    assert list(map(contents, made)) == list(map(contents, cut))
    assert [chunk.crc for chunk in made] == [chunk.crc for chunk in cut]


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_missing_beam_is_one_line_that_says_how_to_get_it(runner, source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(InputError, match="runner: got .*make setup-beam") as error:
        prepare_with_beam(source, tmp_path / "out", Preparation(vocab_size=300), runner)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "runner, settings, message",
    [
        ("flnk", (), "runner: got 'flnk', expected one of direct.*did you mean 'flink'"),
        ("direct", ("region",), "beam_options: got 'region', expected NAME=VALUE"),
        ("direct", ("=5",), "beam_options: got '=5', expected NAME=VALUE"),
        ("direct", ("a b=5",), "beam_options: got 'a b=5', expected NAME=VALUE"),
        ("direct", ("runner=FlinkRunner",), "expected --runner for the runner"),
    ],
)
def test_an_unknown_runner_or_a_malformed_option_is_refused(runner, settings, message):
    with pytest.raises(InputError, match=message):
        open_runner(runner, settings)


def test_dataflow_is_refused_a_folder_on_a_disk_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(beam_runner, "file_system_of", lambda path: "ext4")
    with pytest.raises(InputError, match=r"out: got .*\(ext4\)', expected a folder that Dataflow"):
        require_shared_folder(tmp_path, "dataflow")
    require_shared_folder(tmp_path, "flink")
    for kind in ("nfs4", "fuse.gcsfuse", None):
        monkeypatch.setattr(beam_runner, "file_system_of", lambda path, kind=kind: kind)
        require_shared_folder(tmp_path, "dataflow")


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_bucket_is_refused_where_a_folder_is_needed(runner):
    with pytest.raises(InputError, match="out: got 'gs:/bucket/corpus', expected a folder"):
        require_shared_folder(Path("gs://bucket/corpus"), runner)


@pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="Linux says it in /proc")
def test_the_file_system_of_a_folder_that_is_not_there_yet_is_that_of_its_parent():
    assert file_system_of(Path("/proc/self")) == "proc"
    assert file_system_of(Path("/proc/no/such/folder")) == "proc"


def read_task(tmp_path: Path, *, skip: bool = True) -> ReadTask:
    (tmp_path / "text").mkdir(exist_ok=True)
    for i in range(5):
        (tmp_path / "text" / f"{i}.txt").write_text(f"document {i} " * 20)
    (tmp_path / "text" / "bad.txt").write_bytes(b"\xff")
    shards = tuple(open_source(str(tmp_path / "text")).shards())
    return ReadTask(tmp_path / "work" / "part-00000", 0, shards, 2, 7, skip, None)


def files_under(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_part_read_twice_by_workers_is_the_part_read_once(tmp_path):
    task = read_task(tmp_path)
    expected = read_part(task._replace(folder=tmp_path / "expected"), Tally())
    for _ in range(2):
        do_task(read_part, task, str(tmp_path / "0.error"))
        assert [folder.name for folder in (tmp_path / "work").iterdir()] == ["part-00000"]
        assert files_under(task.folder) == files_under(tmp_path / "expected")
    assert read_part(task, Tally()) == expected == read_part_record(task.folder)


def test_a_part_that_another_worker_finished_in_the_meantime_stays(tmp_path, monkeypatch):
    task = read_task(tmp_path)

    def read_after_another(attempt: ReadTask, tally: Tally):
        read_part(task, tally)
        return read_part(attempt, tally)

    monkeypatch.setattr("data.beam_prepare.read_part", read_after_another)
    do_task(read_part, task, str(tmp_path / "0.error"))
    assert [folder.name for folder in (tmp_path / "work").iterdir()] == ["part-00000"]
    assert read_part_record(task.folder) is not None


def test_a_bucket_encoded_by_a_worker_is_the_bucket_encoded_here(tmp_path):
    task = read_task(tmp_path)
    read_part(task, Tally())
    tokenizer = train_tokenizer(iter([f"document {i} text" for i in range(99)]), 280, seed=0)
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model_bytes)
    entries, _ = ordered_bucket([task.folder], 0, keep_duplicates=False)
    assert len(entries) > 0
    np.save(tmp_path / "order.npy", entries)
    (tmp_path / "parts.json").write_text(json.dumps([str(task.folder)]))
    encode = EncodeTask(
        tmp_path / "parts.json",
        0,
        tmp_path / "order.npy",
        tmp_path / "tokenizer.model",
        tmp_path / "here",
    )
    encode.out.mkdir()
    encode_bucket(encode, Tally())
    elsewhere = encode._replace(out=tmp_path / "there")
    elsewhere.out.mkdir()
    for _ in range(2):
        do_task(encode_bucket, elsewhere, str(tmp_path / "0.error"))
        assert files_under(elsewhere.out) == files_under(encode.out)
        assert all(found.is_file() for found in elsewhere.out.iterdir())


def test_a_document_that_cannot_be_read_is_told_to_who_asked_and_not_tried_again(tmp_path):
    error = tmp_path / "0.error"
    do_task(read_part, read_task(tmp_path, skip=False), str(error))
    assert "bad.txt" in error.read_text()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    with pytest.raises(RuntimeError, match="does not see .*every worker has mounted"):
        do_task(read_part, read_task(tmp_path), str(tmp_path / "elsewhere" / "0.error"))


# From here on with Beam.


def run_beam(*args: object, script: str | None = None, cwd: Path = ROOT):
    assert BEAM_PYTHON.exists(), f"{BEAM_PYTHON} is missing: run `make setup-beam`"
    command = [BEAM_PYTHON, *(("-c", script) if script else (ROOT / "isoflop.py",))]
    return subprocess.run(
        [*map(str, command), "prepare", *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_same_corpus(beam: Path, local: Path) -> None:
    ours, theirs = open_corpus(beam), open_corpus(local)
    cards = [{k: v for k, v in corpus.card.items() if k != "files"} for corpus in (ours, theirs)]
    assert cards[0] == cards[1]
    assert ours.tokenizer.model_bytes == theirs.tokenizer.model_bytes
    for split in SPLITS:
        for number in range(ours.splits[split].chunks):
            ours_chunk, theirs_chunk = (c.stream(split).chunk(number) for c in (ours, theirs))
            assert contents(ours_chunk) == contents(theirs_chunk)
        assert list(ours.stream(split).check()) == list(range(theirs.splits[split].chunks))
    assert not (beam / ".preparing").exists()
    assert not (beam / "downloads").exists()


def lines(rng: random.Random, count: int) -> str:
    words = "the of model token data row batch seed value def return é 日本 \U0001f469".split()
    return "\n".join(
        f"{' '.join(rng.choices(words, k=9))} {rng.randrange(10**6)}" for _ in range(count)
    )


@pytest.fixture(scope="module")
def messy_folder(tmp_path_factory) -> Path:
    """45 files of text, JSON lines and gzip, with repeated, blank and unreadable documents."""
    folder = tmp_path_factory.mktemp("messy")
    rng = random.Random(5)
    texts = [lines(rng, rng.choice([1, 5, 40, 200, 900])) for _ in range(40)]
    bad_rows = ['{"text": "cut o', '{"text": "  \\n "}', '{"other": 1}']
    for i in range(45):
        text = rng.choice(texts)
        if i % 3 == 0:
            (folder / f"{i:02}.txt").write_text(text, "utf-8")
        elif i % 3 == 1:
            (folder / f"{i:02}.txt.gz").write_bytes(gzip.compress(text.encode()))
        else:
            rows = [json.dumps({"text": rng.choice([lines(rng, 3), text])}) for _ in range(20)]
            rows += rng.choices(bad_rows, k=3)
            rng.shuffle(rows)
            (folder / f"{i:02}.jsonl").write_text("\n".join(rows), "utf-8")
    (folder / "bad.txt").write_bytes(b"\xff\xfe")
    (folder / "blank.txt").write_text(" \n")
    return folder


@pytest.fixture(scope="module")
def local_corpus(messy_folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("local")
    source = open_source(str(messy_folder))
    preparation = Preparation(
        vocab_size=600, seed=3, symbols=("<mask>",), skip_problems=True, workers=1
    )
    prepare_corpus(source, out, preparation)
    return out


MESSY = ("--vocab-size=600", "--seed=3", "--symbols=mask", "--skip-problems")


@pytest.mark.slow
def test_beam_prepares_the_corpus_of_the_local_builder(messy_folder, local_corpus, tmp_path):
    out = tmp_path / "beam"
    args = (messy_folder, "--out", out, "--runner=direct", *MESSY)
    done = run_beam(*args, script=SMALL_FILES)
    assert done.returncode == 0, done.stderr
    assert_same_corpus(out, local_corpus)
    card = open_corpus(out).card
    assert sum("-train.array_record" in name for name in card["files"]) > 1
    assert card["duplicates"]["documents"] > 0
    assert set(card["skipped"]) == {
        "blank", "invalid UTF-8", "malformed JSON", "missing text field",
    }  # fmt: skip

    # Again: nothing to do. With another seed: another corpus, refused. Local: the same corpus.
    written = (out / "corpus.json").stat().st_mtime_ns
    assert run_beam(*args).returncode == 0
    other = run_beam(*args, "--seed=4")
    assert (other.returncode, other.stderr.count("isoflop: error: out:")) == (2, 1)
    preparation = Preparation(vocab_size=600, seed=3, symbols=("<mask>",), skip_problems=True)
    prepare_corpus(open_source(str(messy_folder)), out, preparation)
    assert (out / "corpus.json").stat().st_mtime_ns == written


@pytest.mark.slow
def test_beam_in_several_processes_prepares_the_same_corpus(messy_folder, local_corpus, tmp_path):
    options = ("--beam-options", "direct_num_workers=2", "direct_running_mode=multi_processing")
    args = (messy_folder, "--out", "beam", "--runner=direct", *MESSY, *options)
    done = run_beam(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_corpus(tmp_path / "beam", local_corpus)


@pytest.fixture
def job_service(tmp_path) -> Iterator[str]:
    """Beam's own job service, which speaks what Flink's and Spark's speak: HOST:PORT."""
    assert BEAM_PYTHON.exists(), f"{BEAM_PYTHON} is missing: run `make setup-beam`"
    port_file = tmp_path / "port"
    module = "apache_beam.runners.portability.local_job_service_main"
    process = subprocess.Popen(
        [BEAM_PYTHON, "-m", module, "--port=0", f"--port_file={port_file}"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            if port_file.exists():
                break
            assert process.poll() is None, "the job service has died"
            time.sleep(0.1)
        yield f"localhost:{port_file.read_text()}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["flink", "spark"])
def test_a_job_server_is_given_pipelines_that_prepare_the_same_corpus(
    runner, job_service, messy_folder, local_corpus, tmp_path
):
    options = ("--beam-options", f"job_endpoint={job_service}", "environment_type=LOOPBACK")
    args = (messy_folder, "--out", tmp_path / "beam", f"--runner={runner}", *MESSY, *options)
    done = run_beam(*args)
    assert done.returncode == 0, done.stderr
    assert_same_corpus(tmp_path / "beam", local_corpus)


@pytest.mark.slow
def test_beam_cuts_a_single_document_as_the_local_builder_does(tmp_path):
    (tmp_path / "one.txt").write_text(lines(random.Random(1), 400), "utf-8")
    args = (tmp_path / "one.txt", "--out", tmp_path / "beam", "--runner=direct")
    done = run_beam(*args, "--vocab-size=400")
    assert done.returncode == 0, done.stderr
    source = open_source(str(tmp_path / "one.txt"))
    prepare_corpus(source, tmp_path / "local", Preparation(vocab_size=400))
    assert_same_corpus(tmp_path / "beam", tmp_path / "local")


@pytest.mark.slow
def test_beam_holds_out_the_pinned_files_of_the_standard_library(tmp_path):
    done = run_beam("stdlib", "--out", tmp_path / "beam", "--runner=direct", "--vocab-size=1024")
    assert done.returncode == 0, done.stderr
    prepare_corpus(open_source("stdlib"), tmp_path / "local", Preparation(vocab_size=1024))
    assert_same_corpus(tmp_path / "beam", tmp_path / "local")


@pytest.mark.slow
@pytest.mark.parametrize(
    "args, message",
    [
        ((), "bad.txt"),  # without --skip-problems
        (("--beam-options", "direct_num_worker=2"), "did you mean 'direct_num_workers'?"),
        (("--beam-options", "direct_num_workers=two"), "invalid int value: 'two'"),
    ],
)
def test_bad_input_to_beam_is_one_line(args, message, tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "good.txt").write_text("text")
    (tmp_path / "text" / "bad.txt").write_bytes(b"\xff")
    done = run_beam(tmp_path / "text", "--out", tmp_path / "out", "--runner=direct", *args)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("isoflop: error")]
    assert (done.returncode, message in line) == (2, True)
    assert "Traceback" not in done.stderr
