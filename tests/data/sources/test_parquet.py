import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import InputError
from data.sources import Problems, documents_of, open_source


def read(path, problems=None, **options):
    source = open_source(str(path), **options)
    return [(d.id, d.text) for d in documents_of(source, problems)]


def write(path, texts, type=None, **options):
    column = pa.array(texts, type)
    pq.write_table(pa.table({"text": column, "n": range(len(texts))}), path, **options)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
def test_rows_of_all_row_groups_are_documents(tmp_path, compression):
    texts = [f"row {i} é\u2028" + "x" * i for i in range(1, 1001)]
    write(tmp_path / "a.parquet", texts, row_group_size=70, compression=compression)
    expected = [(f"a.parquet:{i}", text) for i, text in enumerate(texts, start=1)]
    assert read(tmp_path) == expected


@pytest.mark.parametrize(
    "type",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
)
def test_every_kind_of_string_column_is_read(tmp_path, type):
    texts = ["a", "é", "a", "long enough not to be kept inline"]
    write(tmp_path / "a.parquet", texts, type)
    assert [text for _, text in read(tmp_path)] == texts


def test_long_texts_come_a_few_at_a_time_and_whole(tmp_path):
    texts = [chr(ord("a") + i) * 5_000_000 for i in range(6)]
    write(tmp_path / "a.parquet", texts, row_group_size=3)
    assert [text for _, text in read(tmp_path)] == texts


def test_the_text_may_be_a_field_of_a_struct(tmp_path):
    rows = [{"meta": {"body": "a", "n": 1}}, {"meta": {"body": "b", "n": 2}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [text for _, text in read(tmp_path, text_field="meta.body")] == ["a", "b"]
    for field in ("meta.nothing", "meta.body.more", "nothing"):
        with pytest.raises(InputError, match=rf"no column '{field}'; it has 'meta'\), expected"):
            read(tmp_path, text_field=field)
    with pytest.raises(InputError, match="'meta' is of type struct"):
        read(tmp_path, text_field="meta")


def test_a_missing_column_names_those_there_are(tmp_path):
    write(tmp_path / "a.parquet", ["a"])
    with pytest.raises(InputError, match=r"a.parquet \(no column 'body'; it has 'text', 'n'\)"):
        read(tmp_path, Problems(skip=True), text_field="body")


def test_a_column_of_another_type_is_an_error(tmp_path):
    write(tmp_path / "a.parquet", ["a"])
    with pytest.raises(InputError, match=r"a.parquet \(column 'n' is of type int64\), expected"):
        read(tmp_path, Problems(skip=True), text_field="n")


def test_nulls_are_missing_text_and_blank_rows_are_blank(tmp_path):
    write(tmp_path / "a.parquet", ["a", None, " ", "b"])
    with pytest.raises(InputError, match=r"a.parquet:2 \(no text in the field 'text'"):
        read(tmp_path)
    problems = Problems(skip=True)
    assert read(tmp_path, problems) == [("a.parquet:1", "a"), ("a.parquet:4", "b")]
    assert problems.skipped == {"missing text field": 1, "blank": 1}


def test_bytes_that_are_not_utf8_are_a_problem(tmp_path):
    column = pa.array([b"a", b"x\n\xff", b"b"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet:2 \(invalid UTF-8, .* in line 2 of the text"):
        read(tmp_path)
    problems = Problems(skip=True)
    assert [text for _, text in read(tmp_path, problems)] == ["a", "b"]
    assert problems.skipped == {"invalid UTF-8": 1}


@pytest.mark.parametrize("damage", ["cut", "changed", "no parquet", "empty"])
def test_damage_is_an_error_even_where_problems_are_passed_over(tmp_path, damage):
    path = tmp_path / "a.parquet"
    write(path, [f"row {i}" * 20 for i in range(5000)], row_group_size=1000)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "changed":
        data[len(data) // 2 : len(data) // 2 + 500] = b"\xff" * 500
    else:
        data = b"some text of no kind" if damage == "no parquet" else b""
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(path, Problems(skip=True))
    assert str(caught.value).startswith(f"source: got {path}:")
    assert ", expected a readable Parquet file" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_shard_is_read_from_its_pickle(tmp_path):
    write(tmp_path / "a.parquet", ["a", "b"])
    [shard] = open_source(str(tmp_path)).shards()
    again = pickle.loads(pickle.dumps(shard))
    assert [d.text for d in again.documents(Problems())] == ["a", "b"]
