"""The page: self-contained, escaped, and there at every stage of a run."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from configs.errors import InputError
from report.page import build_report, write_report

VOID = {"meta", "input", "br", "hr", "img", "link"}
HOSTILE = "</pre></script><script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """Collects tags, attributes, ids and text, and checks that tags nest."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_every_section_of_a_finished_run_is_there(write_run, files):
    page = Page(build_report(write_run(files)))
    for heading in (
        "Plan against actual",
        "Where each number came from",
        "Loss",
        "Held-out bits per byte",
        "Learning rate",
        "Throughput",
        "Model FLOPs utilisation",
        "Token ledger",
        "Samples",
        "Export",
        "Events",
        "Configuration",
    ):
        assert heading in page.text
    assert page.tags.count("svg") == 7  # the loss is drawn twice, against steps and log steps
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_page_loads_nothing(write_run, files):
    html = build_report(write_run(files))
    page = Page(html)
    assert not re.search(r"(https?:)?//\w", html)
    assert not re.search(r"url\(|@import|\bfetch\b|XMLHttpRequest", html)
    loading = {"src", "srcset", "href", "data", "action", "poster"}
    assert not [name for name, _ in page.attributes if name in loading]
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)


def test_the_policy_allows_the_script_of_the_page_and_no_other(write_run, files):
    html = build_report(write_run(files))
    scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def poison(value, text):
    """`value` with every string in it replaced, and one more key of that text."""
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [poison(entry, text) for entry in value]
    if isinstance(value, dict):
        return {name: poison(entry, text) for name, entry in value.items()} | {text: text}
    return value


@pytest.mark.parametrize("text", [HOSTILE, "\ud800", "\x00\x1b[31m"])
def test_every_string_of_every_file_may_be_hostile(write_run, files, text):
    poisoned = {name: poison(content, text) for name, content in files.items()}
    run_dir = write_run(poisoned)
    page = Page(write_report(run_dir).read_text(encoding="utf-8"))
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    if text == HOSTILE:
        assert page.text.count(HOSTILE) > 20


def test_a_sample_keeps_its_whitespace_and_its_markup(write_run, files):
    files["samples.jsonl"][0]["text"] = "\n\n<script>alert(1)</script>\n\tend"
    html = build_report(write_run(files))
    assert "\n\n&lt;script&gt;alert(1)&lt;/script&gt;\n\tend" in html


@pytest.mark.parametrize(
    "missing",
    [
        ("plan.json",),
        ("metrics.jsonl",),
        ("summary.json", "ledger.json", "samples.jsonl", "goodput.json"),
        ("fingerprint.json", "config.json", "events.jsonl"),
        ("plan.json", "summary.json", "metrics.jsonl", "evaluations.jsonl"),
    ],
)
def test_the_page_renders_without(write_run, files, missing):
    for name in missing:
        del files[name]
    page = Page(build_report(write_run(files)))
    assert "small" in page.text


def test_a_run_that_just_began_renders(write_run):
    page = Page(build_report(write_run({"run.json": {"schema_version": 1, "status": "created"}})))
    assert "Nothing logged yet" in page.text


def test_a_run_in_training_renders_from_its_metrics(write_run, files):
    files["run.json"]["status"] = "training"
    for name in ("summary.json", "ledger.json", "samples.jsonl"):
        del files[name]
    run_dir = write_run(files)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 110, "los')
    page = Page(build_report(run_dir))
    assert "so far" in page.text and "not measured yet" in page.text


def test_values_of_any_wrong_type_do_not_stop_the_page(write_run, files):
    for junk in ("text", [1], {"a": 1}, None, True, 10**400):
        objects = ("plan", "summary", "ledger", "goodput", "fingerprint")
        for name in (f"{stem}.json" for stem in objects):
            for key in files[name]:
                if key != "schema_version":
                    files[name][key] = junk
        for name in ("metrics.jsonl", "samples.jsonl", "evaluations.jsonl", "events.jsonl"):
            files[name] = [{"step": 1} | dict.fromkeys(files[name][0].keys() - {"step"}, junk)]
        run_dir = write_run(files)
        assert Page(build_report(run_dir)).tags[0] == "html"
        run_dir.rename(run_dir.with_name(f"run-{type(junk).__name__}"))


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), None])
def test_a_loss_that_is_not_finite_is_counted_and_drawn_as_a_gap(write_run, files, loss):
    files["metrics.jsonl"][3]["loss"] = loss
    page = Page(build_report(write_run(files)))
    assert "Logged losses that were not finite: 1." in page.text
    paths = [value for name, value in page.attributes if name == "d"]
    assert any(path.count("M") == 2 for path in paths)


def test_the_ledger_says_whether_tokens_are_conserved(write_run, files):
    run_dir = write_run(files)
    assert "conserved" in Page(build_report(run_dir)).text
    text = (run_dir / "ledger.json").read_text()
    # Seven places more than explained, in the sum and in the epoch, and a sum that is off by them.
    for old, new, off in (
        ('"places": 2015625', '"places": 2015632', "off by 14"),
        ('"tokens": 1999970', '"tokens": 1999973', "off by 3"),
        ('"tokens_truncated": 0', '"tokens_truncated": 5', "off by 5"),
    ):
        assert old in text
        (run_dir / "ledger.json").write_text(text.replace(old, new))
        assert off in Page(build_report(run_dir)).text


def test_the_ledger_lists_every_epoch_of_every_corpus(write_run, files):
    [corpus] = files["ledger.json"]["corpora"]
    begun = {name: 0 for name in corpus["by_epoch"][0]} | {"epoch": 1, "rows": 5}
    corpus["by_epoch"].append(begun)
    corpus["by_epoch"] += [begun | {"epoch": epoch} for epoch in range(2, 60)]
    page = Page(build_report(write_run(files))).text
    assert "notes<1>" in page and "15,000 segments begin inside" in page
    assert "36 more epochs" in page


def test_goodput_says_where_the_time_went(write_run, files):
    page = Page(build_report(write_run(files))).text
    assert "Goodput 95.5%" in page and "Starts of the run: 2." in page
    assert "Compiling" in page and "Lost steps" not in page  # no time in it


def test_writing_replaces_the_page_and_leaves_nothing_else_behind(write_run, files):
    run_dir = write_run(files)
    before = {path.name for path in run_dir.iterdir()}
    (run_dir / "report.html").write_text("old")
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    assert path.read_text(encoding="utf-8") == build_report(run_dir)
    assert {entry.name for entry in run_dir.iterdir()} == before | {"report.html"}


def test_a_folder_that_is_no_run_gets_no_page(tmp_path):
    with pytest.raises(InputError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
