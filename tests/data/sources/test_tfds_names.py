import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorboardX.record_writer import RecordWriter

from configs.errors import InputError
from data.sources import Problems, documents_of, open_source

TEXTS = [f"text {i} é\u2028" for i in range(300)]

# Run in a process of its own, so that no other knows the builder's class.
BUILD = """
import sys
import numpy as np
import tensorflow_datasets as tfds

class MadeUp(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="20230601.en")]

    def _info(self):
        text = tfds.features.Text()
        features = {"text": text, "meta": {"body": text, "n": np.int64}, "many": np.int64}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(300), "test": self._generate_examples(10)}

    def _generate_examples(self, count):
        for i in range(count):
            text = " " if count == 10 and i == 3 else f"text {i} \\xe9\\u2028"
            yield i, {"text": text, "meta": {"body": f"body {i}", "n": i}, "many": i}

tfds.disable_progress_bar()
config = tfds.download.DownloadConfig(num_shards=3)
MadeUp(data_dir=sys.argv[1], file_format="array_record").download_and_prepare(
    download_config=config, file_format="array_record"
)
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    script = folder / "build.py"
    script.write_text(BUILD)
    # TFDS lists the folder that the builder's module lies in, so it cannot be __main__.
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(folder)!r}); import build",
    ]
    subprocess.run([*command, str(folder / "data")], check=True, capture_output=True)
    return folder / "data"


@pytest.fixture
def tfrecord_dir(data_dir, tmp_path):
    """The same dataset with the same examples in the same order, as TFRecord."""
    source = data_dir / "made_up" / "20230601.en" / "1.2.0"
    target = tmp_path / "made_up" / "20230601.en" / "1.2.0"
    target.mkdir(parents=True)
    info = json.loads((source / "dataset_info.json").read_text())
    text = json.dumps(info).replace("array_record", "tfrecord")
    (target / "dataset_info.json").write_text(text)
    (target / "features.json").write_bytes((source / "features.json").read_bytes())
    for path in source.glob("*.array_record-*"):
        writer = RecordWriter(str(target / path.name.replace("array_record", "tfrecord")))
        reader = ArrayRecordReader(str(path))
        for record in reader.read_all():
            writer.write(record)
        writer.close()
        reader.close()
    return tmp_path


def spec(folder, split=""):
    return f"tfds:made_up/20230601.en{split}?data_dir={folder}"


def read(name, problems=None, **options):
    source = open_source(name, **options)
    return [(d.id, d.text) for d in documents_of(source, problems)]


def test_every_example_of_a_prepared_dataset_is_read_by_name(data_dir, capsys):
    documents = read(spec(data_dir))
    assert [name for name, _ in documents] == [
        f"made_up/20230601.en:train#{i}" for i in range(len(TEXTS))
    ]
    assert sorted(text for _, text in documents) == sorted(TEXTS)
    assert read(spec(data_dir)) == documents == read(spec(data_dir, ":1.2.0:train"))
    assert capsys.readouterr().out == ""


def test_reading_loads_neither_tensorflow_nor_jax(data_dir):
    script = (
        "import sys\n"
        "from data.sources import documents_of, open_source\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        f"print(len(list(documents_of(open_source({spec(data_dir)!r})))))\n"
        "assert not {'tensorflow', 'jax', 'torch'} & set(sys.modules)\n"
    )
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "300\n"), result.stderr


def test_tfrecord_files_are_read_like_arrayrecord_files(data_dir, tfrecord_dir):
    assert read(spec(tfrecord_dir)) == read(spec(data_dir))
    part = ":train[10%:45%]"
    assert read(spec(tfrecord_dir, part)) == read(spec(data_dir, part)) != []


def test_a_part_of_a_split_has_the_ids_of_the_whole(data_dir):
    whole = read(spec(data_dir))
    assert read(spec(data_dir, ":train[:10%]")) == whole[:30]
    assert read(spec(data_dir, ":train[95:205]")) == whole[95:205]
    both = read(spec(data_dir, ":train[290:]+test"))
    assert both[:10] == whole[290:]
    assert both[10][0] == "made_up/20230601.en:test#0"


def test_blank_examples_are_counted(data_dir):
    problems = Problems()
    assert len(read(spec(data_dir, ":test"), problems)) == 9 and problems.skipped == {"blank": 1}


def test_the_text_may_be_a_nested_feature(data_dir):
    texts = [text for _, text in read(spec(data_dir), text_field="meta.body")]
    assert sorted(texts) == sorted(f"body {i}" for i in range(300))


@pytest.mark.parametrize("field", ["body", "many", "meta", "meta.n", "meta.body.more"])
def test_a_feature_that_is_not_text_names_those_there_are(data_dir, field):
    with pytest.raises(InputError, match=rf"^source: got .*'{field}'; it has .*text.*expected"):
        open_source(spec(data_dir), text_field=field).shards()


def test_the_data_folder_may_come_from_the_environment(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert len(read("tfds:made_up/20230601.en:test")) == 9


def test_shards_are_files_and_read_from_their_pickles(data_dir):
    source = open_source(spec(data_dir))
    shards = source.shards()
    assert len(shards) == 3 and all(Path(shard.name).is_file() for shard in shards)
    again = [pickle.loads(pickle.dumps(shard)) for shard in shards]
    documents = [(d.id, d.text) for shard in again for d in shard.documents(Problems())]
    assert documents == read(spec(data_dir))


def test_size_signature_and_card(data_dir):
    source, part = open_source(spec(data_dir)), open_source(spec(data_dir, ":train[:50%]"))
    files = sum(Path(shard.name).stat().st_size for shard in source.shards())
    assert source.size_bytes() == files and 0.4 < (part.size_bytes() or 0) / files < 0.6
    assert source.signature() == open_source(spec(data_dir)).signature() != part.signature()
    card = {"kind": "tfds", "spec": spec(data_dir), "dataset": "made_up/20230601.en/1.2.0"}
    assert source.describe() == card and source.pinned_held_out is None


@pytest.mark.parametrize("split", ["nope", "train[", "train[:10%]+nope", "train[5:5]"])
def test_a_split_that_is_none_names_the_source(data_dir, split):
    with pytest.raises(InputError, match="^source: got [^\n]*expected a split[^\n]*$"):
        open_source(spec(data_dir, f":{split}")).shards()


def test_parts_that_overlap_are_refused(data_dir):
    with pytest.raises(InputError, match="do not overlap"):
        open_source(spec(data_dir, ":train[:50%]+train[40%:60%]")).shards()


@pytest.mark.parametrize(
    "name",
    [
        "tfds:",
        "tfds:..",
        "tfds:../x",
        "tfds:/etc",
        "tfds:made_up/..",
        "tfds:made_up/../../x",
        "tfds:made_up/.config",
        "tfds:made_up/a/b",
        "tfds:made_up/a:../../train",
        "tfds:huggingface:made_up",
        "tfds:made_up:train?other=1",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(InputError, match="^source: got .*expected"):
        open_source(name).shards()


def test_a_dataset_that_a_link_leads_out_of_the_data_folder_is_refused(data_dir, tmp_path):
    (tmp_path / "made_up").symlink_to(data_dir / "made_up")
    with pytest.raises(InputError, match="expected a dataset inside"):
        open_source(spec(tmp_path)).shards()


def test_a_name_that_nobody_knows_is_one_line(tmp_path):
    with pytest.raises(InputError, match="^source: got tfds:made_up [^\n]*not found[^\n]*$"):
        open_source(f"tfds:made_up?data_dir={tmp_path}").shards()


class FakeBuilder:
    """Stands in for a dataset that is not prepared: prepares what `prepare` does."""

    def __init__(self, data_dir, prepare):
        self.data_dir = data_dir / "made_up" / "20230601.en" / "1.2.0"
        self.prepare = prepare

    def download_and_prepare(self, *, file_format):
        assert file_format == "array_record"
        print("Downloading and preparing")
        self.prepare(self.data_dir)


@pytest.fixture
def builder(monkeypatch, tmp_path):
    def install(prepare):
        def make(name, *, data_dir, file_format):
            assert (name, data_dir, file_format) == (
                "made_up/20230601.en",
                str(tmp_path),
                "array_record",
            )
            return FakeBuilder(tmp_path, prepare)

        import tensorflow_datasets as tfds

        monkeypatch.setattr(tfds, "builder", make)

    return install


def test_a_dataset_that_is_not_prepared_is_prepared_first(data_dir, builder, tmp_path, capsys):
    def prepare(target):
        target.parent.mkdir(parents=True)
        (data_dir / "made_up" / "20230601.en" / "1.2.0").rename(target)

    def put_back(target):
        target.rename(data_dir / "made_up" / "20230601.en" / "1.2.0")

    builder(prepare)
    try:
        assert len(read(spec(tmp_path))) == 300
    finally:
        put_back(tmp_path / "made_up" / "20230601.en" / "1.2.0")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "error, expected",
    [
        (OSError("no route\nto host"), r"\(OSError: no route\), expected a dataset prepared in"),
        (ImportError("needs TF"), r"needs TF\), .*pip install 'isoflop\[tensorflow\]'"),
        (AssertionError("manual download of x"), "manual download of x"),
    ],
)
def test_a_download_that_fails_is_one_line(builder, tmp_path, error, expected):
    def prepare(target):
        raise error

    builder(prepare)
    with pytest.raises(InputError, match=rf"^source: got tfds:made_up[^\n]*{expected}[^\n]*$"):
        open_source(spec(tmp_path)).shards()


@pytest.fixture
def own_copy(data_dir, tmp_path):
    source = data_dir / "made_up" / "20230601.en" / "1.2.0"
    target = tmp_path / "made_up" / "20230601.en" / "1.2.0"
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_a_file_with_another_number_of_examples_is_an_error(own_copy, tmp_path):
    path = sorted(own_copy.glob("*train*"))[1]
    reader = ArrayRecordReader(str(path))
    records = reader.read_all()
    reader.close()
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records[:-1]:
        writer.write(record)
    writer.close()
    with pytest.raises(InputError, match=rf"^source: got {path} with \d+ examples, expected \d+"):
        read(spec(tmp_path), Problems(skip=True))


@pytest.mark.parametrize("change", [-1, +1])
def test_a_tfrecord_file_with_another_number_of_examples_is_an_error(tfrecord_dir, change):
    path = sorted(tfrecord_dir.rglob("*train*"))[1]
    from data.sources.tfrecord import read_tfrecords

    with path.open("rb") as stream:
        records = list(read_tfrecords(stream))
    writer = RecordWriter(str(path))
    for record in records[:-1] if change < 0 else [*records, records[0]]:
        writer.write(record)
    writer.close()
    with pytest.raises(InputError, match=rf"^source: got {path} with .*examples, expected \d+"):
        read(spec(tfrecord_dir), Problems(skip=True))


def test_damage_names_the_file_even_where_problems_are_passed_over(own_copy, tmp_path):
    path = sorted(own_copy.glob("*train*"))[0]
    data = bytearray(path.read_bytes())
    written = [i for i, byte in enumerate(data) if byte]
    data[written[len(written) // 2]] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"^source: got {path}[^\n]*expected[^\n]*$"):
        read(spec(tmp_path), Problems(skip=True))


def test_a_format_that_loses_rows_is_refused(own_copy, tmp_path):
    info = own_copy / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "parquet"))
    with pytest.raises(InputError, match="stored as parquet .*expected array_record or tfrecord"):
        open_source(spec(tmp_path)).shards()


def test_examples_that_are_not_utf8_are_a_problem(own_copy, tmp_path):
    import tensorflow_datasets as tfds

    features: Any = tfds.builder_from_directory(own_copy).info.features
    path = sorted(own_copy.glob("*test*"))[0]
    reader = ArrayRecordReader(str(path))
    records = reader.read_all()
    reader.close()
    bad = {"text": b"\xff", "meta": {"body": "b", "n": np.int64(1)}, "many": np.int64(1)}
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in [features.serialize_example(bad), *records[1:]]:
        writer.write(record)
    writer.close()
    with pytest.raises(InputError, match=r"made_up/20230601.en:test#0 \(invalid UTF-8"):
        read(spec(tmp_path, ":test"))
    problems = Problems(skip=True)
    read(spec(tmp_path, ":test"), problems)
    assert problems.skipped["invalid UTF-8"] == 1
