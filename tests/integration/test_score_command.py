"""isoflop score: one line or one JSON object a text, and errors before anything is compiled."""

import json

import pytest

import isoflop as front_door
from inference.scoring import Scorer
from tests.integration.test_foreign_folders import make_folder
from workflows.load import load

TEXT = "def add(x, y):\n    return x + y\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpt2")
    make_folder("gpt2", path)
    return path


@pytest.mark.filterwarnings("ignore")
def test_texts_and_files_are_scored_as_json(folder, tmp_path, capsys):
    (tmp_path / "long.py").write_text(TEXT * 40)
    args = [str(folder), "x = 1", "--files", str(tmp_path / "long.py"), "--stride=20", "--json"]
    assert front_door.run(["score", *args]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    loaded = load(folder)
    scorer = Scorer(loaded.config, loaded.params, loaded.tokenizer, seq_len=loaded.seq_len)
    for record, text in zip(records, ["x = 1", TEXT * 40], strict=True):
        expected = scorer.score(text, stride=20)
        assert record["log_likelihood"] == pytest.approx(expected.log_likelihood, rel=1e-5)
        assert record["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-5)
        assert (record["window"], record["stride"]) == (64, 20)
    assert records[1]["tokens"] > 2 * 64


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "texts: got 'none'"),
        ([""], "texts: got ''"),
        (["--files", "missing.txt"], "files: got missing.txt"),
        (["x", "--stride=65"], "stride: got 65, expected 1 to 64"),
        (["x", "--window=65"], "window: got 65"),
        (["x", "--context=a", "--stride=2"], "context: got 'a'"),
    ],
)
def test_bad_input_is_one_line(folder, args, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert front_door.run(["score", str(folder), *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_file_that_is_no_text_is_refused(folder, capsys, tmp_path):
    (tmp_path / "x.bin").write_bytes(b"\xff\xfe")
    assert front_door.run(["score", str(folder), "--files", str(tmp_path / "x.bin")]) == 2
    assert "expected a readable UTF-8 file" in capsys.readouterr().err
