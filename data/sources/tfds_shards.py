"""The files of a dataset that TFDS has prepared: ArrayRecord or TFRecord, without TensorFlow."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, BinaryIO, cast

from configs.errors import InputError
from data.sources.foreign_errors import first_line
from data.sources.records import text_of
from data.sources.text_source import Document, Problems
from data.sources.tfrecord import read_tfrecords

_BATCH_RECORDS = 64


@dataclass(frozen=True)
class TfdsShard:
    """The examples of a split that one file holds, or some of them.

    Attributes:
        builder_dir: the folder of the prepared dataset, whose features.json says how to decode.
        file_format: "array_record" or "tfrecord".
        path: the file's.
        file_examples: how many it holds.
        skip, take: which of them, e.g. 5 and 20 for the 6th to the 25th.
        dataset: what ids begin with, such as "c4/en:train".
        first: the index in the whole split of the first one taken.
        text_field: the feature that is the text.
    """

    builder_dir: str
    file_format: str
    path: str
    file_examples: int
    skip: int
    take: int
    dataset: str
    first: int
    text_field: str

    @property
    def name(self) -> str:
        """The path of its file."""
        return self.path

    def documents(self, problems: Problems) -> Iterator[Document]:
        """Its examples in order, blank ones left out.

        Raises:
            InputError: the file is damaged, or holds more or fewer examples than the dataset's
                information says.
        """
        features = builder_at(self.builder_dir, self.file_format).info.features
        records = self._checked_records()
        for index, record in enumerate(records, start=self.first):
            where = f"{self.dataset}#{index}"
            try:
                example = features.deserialize_example_np(record)
            except Exception as error:  # protobuf's, NumPy's and TFDS's own
                raise InputError(
                    f"source: got {where} in {self.path} ({first_line(error)}), "
                    "expected an example that the dataset's features describe"
                ) from error
            data = text_of(example, self.text_field, where=where, problems=problems)
            if data is not None:
                yield Document(id=where, data=data)

    def _checked_records(self) -> Iterator[bytes]:
        read = _array_records if self.file_format == "array_record" else _tfrecords
        count = 0
        try:
            for record in read(self):
                count += 1
                yield record
        except Exception as error:  # the readers of both formats, and of remote files
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"source: got {self.path} ({first_line(error)} after {count} examples), "
                "expected a readable file; prepare the dataset anew"
            ) from error
        if count != self.take:
            raise _wrong_count(self, f"{self.skip + count}")


@lru_cache(maxsize=8)
def builder_at(builder_dir: str, file_format: str | None) -> Any:
    """TFDS's builder of the dataset that lies prepared in a folder, without the code that made it.

    Args:
        builder_dir: e.g. "~/tensorflow_datasets/c4/en/3.1.0".
        file_format: one of those it is stored in; None for the one it was made in.
    """
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(builder_dir, file_format=file_format)


def _array_records(shard: TfdsShard) -> Iterator[bytes]:
    from array_record.python.array_record_module import ArrayRecordReader

    with closing(ArrayRecordReader(shard.path)) as reader:
        if reader.num_records() != shard.file_examples:
            raise _wrong_count(shard, str(reader.num_records()))
        stop = shard.skip + shard.take
        for start in range(shard.skip, stop, _BATCH_RECORDS):
            yield from reader.read(start, min(start + _BATCH_RECORDS, stop))


def _tfrecords(shard: TfdsShard) -> Iterator[bytes]:
    from etils import epath

    with epath.Path(shard.path).open("rb") as stream:
        records = read_tfrecords(cast(BinaryIO, stream))
        yield from islice(records, shard.skip, shard.skip + shard.take)
        takes_all = shard.skip + shard.take == shard.file_examples
        if takes_all and next(records, None) is not None:
            raise _wrong_count(shard, f"more than {shard.file_examples}")


def _wrong_count(shard: TfdsShard, got: str) -> InputError:
    return InputError(
        f"source: got {shard.path} with {got} examples, expected {shard.file_examples} as the "
        "dataset's dataset_info.json says; prepare the dataset anew"
    )
