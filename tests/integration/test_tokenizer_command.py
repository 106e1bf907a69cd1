"""`isoflop tokenizer compare`: figures against hand computation, names, refusals."""

import dataclasses
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import isoflop
import workflows.tokenizer
from configs.presets import PRESETS
from configs.serialize import save
from data.tokenizer import train_tokenizer
from workflows.tokenizer import main

ROOT = Path(__file__).resolve().parents[2]
LAW = "the lessee shall indemnify the lessor against all liabilities arising hereunder".split()
CODE = "def return self import None yield lambda class async await raise except".split()


def text_of(words: Sequence[str], seed: int) -> str:
    rng = random.Random(seed)
    return "\n".join(" ".join(rng.choices(words, k=9)) for _ in range(60)) + "\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with law/ (text of 40 documents), code.model and run/tokenizer.model."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "law").mkdir()
    for i in range(40):
        (folder / "law" / f"{i}.txt").write_text(text_of(LAW, seed=i))
    (folder / "run").mkdir()
    code = train_tokenizer([text_of(CODE, seed=i) for i in range(9)], 340)
    (folder / "code.model").write_bytes(code.model_bytes)
    legal = train_tokenizer([text_of(LAW, seed=100 + i) for i in range(9)], 330)
    (folder / "run" / "tokenizer.model").write_bytes(legal.model_bytes)
    return folder


