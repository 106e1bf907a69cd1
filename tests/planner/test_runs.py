"""Runs are read as they stand, and what is no run is refused by file, line and field."""

import numpy as np
import pytest

from configs.errors import InputError
from planner.runs import read_runs


def written(tmp_path, text):
    path = tmp_path / "runs.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "params,tokens,loss\n1e8,2e9,3.1\n",
        "params,flops,loss\n1e8,1.2e18,3.1\n",
        "loss, flops ,tokens,name\n3.1,1.2e18,2e9,a\n\n",
        "\ufeffparams,tokens,loss,status\n1e8,2e9,3.1,complete\n2e8,1e9,,diverged\n",
    ],
)
def test_third_size_follows_from_the_other_two(tmp_path, text):
    runs = read_runs(written(tmp_path, text))
    assert len(runs) == 1
    sizes = [runs.params[0], runs.tokens[0], runs.flops[0], runs.loss[0]]
    np.testing.assert_allclose(sizes, [1e8, 2e9, 1.2e18, 3.1], rtol=1e-15)


def test_flops_of_the_file_are_kept(tmp_path):
    runs = read_runs(written(tmp_path, "params,tokens,flops,loss\n1e8,2e9,1.5e18,3.1\n"))
    assert runs.flops[0] == 1.5e18


def test_take_keeps_order_and_repeats(tmp_path):
    runs = read_runs(written(tmp_path, "params,tokens,loss\n1,2,3\n4,5,6\n"))
    assert runs.take([1, 0, 1]).loss.tolist() == [6, 3, 6]
    assert len(runs.take([])) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("\n\n", "empty file"),
        ("1e8,2e9,3.1\n", "line 1: loss: got columns"),
        ("params,tokens,loss\n", "got no run"),
        ("params,tokens,loss,status\n1,2,3,failed\n", "got no run with status complete"),
        ("params,loss\n1,2\n", "line 1: tokens, flops: got columns"),
        ("params,params,loss\n1,2,3\n", "params: got 2 columns"),
        ("params,tokens,loss\n1,2\n", "line 2: got 2 fields, expected 3"),
        ("params,tokens,loss\n1,2,3\n1,many,3\n", "line 3: tokens: got 'many'"),
        ("params,tokens,loss\n1,2,\n", "line 2: loss: got ''"),
        ("params,tokens,loss\n1,2,nan\n", "line 2: loss: got 'nan'"),
        ("params,tokens,loss\ninf,2,3\n", "line 2: params: got 'inf'"),
        ("params,tokens,loss\n1,-2,3\n", "line 2: tokens: got '-2'"),
        ("params,tokens,loss\n0,2,3\n", "line 2: params: got '0'"),
        ("params,tokens,loss\n1,2,51\n", "line 2: loss: got 51"),
        ("params,tokens,loss\n1e200,1e200,3\n", "line 2: flops: got inf"),
        (b"params,tokens,loss\n\xff,2,3\n", "UnicodeDecodeError"),
        ('params,tokens,loss\n"1,2,3\n', "Error"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_runs(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match="^runs: .*expected a CSV file"):
            read_runs(path)
