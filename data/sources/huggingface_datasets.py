"""Datasets of the Hugging Face Hub by name, and folders that its `datasets` package reads.

    hf:NAME[@CONFIG][:SPLIT]      e.g. "hf:allenai/c4@en:train", streamed from the Hub
    hf:FOLDER[@CONFIG][:SPLIT]    e.g. "hf:./text:train"; begins with "/", "./", "../" or "~"

A folder holds data files, or is what `save_to_disk` wrote. Needs the `datasets` extra. Code that
comes with a dataset is never run.

Ids are hf:NAME@CONFIG:SPLIT#INDEX, with the number of the data file in front of the index
("#3/0") where the dataset is streamed; a folder is called by the last part of its path.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from configs.errors import InputError, require
from data.sources.foreign_errors import first_line
from data.sources.locations import files_signature, find_files
from data.sources.records import text_of
from data.sources.text_source import Document, Problems

_SPEC = re.compile(
    r"hf:((?P<folder>(/|\./|\.\./|~).*?)|(?P<name>\w[\w.-]*(/\w[\w.-]*)?))"
    r"(@(?P<config>[\w.+-]+))?(:(?P<split>\w[\w.+-]*))?"
)
_SHARD_ROWS = 100_000


@dataclass(frozen=True)
class DatasetName:
    """What the user named.

    Attributes:
        path: the Hub's "owner/name" or an absolute folder.
        config: None for the only or default one.
        split: "train" unless named.
        is_folder: whether `path` is one.
    """

    path: str
    config: str | None
    split: str
    is_folder: bool

    def __str__(self) -> str:
        name = os.path.basename(self.path) if self.is_folder else self.path
        return f"hf:{name}{'@' + self.config if self.config else ''}:{self.split}"

    @property
    def is_saved(self) -> bool:
        """Whether `save_to_disk` wrote the folder: of one split, or of several."""
        files = ("state.json", "dataset_dict.json")
        return self.is_folder and any((Path(self.path) / name).is_file() for name in files)


@dataclass(frozen=True)
class HuggingFaceShard:
    """One data file of a streamed dataset, or some rows of a saved one.

    Attributes:
        dataset: the name it is loaded by.
        text_field: the column of the text.
        index, total: which of the streamed dataset's parts; of a saved one, of its rows.
    """

    dataset: DatasetName
    text_field: str
    index: int
    total: int

    @property
    def name(self) -> str:
        """The dataset and which part of it."""
        return f"{self.dataset}#{self.index}"

    def documents(self, problems: Problems) -> Iterator[Document]:
        """Its rows in order, blank ones left out.

        Raises:
            InputError: the dataset cannot be read.
        """
        for row_id, row in self._rows():
            where = f"{self.dataset}#{row_id}"
            data = text_of(row, self.text_field, where=where, problems=problems)
            if data is not None:
                yield Document(id=where, data=data)

    def _rows(self) -> Iterator[tuple[str, Mapping[str, object]]]:
        dataset = _load(self.dataset)
        if self.dataset.is_saved:
            start = self.index * _SHARD_ROWS
            rows = dataset.select(range(start, min(start + _SHARD_ROWS, len(dataset))))
            names = (str(row) for row in range(start, start + len(rows)))
        else:
            rows = dataset.shard(num_shards=self.total, index=self.index)
            names = (f"{self.index}/{row}" for row in count())
        reader = iter(rows)
        for name in names:
            try:
                row = next(reader)
            except StopIteration:
                return
            except Exception as error:  # of every format and of the network
                raise InputError(
                    f"source: got {self.dataset}#{name} ({first_line(error)}), "
                    "expected a row that `datasets` can read"
                ) from error
            yield name, row


class HuggingFaceSource:
    """A split of a dataset that the `datasets` package reads."""

    kind = "hf"
    pinned_held_out = None

    def __init__(self, spec: str, *, text_field: str = "text"):
        """Takes the name apart; the dataset is opened once it is asked for.

        Args:
            spec: "hf:NAME@CONFIG:SPLIT".
            text_field: the column of the text; "meta.body" for a field of a struct.

        Raises:
            InputError: a name that is none.
        """
        match = _SPEC.fullmatch(spec)
        if match is None:
            raise InputError(
                f"source: got {spec!r}, expected hf:NAME@CONFIG:SPLIT, e.g. hf:allenai/c4@en:train"
            )
        folder = match["folder"]
        self.spec = spec
        self.text_field = text_field
        self.dataset = DatasetName(
            path=os.path.abspath(os.path.expanduser(folder)) if folder else match["name"],
            config=match["config"],
            split=match["split"] or "train",
            is_folder=folder is not None,
        )

    def shards(self) -> Sequence[HuggingFaceShard]:
        """The data files of a streamed dataset, or a saved one's rows by the 100,000.

        Raises:
            InputError: the extra is missing, the dataset or split cannot be found, or it has no
                such column.
        """
        rows, columns = self._loaded, self._loaded.column_names
        names = {self.text_field, self.text_field.partition(".")[0]}
        if columns is not None and names.isdisjoint(columns):
            raise InputError(
                f"source: got {self.spec!r} (no column {self.text_field!r}; it has "
                f"{', '.join(columns)}), expected the name of the text's column"
            )
        total = -(-len(rows) // _SHARD_ROWS) if self.dataset.is_saved else rows.num_shards
        require(total > 0, "source", self.spec, "a dataset with rows")
        return [HuggingFaceShard(self.dataset, self.text_field, i, total) for i in range(total)]

    def size_bytes(self) -> int | None:
        """What the dataset's information says; a folder's files otherwise; None if neither."""
        split = (self._loaded.info.splits or {}).get(self.dataset.split)
        if split is not None and split.num_bytes:
            return split.num_bytes
        if not self.dataset.is_folder:
            return None
        sizes = [file.size_bytes for file in find_files([self.dataset.path])]
        return sum(size for size in sizes if size is not None)

    def signature(self) -> str | None:
        """A hash of a folder's files' names, sizes and times of change; None for the Hub."""
        return files_signature(find_files([self.dataset.path])) if self.dataset.is_folder else None

    def describe(self) -> dict[str, str]:
        """What the corpus card says about this source."""
        return {"kind": self.kind, "spec": self.spec}

    @cached_property
    def _loaded(self) -> Any:
        return _load(self.dataset)


def _import_datasets() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "source: got an hf: name without the package `datasets`, "
            "expected the extra: pip install 'isoflop[datasets]'"
        ) from error
    return datasets


@lru_cache(maxsize=8)
def _load(name: DatasetName) -> Any:
    datasets = _import_datasets()
    datasets.disable_progress_bars()
    try:
        if name.is_saved:
            return _saved_split(datasets.load_from_disk(name.path), name)
        # Without `trust_remote_code`: where a dataset needs its own code, this is an error.
        return datasets.load_dataset(name.path, name.config, split=name.split, streaming=True)
    except InputError:
        raise
    except Exception as error:  # the Hub's, the network's, and those of every format
        raise InputError(
            f"source: got {name} ({first_line(error)}), "
            "expected a dataset of the Hub or a folder of data files, and a split of it"
        ) from error


def _saved_split(saved: Any, name: DatasetName) -> Any:
    """One split of what `load_from_disk` gave: a dict of them, or the only one."""
    splits = saved if isinstance(saved, Mapping) else {str(saved.split or name.split): saved}
    if name.split not in splits:
        raise InputError(
            f"source: got {name} ({name.path} has the splits {', '.join(splits)}), "
            "expected one of them"
        )
    return splits[name.split]
