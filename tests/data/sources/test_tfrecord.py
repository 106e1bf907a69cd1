import io

import pytest
from tensorboardX.record_writer import RecordWriter

from data.sources.tfrecord import read_tfrecords

RECORDS = [b"first", b"", b"x" * 100_000, bytes(range(256))]


@pytest.fixture
def written(tmp_path):
    writer = RecordWriter(str(tmp_path / "records"))  # not ours: writes what TensorFlow reads
    for record in RECORDS:
        writer.write(record)
    writer.close()
    return (tmp_path / "records").read_bytes()


def test_records_come_back_as_written(written):
    assert list(read_tfrecords(io.BytesIO(written))) == RECORDS
    assert list(read_tfrecords(io.BytesIO(b""))) == []


@pytest.mark.parametrize("cut", [1, 4, 5, 200, 260, 270])
def test_a_cut_file_is_an_error(written, cut):
    with pytest.raises(EOFError):
        list(read_tfrecords(io.BytesIO(written[:-cut])))


def test_a_changed_length_is_an_error(written):
    changed = bytearray(written)
    changed[0] += 1
    with pytest.raises(ValueError, match="checksum"):
        list(read_tfrecords(io.BytesIO(changed)))
