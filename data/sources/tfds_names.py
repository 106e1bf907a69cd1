"""Datasets of TensorFlow Datasets by name, read without TensorFlow.

    tfds:NAME[/CONFIG][:VERSION][:SPLIT][?data_dir=FOLDER]

e.g. "tfds:c4/en:train", "tfds:wikipedia/20230601.en:train[:10%]". A dataset that lies prepared in
the data folder is read from its files, ArrayRecord or TFRecord, without the code that made it; any
other is downloaded and prepared as ArrayRecord first, which for some datasets needs the
`tensorflow` extra.

An id is NAME/CONFIG:SPLIT#INDEX with the index in the whole split, so "train[:10%]" and
"train[:20%]" call the same document the same.
"""

import hashlib
import os
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import Any

from configs.errors import InputError, require
from data.sources.foreign_errors import first_line
from data.sources.tfds_shards import TfdsShard, builder_at

# Without dots in front and slashes inside, no name leads out of the data folder.
_SPEC = re.compile(
    r"tfds:(?P<name>[A-Za-z]\w*)(/(?P<config>[\w+-][\w.+-]*))?"
    r"(:(?P<version>\d+\.\d+\.\d+))?(:(?P<split>[^?:/][^?/]*))?(\?data_dir=(?P<data_dir>.+))?"
)
_EXPECTED = "tfds:NAME/CONFIG:SPLIT, e.g. tfds:wikipedia/20230601.en:train[:10%]"
_READABLE_FORMATS = ("array_record", "tfrecord")


class TfdsSource:
    """A split of a dataset of TensorFlow Datasets."""

    kind = "tfds"
    pinned_held_out = None

    def __init__(self, spec: str, *, text_field: str = "text"):
        """Takes the name apart; the dataset is looked for, or prepared, once it is asked for.

        Args:
            spec: "tfds:NAME/CONFIG:SPLIT?data_dir=FOLDER"; without the parts that are optional,
                the dataset's first config and newest version, "train", and $TFDS_DATA_DIR or
                ~/tensorflow_datasets.
            text_field: the feature that is the text; "meta.body" for a nested one.

        Raises:
            InputError: a name that is none.
        """
        match = _SPEC.fullmatch(spec)
        if match is None:
            raise InputError(f"source: got {spec!r}, expected {_EXPECTED}")
        self.spec = spec
        self.text_field = text_field
        self.dataset = "/".join(filter(None, (match["name"], match["config"])))
        self.split = match["split"] or "train"
        self._name = ":".join(filter(None, (self.dataset, match["version"])))
        self._data_dir = match["data_dir"]

    def shards(self) -> Sequence[TfdsShard]:
        """The files of the split in order.

        Raises:
            InputError: no such dataset, split or feature; it cannot be downloaded or prepared; it
                is stored in a format that is not read.
        """
        return self._shards

    def size_bytes(self) -> int:
        """The size of the files, in proportion to the examples taken from them."""
        sizes = [
            _stat(shard.path).length * shard.take / shard.file_examples for shard in self._shards
        ]
        return round(sum(sizes))

    def signature(self) -> str:
        """A hash of the files' names, sizes and times of change, and of the examples taken."""
        digest = hashlib.blake2b(digest_size=16)
        for shard in self._shards:
            stat = _stat(shard.path)
            taken = f"{shard.skip}+{shard.take} of {shard.file_examples}"
            digest.update(f"{shard.path}\0{stat.length}\0{stat.mtime}\0{taken}\n".encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, str]:
        """What the corpus card says about this source."""
        info = self._builder.info
        return {"kind": self.kind, "spec": self.spec, "dataset": info.full_name}

    @cached_property
    def _builder(self) -> Any:
        data_dir = self._data_dir or os.environ.get("TFDS_DATA_DIR") or _default_data_dir()
        data_dir = os.path.expanduser(data_dir)
        builder_dir = _find_prepared(self._name, data_dir) or _prepare(self._name, data_dir)
        if "://" not in data_dir:
            inside = Path(builder_dir).resolve().is_relative_to(Path(data_dir).resolve())
            require(inside, "source", self.spec, f"a dataset inside {data_dir}")
        formats = {f.value for f in builder_at(builder_dir, None).info.available_file_formats()}
        for file_format in _READABLE_FORMATS:
            if file_format in formats:
                return builder_at(builder_dir, file_format)
        raise InputError(
            f"source: got {self.spec!r} (stored as {', '.join(sorted(formats))} in {builder_dir}), "
            f"expected {' or '.join(_READABLE_FORMATS)}; prepare it anew in another data_dir"
        )

    @cached_property
    def _shards(self) -> list[TfdsShard]:
        info = self._builder.info
        _check_feature(info.features, self.text_field, self.spec)
        try:
            split = info.splits[self.split]
            parts = [part for part in split.file_instructions if part.take]
        except Exception as error:  # TFDS has one for each way of being wrong
            raise InputError(
                f"source: got {self.spec!r} ({first_line(error)}), "
                f"expected a split of {', '.join(info.splits)}, or part of one, as in train[:10%]"
            ) from error
        require(bool(parts), "source", self.spec, "a split with examples")
        starts = _file_starts(info)
        shards = []
        for part in parts:
            split_name, start = starts[os.fspath(part.filename)]
            shard = TfdsShard(
                builder_dir=os.fspath(self._builder.data_dir),
                file_format=info.file_format.value,
                path=os.fspath(part.filename),
                file_examples=part.examples_in_shard,
                skip=part.skip,
                take=part.take,
                dataset=f"{self.dataset}:{split_name}",
                first=start + part.skip,
                text_field=self.text_field,
            )
            shards.append(shard)
        assert sum(shard.take for shard in shards) == split.num_examples
        _check_no_overlap(shards, self.spec)
        return shards


