"""Preparing a corpus with Apache Beam: the same corpus as prepare.py makes, on many machines.

Reading and encoding are the tasks of a local preparation, one Beam element each; the chunks are
made and written by TFDS's Beam path (beam_chunks.py). What is small stays in the process that
starts it: sorting the keys, finding duplicates, training the tokenizer, the card.

Workers exchange documents and tokens as files under OUT/.preparing, so OUT must be one folder
under the same path on every worker and here: NFS, Lustre and the like. A worker that does not see
it says so. Only chunks travel through Beam, in TFDS's writer. Workers also need the source's files
under the same path or URL, and isoflop with the packages of requirements/beam.txt.

direct     runs here, in one process unless direct_num_workers and direct_running_mode ask for
           more; holds all chunks in memory, so it is for trying things out.
flink,     need Java and Beam's job server, which Beam downloads, or job_endpoint=HOST:PORT of one
spark      that runs; environment_type=LOOPBACK for workers on this machine, else an image.
dataflow   needs apache-beam[gcp], project=, region=, temp_location=gs://..., and an image
           (sdk_container_image=) that mounts the shared folder when it starts. Filestore (NFS)
           does; a bucket under GCS FUSE may not: files grow here, and folders are renamed as one.

Tested are direct, and flink and spark as far as Beam's own job service stands in for theirs; no
real cluster, and Dataflow not at all.

Beam may give a task to several workers, at once too: each works in a folder of its own, and what
is done is put in its place by one rename.
"""

import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import InputError
from data.beam_chunks import BeamTokenChunks, bucket_files
from data.beam_runner import BeamRunner, open_runner, require_shared_folder
from data.corpus import Corpus
from data.corpus_card import SPLITS, SplitTotals
from data.encode import EncodedSplit, EncodeTask, ReadTask, encode_bucket, read_part
from data.parallel import Tally
from data.prepare import (
    WORK_NAME,
    Execution,
    Preparation,
    Progress,
    prepare_corpus,
    silent,
    write_bytes,
)
from data.sources import TextSource
from data.spool import read_part_record

# Tasks are cut for so many workers where the user names no number: more than that also work.
_WORKERS = 64


def prepare_with_beam(
    source: TextSource,
    out_dir: str | os.PathLike,
    preparation: Preparation,
    runner: str,
    beam_options: Sequence[str] = (),
    progress: Progress = silent,
) -> Corpus:
    """Writes the corpus of a source into a folder, as `prepare_corpus` does, with Beam.

    Documents, tokens, their order and the card are those of `prepare_corpus`; the number of files
    may differ. Either goes on with what the other one left when it was interrupted, if both cut
    the source into as many parts.

    Args:
        out_dir: a folder that all workers and this process see under the same path.
        runner: direct, flink, spark or dataflow.
        beam_options: of the runner, as NAME=VALUE.

    Raises:
        InputError: Beam is missing, a runner or option it does not have, a folder that workers
            cannot see, or whatever `prepare_corpus` raises.
    """
    out = Path(out_dir)
    beam_runner = open_runner(runner, beam_options)
    require_shared_folder(out, runner)
    out = out.absolute()
    execution = Execution(
        workers=preparation.workers or _WORKERS,
        run=partial(_run_tasks, out / WORK_NAME, beam_runner),
        chunks=partial(_chunks, beam_runner),
    )
    return prepare_corpus(source, out, preparation, progress, execution)


def _run_tasks(
    work: Path,
    runner: BeamRunner,
    function: Callable[[Any, Tally], Any],
    tasks: Sequence[Any],
    *,
    workers: int,
    on_tick: Callable[[int, int], None],
) -> Iterator[Any]:
    """`run_tasks` by a Beam pipeline: all are done before the first result is given."""
    import apache_beam as beam

    for part in work.glob("part-*"):  # of readers that were killed
        if read_part_record(part) is None:
            shutil.rmtree(part)
    folder = work / f"tasks-{secrets.token_hex(8)}"
    folder.mkdir()
    errors = [folder / f"{number:06}.error" for number in range(len(tasks))]
    with beam.Pipeline(runner=runner.name, options=runner.options()) as pipeline:
        _ = (
            pipeline
            | beam.Create(list(zip(tasks, map(str, errors), strict=True)))
            | "Spread" >> beam.Reshuffle()
            | f"{function.__name__}" >> beam.MapTuple(partial(do_task, function))
        )
    tally = Tally()
    for task, error in zip(tasks, errors, strict=True):
        if error.exists():
            raise InputError(error.read_text("utf-8"))
        # What a task gives stands on disk, and doing it again only reads that.
        yield function(task, tally)
        on_tick(*tally.read())
    shutil.rmtree(folder)


def do_task(function: Callable[[Any, Tally], Any], task: Any, error_file: str) -> None:
    """Does a task on a worker; a user's mistake is left as a text in `error_file`.

    Raises:
        RuntimeError: its folder is not there, so this worker sees other folders than its driver.
    """
    error_path = Path(error_file)
    if not error_path.parent.exists():
        raise RuntimeError(
            f"out: the worker {socket.gethostname()} does not see {error_path.parent}, which was "
            "just made; expected a folder that every worker has mounted under the same path"
        )
    try:
        _ATTEMPTS[function](task)
    except InputError as error:
        # Not raised: runners would try again, and report it as a failure of theirs.
        write_bytes(error_path, str(error).encode())


def _attempt_to_read(task: ReadTask) -> None:
    if read_part_record(task.folder) is not None:
        return
    attempt = task.folder.with_name(f"{task.folder.name}.{secrets.token_hex(8)}")
    try:
        read_part(task._replace(folder=attempt), Tally())
        try:
            attempt.rename(task.folder)
        except OSError:  # another worker was first
            if read_part_record(task.folder) is None:
                raise
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


def _attempt_to_encode(task: EncodeTask) -> None:
    if all((task.out / f"{task.bucket:04}.{split}.lengths.npy").exists() for split in SPLITS):
        return
    attempt = task.out / f"{task.bucket:04}.{secrets.token_hex(8)}"
    attempt.mkdir()
    try:
        for encoded in encode_bucket(task._replace(out=attempt), Tally()).values():
            lengths = encoded.path.with_suffix(".lengths.npy")
            for path in (encoded.path, lengths):  # the second says that the first is whole
                path.replace(task.out / path.name)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


_ATTEMPTS = {read_part: _attempt_to_read, encode_bucket: _attempt_to_encode}


def _chunks(
    runner: BeamRunner,
    out: Path,
    buckets: Iterator[dict[str, EncodedSplit]],
    totals: dict[str, SplitTotals],
    *,
    num_buckets: int,
    dtype: np.dtype,
    progress: Progress,
) -> BeamTokenChunks:
    """`chunks_of_buckets` for Beam, which needs the counts of all buckets first."""
    found: dict[str, list[tuple[Path, int, int]]] = {split: [] for split in SPLITS}
    for bucket in buckets:
        for split, (path, lengths, num_bytes) in bucket.items():
            totals[split].add(lengths, num_bytes)
            found[split].append((path, int(lengths.sum()), len(lengths)))
    streams = {split: bucket_files(found[split], dtype) for split in SPLITS}
    assert all(len(files.paths) == num_buckets for files in streams.values())
    progress("writing", 0.0)
    return BeamTokenChunks(streams, dtype=dtype, data_dir=out, runner=runner)
