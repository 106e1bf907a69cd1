"""Parquet files: every row a document, its text in one column, read a few rows at a time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from configs.errors import InputError
from data.sources.locations import StoredFile
from data.sources.records import text_of
from data.sources.text_source import Document, Problems

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_BYTES = 2**24
_MAX_BATCH_ROWS = 4096
_PAGE_BUFFER_BYTES = 2**20


def read_parquet(file: StoredFile, text_field: str, problems: Problems) -> Iterator[Document]:
    """The rows of a file in order, NAME:ROW their ids, rows counted from 1.

    Only the pages of the text column are read, about 16 MiB of text at a time.

    Raises:
        InputError: the file is damaged, has no column `text_field` ("meta.body" for a field of a
            struct), or has one of another type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with (
            file.open() as stream,
            pq.ParquetFile(stream, buffer_size=_PAGE_BUFFER_BYTES, pre_buffer=False) as parquet,
        ):
            _check_column(parquet.schema_arrow, text_field, file)
            batches = parquet.iter_batches(
                batch_size=_batch_rows(parquet.metadata, text_field),
                columns=[text_field],
                use_threads=False,
            )
            for batch in batches:
                for data in _binary_column(batch, text_field):
                    row += 1
                    where = f"{file.url}:{row}"
                    record = {text_field: data.as_py()}
                    text = text_of(record, text_field, where=where, problems=problems)
                    if text is not None:
                        yield Document(id=f"{file.name}:{row}", data=text)
    except (pa.ArrowException, OSError) as error:
        detail = " ".join(str(error).split())
        raise InputError(
            f"source: got {file.url}:{row + 1} ({detail}), expected a readable Parquet file"
        ) from error


def _check_column(schema: "pa.Schema", text_field: str, file: StoredFile) -> None:
    import pyarrow.types as types

    column = _field_type(schema, text_field)
    if column is None:
        raise InputError(
            f"source: got {file.url} (no column {text_field!r}; it has "
            f"{', '.join(map(repr, schema.names)) or 'none'}), expected the text in that column"
        )
    if types.is_dictionary(column):
        column = column.value_type
    if not (
        types.is_string(column) or types.is_large_string(column) or types.is_string_view(column)
    ):
        raise InputError(
            f"source: got {file.url} (column {text_field!r} is of type {column}), "
            "expected a column of strings"
        )


def _path_in(schema: "pa.Schema", text_field: str) -> list[str]:
    return [text_field] if text_field in schema.names else text_field.split(".")


def _field_type(schema: "pa.Schema", text_field: str) -> "pa.DataType | None":
    import pyarrow as pa

    first, *others = _path_in(schema, text_field)
    column: Any = schema.field(first).type if first in schema.names else None
    for name in others:
        if not isinstance(column, pa.StructType) or column.get_field_index(name) < 0:
            return None
        column = column.field(name).type
    return column


def _batch_rows(metadata: "pq.FileMetaData", text_field: str) -> int:
    """As many rows as hold about `_BATCH_BYTES` of text in the row group with the longest."""
    row_bytes = 1.0
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        sizes = [
            group.column(c).total_uncompressed_size
            for c in range(group.num_columns)
            if group.column(c).path_in_schema == text_field
        ]
        row_bytes = max(row_bytes, sum(sizes) / max(group.num_rows, 1))
    return max(1, min(_MAX_BATCH_ROWS, int(_BATCH_BYTES / row_bytes)))


def _binary_column(batch: "pa.RecordBatch", text_field: str) -> "pa.Array":
    """The text column as bytes, which pyarrow has not checked to be UTF-8."""
    import pyarrow as pa
    import pyarrow.compute as pc

    first, *others = _path_in(batch.schema, text_field)
    column = batch.column(first)
    for name in others:
        column = pc.call_function("struct_field", [column], pc.StructFieldOptions([name]))
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary(), safe=False)