def _file_starts(info: Any) -> dict[str, tuple[str, int]]:
    """File -> its split, and the index in it of the file's first example."""
    starts = {}
    for name, split in info.splits.items():
        start = 0
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True):
            starts[os.fspath(path)] = name, start
            start += length
    return starts


def _check_no_overlap(shards: Sequence[TfdsShard], spec: str) -> None:
    by_file = defaultdict(list)
    for shard in shards:
        by_file[shard.path].append((shard.skip, shard.skip + shard.take))
    for ranges in by_file.values():
        ranges.sort()
        apart = all(end <= start for (_, end), (start, _) in zip(ranges, ranges[1:], strict=False))
        require(apart, "source", spec, "parts of splits that do not overlap")


def _check_feature(features: Any, text_field: str, spec: str) -> None:
    import tensorflow_datasets as tfds

    feature: Any = features
    for name in [text_field] if text_field in features else text_field.split("."):
        inside = isinstance(feature, tfds.features.FeaturesDict) and name in feature
        feature = feature[name] if inside else None
    is_string = feature is not None and feature.shape == () and feature.np_dtype in (object, str)
    if not is_string:
        found = "no feature" if feature is None else f"{type(feature).__name__} as feature"
        raise InputError(
            f"source: got {spec!r} ({found} {text_field!r}; it has {', '.join(features)}), "
            "expected the name of a feature that is text"
        )


def _find_prepared(name: str, data_dir: str) -> str | None:
    """The folder of a dataset that lies prepared in `data_dir`; None where there is none."""
    from tensorflow_datasets.core import read_only_builder, registered

    try:
        builder = read_only_builder.builder_from_files(name, data_dir=data_dir)
    except registered.DatasetNotFoundError:
        return None
    except Exception as error:
        raise InputError(
            f"source: got tfds:{name} ({first_line(error)}), "
            f"expected a readable dataset in {data_dir}"
        ) from error
    return os.fspath(builder.data_dir)


def _prepare(name: str, data_dir: str) -> str:
    """Downloads and prepares a dataset; its folder."""
    import tensorflow_datasets as tfds

    try:
        # TFDS prints what it does to stdout, which belongs to the command that runs.
        with redirect_stdout(sys.stderr):
            tfds.disable_progress_bar()
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
            builder.download_and_prepare(file_format="array_record")
    except ImportError as error:
        raise InputError(
            f"source: got tfds:{name} ({first_line(error)}), expected what its preparation needs: "
            "pip install 'isoflop[tensorflow]'"
        ) from error
    except Exception as error:  # each dataset and each server has its own
        raise InputError(
            f"source: got tfds:{name} ({first_line(error)}), expected a dataset prepared in "
            f"{data_dir}, or one that TFDS can download"
        ) from error
    return os.fspath(builder.data_dir)


def _default_data_dir() -> str:
    from tensorflow_datasets.core import constants

    return constants.DATA_DIR


def _stat(path: str) -> Any:
    from etils import epath

    return epath.Path(path).stat()
