"""Reading a run directory at every stage of its life."""

import pytest

from configs.errors import InputError
from configs.schema import RunConfig
from configs.serialize import save
from report.read import entries, lookup, number, read_run


def test_a_folder_without_run_json_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"^run: got .*expected a folder that holds run\.json"):
        read_run(tmp_path)


def test_a_path_that_is_no_folder_is_no_run(tmp_path):
    with pytest.raises(InputError, match="expected a run directory"):
        read_run(tmp_path / "nothing")


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 2}', "{}", "\xff"])
def test_a_damaged_run_json_is_an_error_of_one_line(tmp_path, content):
    (tmp_path / "run.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError) as error:
        read_run(tmp_path)
    assert str(error.value).startswith("run: got run.json")
    assert "\n" not in str(error.value)


def test_a_fresh_run_has_nothing_but_its_name(write_run):
    run = read_run(write_run({"run.json": {"schema_version": 1, "status": "created"}}))
    assert run.name == "small"  # the folder's
    assert (run.plan, run.summary, run.metrics, run.problems) == (None, None, [], ())


def test_a_truncated_last_line_is_ignored_without_a_word(write_run, files):
    run_dir = write_run(files)
    with (run_dir / "metrics.jsonl").open("ab") as file:
        file.write('{"step": 110, "note": "é'.encode()[:-1])
    run = read_run(run_dir)
    assert len(run.metrics) == 10
    assert run.problems == ()


def test_a_damaged_line_further_up_is_reported(write_run, files):
    run_dir = write_run(files)
    path = run_dir / "metrics.jsonl"
    path.write_text("not json\n" + path.read_text())
    run = read_run(run_dir)
    assert len(run.metrics) == 10
    assert run.problems == ("metrics.jsonl: 1 damaged line(s) left out",)


def test_the_config_that_training_writes_is_read(write_run, files):
    run_dir = write_run(files)
    save(RunConfig(name="written"), run_dir / "config.json")
    run = read_run(run_dir)
    assert run.problems == ()
    assert run.config is not None and run.config["name"] == "written"


def test_damaged_plan_and_newer_summary_are_left_out_and_reported(write_run, files):
    files["summary.json"]["schema_version"] = 7
    run_dir = write_run(files)
    (run_dir / "plan.json").write_text('{"schema_version": 1, ')
    run = read_run(run_dir)
    assert run.plan is None and run.summary is None
    assert len(run.problems) == 2


def test_a_step_written_twice_counts_once_as_last_written(write_run, files):
    files["metrics.jsonl"].append(files["metrics.jsonl"][4] | {"loss": 1.25})
    metrics = read_run(write_run(files)).metrics
    assert [record["step"] for record in metrics] == list(range(10, 101, 10))
    assert metrics[4]["loss"] == 1.25


def test_samples_of_one_step_are_told_apart_by_prompt(write_run, files):
    files["samples.jsonl"].append(files["samples.jsonl"][0] | {"prompt": "import "})
    assert len(read_run(write_run(files)).samples) == 2


def test_values_of_the_wrong_type_are_no_numbers():
    record = {"a": {"b": "1"}, "flag": True, "huge": 10**400, "list": [1, {"x": 2}]}
    assert number(record, "a", "b") is None
    assert number(record, "a", "b", "c") is None
    assert number(record, "flag") is None
    assert number(record, "huge") is None
    assert lookup(None, "a") is None
    assert entries(record, "list") == [{"x": 2}]


def test_nesting_too_deep_to_parse_is_a_damaged_file(write_run, files):
    run_dir = write_run(files)
    (run_dir / "ledger.json").write_text("[" * 200_000)
    assert read_run(run_dir).problems == ("ledger.json: not valid JSON",)


def test_a_nan_loss_is_read_as_nan(write_run, files):
    files["metrics.jsonl"][2]["loss"] = float("nan")
    run_dir = write_run(files)
    assert "NaN" in (run_dir / "metrics.jsonl").read_text()
    loss = number(read_run(run_dir).metrics[2], "loss")
    assert loss is not None and loss != loss