@pytest.fixture
def compare(place, monkeypatch, capsys):
    """Runs `isoflop tokenizer compare --text law ARGS --json` beside the files of `place`."""
    monkeypatch.chdir(place)

    def run(*args: object) -> dict:
        assert main(["compare", "--text", "law", *map(str, args), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def by_name(record: dict) -> dict[str, dict]:
    return {one["name"]: one for one in record["tokenizers"]}


def test_flops_and_rows_equal_the_hand_computation(compare):
    record = compare("--tokenizers", "code.model", "run", "--preset=decoder_only/tiny")
    assert record["schema_version"] == 1
    code, legal = record["tokenizers"]
    assert (code["name"], legal["name"]) == ("code", "run")
    seq_len, layers, width, mlp = 128, 4, 96, 256
    in_layers = layers * (4 * width * width + 3 * width * mlp)
    for one in (code, legal):
        pieces = one["vocab_size"]
        per_token = 6 * (in_layers + pieces * width) + 12 * layers * width * seq_len / 2
        cost = one["cost"]
        assert cost["flops_per_token"] == pytest.approx(per_token)
        assert cost["training_flops"] == pytest.approx(one["num_tokens"] * per_token)
        assert cost["embedding_params"] == pieces * width
        assert cost["own_pretraining_tokens"] == 20 * (in_layers + pieces * width)
        assert cost["bytes_per_row"] == pytest.approx(seq_len * one["bytes_per_token"])
        assert cost["words_per_row"] == pytest.approx(seq_len / one["tokens_per_word"])
        per_word = one["num_tokens"] / one["num_words"]
        forward = 1000 * per_word * per_token / 3
        assert cost["inference_flops_per_1000_words"] == pytest.approx(forward)
    ratio = code["cost"]["training_flops"] / legal["cost"]["training_flops"]
    assert legal["cost"]["flops_ratio"] == 1 and ratio > 1.3
    assert code["cost"]["flops_ratio"] == pytest.approx(ratio)
    assert code["cost"]["token_ratio"] == pytest.approx(code["num_tokens"] / legal["num_tokens"])
    assert f"{ratio:.2f} times the training FLOPs" in " ".join(record["verdict"])
    assert "2303.17564" in " ".join(record["verdict"])


def test_an_untied_head_doubles_what_the_vocabulary_costs(compare, place):
    config = PRESETS["decoder_only/tiny"]()
    untied = dataclasses.replace(config.model, tie_embeddings=False)
    save(dataclasses.replace(config, model=untied), place / "untied.json")
    record = compare("--tokenizers", "code.model", "run", "--preset=untied.json", "--seq-len=64")
    assert record["reference"] == {"preset": "untied.json", "seq_len": 64, "seed": 0}
    assert by_name(record)["run"]["cost"]["embedding_params"] == 2 * 330 * 96


def test_the_domains_own_tokenizer_is_measured_on_the_other_half(compare):
    record = compare("--tokenizers", "code.model", "--train-vocab", "320", "340")
    text, all_bytes = record["text"], record["text"]["num_bytes"]
    assert text["split_by"] == "documents" and text["read_documents"] == 40
    assert text["train_bytes"] + text["measured_bytes"] == all_bytes
    assert text["measured_bytes"] == pytest.approx(all_bytes / 2, rel=0.1)
    named = by_name(record)
    assert list(named) == ["code", "domain-320", "domain-340"]
    assert [one["is_new"] for one in named.values()] == [False, True, True]
    assert named["domain-340"]["num_tokens"] < named["code"]["num_tokens"]
    assert {one["num_bytes"] for one in named.values()} == {text["measured_bytes"]}
    assert compare("--tokenizers", "code.model", "--train-vocab", "320", "340") == record
    verdict = " ".join(record["verdict"])
    assert "a model with code already" in verdict, "paid back against a model that may exist"
    assert "a model with domain-320 already" not in verdict


def test_only_a_sample_of_a_long_text_is_measured(compare, monkeypatch):
    text = compare("--tokenizers", "code.model", "run", "--max-bytes", "50000")["text"]
    assert text["measured_bytes"] <= 50_000 < text["read_bytes"] == text["num_bytes"]
    monkeypatch.setattr(workflows.tokenizer, "READ_FACTOR", 2)
    part = compare("--tokenizers", "code.model", "run", "--max-bytes", "50000")["text"]
    assert 100_000 <= part["read_bytes"] < part["num_bytes"] == text["num_bytes"]


def test_the_text_may_be_a_field_of_records(compare, place):
    lines = [json.dumps({"clause": text_of(LAW, seed=i)}) for i in range(9)]
    (place / "law.jsonl").write_text("\n".join(lines))
    text = ["--text", "law.jsonl", "--text-field", "clause"]
    record = compare("--tokenizers", "code.model", "run", *text)
    assert record["text"]["read_documents"] == 9


def test_names_are_given_or_taken_from_the_path(compare, place):
    record = compare(
        "--tokenizers", "old=code.model", "new=run", place / "run" / "tokenizer.model", "code.model"
    )
    assert list(by_name(record)) == ["old", "new", "run", "code"]


def test_words_and_pieces_are_listed(compare):
    record = compare("--tokenizers", "code.model", "run", "--top", "3", "--min-count", "2")
    words = by_name(record)["code"]["costliest_words"]
    assert len(words) == 3
    assert "".join(words[0]["pieces"]) == "\u2581" + words[0]["word"]
    assert words[0]["extra_tokens"] == words[0]["count"] * (len(words[0]["pieces"]) - 1)
    assert len(by_name(record)["code"]["finest_cut_words"]) == 3


def test_a_person_can_read_it(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    (place / "odd.txt").write_text("[red]bold[/red] \x1b[31mesc \x1b[31mesc\n" * 30)
    args = "compare --text odd.txt --tokenizers code.model run --min-count 1"
    assert main(args.split()) == 0
    printed = capsys.readouterr().out
    assert "bytes per token" in printed and "[red]bold[/red]" in printed
    assert "\x1b" not in printed, "control characters of the text are escaped"
    assert "\\x1b[31mesc" in printed
    assert max(map(len, printed.splitlines())) <= 120


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "got 'nothing', expected compare"),
        (["compair"], "got 'compair', expected compare; did you mean 'compare'?"),
        (["compare"], "--text"),
        (["compare", "--text", "law"], "tokenizers: got 'none', expected two or more"),
        (["compare", "--text=law", "--tokenizers", "run"], "tokenizers: got 'run'"),
        (["compare", "--text=law", "--tokenizers", "run", "gone"], "tokenizers: got 'gone'"),
        (["compare", "--text=law", "--tokenizers", "run", "a=gone"], "tokenizers: got 'gone'"),
        (["compare", "--text=law", "--tokenizers", "run", "law"], "tokenizers: got 'law'"),
        (["compare", "--text=law", "--tokenizers", "run", "=run"], "expected NAME=PATH"),
        (["compare", "--text=law", "--tokenizers", "run", "run"], "a name of its own"),
        (["compare", "--text=law", "--tokenizers", "run", "law/1.txt"], "a SentencePiece model"),
        (["compare", "--text=gone", "--tokenizers", "run", "code.model"], "source: got 'gone'"),
        (["compare", "--text=law", "--train-vocab", "5", "340"], "train_vocab: got 5"),
        (["compare", "--text=law", "--train-vocab", "340", "340"], "a name of its own"),
        (["compare", "--text=law", "--train-vocab", "9000", "340"], "train_vocab: got 9000"),
        (["compare", "--text=law", "--train-vocab", "many", "340"], "--train-vocab"),
        (["compare", "--text=law", "--tokenizers", "run", "code.model", "--max-bytes=0"], "bytes"),
        (["compare", "--text=law", "--tokenizers", "run", "code.model", "--seq-len=1"], "seq_len"),
        (["compare", "--text=law", "--tokenizers", "run", "code.model", "--top=-1"], "top"),
        (["compare", "--text=law", "--tokenizers", "run", "code.model", "--preset=x"], "config"),
        (["compare", "--text=law", "--tokenizer", "run"], "--tokenizers"),
        (["compare", "--text=law", "--data.seed=1", "--train-vocab", "1", "2"], "--data.seed"),
    ],
)
def test_nonsense_is_refused_in_one_line(place, monkeypatch, capsys, args, message):
    monkeypatch.chdir(place)
    monkeypatch.setitem(isoflop.COMMANDS, "tokenizer", "compare tokenizers on a domain's text")
    assert isoflop.run(["tokenizer", *args]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1 and message in printed.err


def test_it_works_without_loading_jax(place):
    script = (
        "import sys\n"
        "from workflows.tokenizer import main\n"
        "status = main(sys.argv[1:])\n"
        "sys.exit('jax was loaded' if 'jax' in sys.modules else status)\n"
    )
    args = ["compare", "--text=law", "--tokenizers", "run", "--train-vocab", "330"]
    result = subprocess.run(
        [sys.executable, "-c", script, *args],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "domain-330" in result.stdout and result.stderr == ""
