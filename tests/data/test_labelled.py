"""Labelled records from JSON lines: what is read, and what is refused in one line."""

import json

import pytest

from configs.errors import InputError
from data.labelled import labels_of, read_records, require_labels

SPANS = [{"start": 0, "end": 2, "label": "X"}, {"start": 2, "end": 3, "label": "Y"}]


@pytest.fixture
def write(tmp_path):
    def write_lines(*records):
        path = tmp_path / "data.jsonl"
        lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write_lines


def test_records_are_read_in_order_and_other_fields_kept(write):
    path = write({"text": "a\u2028b", "label": "x", "id": 7}, "", {"text": "c", "label": "y"})
    records = read_records(path, "classification")
    assert [record["text"] for record in records] == ["a\u2028b", "c"]
    assert records[0]["id"] == 7


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        ("classification", {"text": "a"}, r"data\.jsonl:2: label: got 'none'"),
        ("classification", {"text": " ", "label": "x"}, r"data\.jsonl:2: text: got ' '"),
        ("classification", {"text": "a", "label": 3}, r"data\.jsonl:2: label: got 3"),
        ("classification", [1], r"data\.jsonl:2: got 'list'"),
        ("classification", "{", r"data\.jsonl:2 \(malformed JSON"),
        ("token_classification", {"text": "abc", "spans": {}}, r":2: spans: got \{\}"),
        ("token_classification", {"text": "ab", "spans": SPANS}, r"within 0 to 2"),
        ("token_classification", {"text": "abc", "spans": SPANS[::-1]}, r"start and end in order"),
        ("token_classification", {"text": "abc", "spans": [{"start": 1}]}, r"start, end and label"),
        ("sequence_to_sequence", {"input": "a", "target": None}, r"target: got None"),
        ("instruction", {"input": "", "target": "a"}, r"input: got ''"),
    ],
)
def test_a_record_of_another_form_is_refused_by_line(write, kind, record, message):
    good = {
        "classification": {"text": "a", "label": "x"},
        "token_classification": {"text": "abc", "spans": SPANS},
    }.get(kind, {"input": "a", "target": ""})
    with pytest.raises(InputError, match=message) as caught:
        read_records(write(good, record), kind)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_empty_is_refused(write, tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl' \(No such file"):
        read_records(tmp_path / "none.jsonl", "classification")
    with pytest.raises(InputError, match="one or more records"):
        read_records(write(""), "classification")


def test_labels_are_sorted_and_bio_has_two_a_span_label():
    records = [
        {"text": "a", "label": "z"},
        {"text": "b", "label": "a"},
        {"text": "c", "label": "z"},
    ]
    assert labels_of(records, "classification") == ("a", "z")
    tagged = [{"text": "abc", "spans": SPANS}, {"text": "d", "spans": []}]
    assert labels_of(tagged, "token_classification") == ("O", "B-X", "I-X", "B-Y", "I-Y")
    assert labels_of([{"input": "a", "target": "b"}], "instruction") == ()


def test_one_class_or_no_span_at_all_is_no_task():
    with pytest.raises(InputError, match="1 classes"):
        labels_of([{"text": "a", "label": "z"}], "classification")
    with pytest.raises(InputError, match="0 classes"):
        labels_of([{"text": "a", "spans": []}], "token_classification")


def test_a_held_out_label_that_training_lacks_is_refused():
    with pytest.raises(InputError, match="held_out: got 'y'"):
        require_labels([{"text": "a", "label": "y"}], ("x", "z"), "classification")
    with pytest.raises(InputError, match="held_out: got 'B-Y'"):
        tagged = [{"text": "abc", "spans": SPANS}]
        require_labels(tagged, ("O", "B-X", "I-X"), "token_classification")
