"""attention, embeddings and sampling as commands: what they print, what they write, what they
refuse, on small random models."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import isoflop as front_door
from data.corpus import open_corpus
from data.tokenizer import train_tokenizer
from tests.model.samples import VARIANTS, random_params
from workflows import attention, embeddings, sampling
from workflows.load import Loaded

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def models(tiny_corpus) -> dict[str, Loaded]:
    """A decoder with the corpus' tokenizer, an encoder-decoder with sentinels."""
    text = "def add(x, y):\n    return x + y\n\n\nclass Point:\n    pass\n" * 20
    sentinels = train_tokenizer([text], 303, seed=0, symbols=("<extra_id_0>", "<extra_id_1>"))
    found = {}
    for name, tokenizer in (("gemma2", open_corpus(tiny_corpus).tokenizer), ("t5", sentinels)):
        config = replace(VARIANTS[name], vocab_size=tokenizer.vocab_size)
        found[name] = Loaded(
            config=config, params=random_params(config), tokenizer=tokenizer, seq_len=32
        )
    return found


@pytest.fixture
def run(models, monkeypatch, capsys, tmp_path) -> Run:
    """Runs `isoflop COMMAND MODEL …`; gives its exit status and what it printed."""
    for module in (attention, embeddings, sampling):
        monkeypatch.setattr(module, "load", lambda path: models[str(path)])
    monkeypatch.chdir(tmp_path)

    def run_command(*args: object) -> tuple[int, str, str]:
        status = front_door.run([str(arg) for arg in args])
        return status, *capsys.readouterr()

    return run_command


def test_attention_writes_pictures_and_a_page_and_prints_a_row_a_head(run):
    status, out, _ = run("attention", "gemma2", "def add(x):\n    return x")
    assert status == 0
    rows = [line.split()[0] for line in out.splitlines() if line[:3] in ("  0", "  1")]
    assert rows == [f"{layer}.{head}" for layer in range(2) for head in range(4)]
    files = {path.name for path in Path("attention").iterdir()}
    assert {"decoder-self-attention.png", "attention.html"} < files and len(files) == 3


def test_attention_of_both_sides_and_across(run):
    args = ["attention", "t5", "def <extra_id_0>(x, y):", "--target", "<extra_id_0>add"]
    status, out, _ = run(*args, "--layers", 0, "--heads", 1, 3, "--out", "new/folder", "--json")
    assert status == 0
    found = json.loads(out)
    kinds = {one["kind"]: one for one in found["attention"]}
    assert list(kinds) == ["encoder self-attention", "decoder self-attention", "cross-attention"]
    cross = kinds["cross-attention"]
    assert cross["keys"] == kinds["encoder self-attention"]["queries"]
    assert cross["queries"] == kinds["decoder self-attention"]["queries"]
    assert [head["induction"] for head in cross["heads"]] == [None] * 8
    assert all(Path(name).is_file() for name in found["files"]) and len(found["files"]) == 7


def test_without_a_target_a_decoder_reads_its_own_answer(run, models, monkeypatch):
    asked = []

    def answer(config, params, tokenizer, prompts, **options):
        asked.append((prompts, options["sampling"].is_greedy))
        return [SimpleNamespace(tokens=(7, 8))]

    monkeypatch.setattr(attention, "generate", answer)
    status, out, _ = run("attention", "t5", "def <extra_id_0>(x, y):", "--layers", 0, "--json")
    assert (status, asked) == (0, [(["def <extra_id_0>(x, y):"], True)])
    queries = json.loads(out)["attention"][1]["queries"]
    assert queries == [models["t5"].tokenizer.bos_id, 7, 8]


def test_embeddings_prints_neighbours_and_draws_a_map(run, tiny_corpus):
    Path("lines.txt").write_text("x + y\n\nreturn x\ndef add_1(x, y)\n")
    args = ["embeddings", "gemma2", "x", "return x + y", "--texts", "lines.txt", "--json"]
    status, out, _ = run(*args, "--corpus", tiny_corpus, "--neighbours", 3, "--tokens", 50)
    assert status == 0
    found = json.loads(out)
    assert list(map(len, found["tokens"].values())) == [3] and "x" in found["tokens"]
    near = found["texts"]["return x + y"]
    assert set(near) == {"x + y", "return x", "def add_1(x, y)"}
    assert list(near.values()) == sorted(near.values(), reverse=True)
    with np.load("embeddings/texts.npz") as stored:
        assert stored["texts"].tolist()[0] == "return x + y"
        cosines = stored["embeddings"][0] @ stored["embeddings"][1:].T
    np.testing.assert_allclose(sorted(cosines)[::-1], list(near.values()), atol=1e-4)
    assert Path("embeddings/tokens.png").stat().st_size > 5000
    assert Path("embeddings/tokens.html").is_file()


@pytest.mark.slow  # seventeen settings, each with programs of its own
def test_sampling_measures_every_setting_and_people(run, tiny_corpus):
    args = ["sampling", "gemma2", "--corpus", tiny_corpus, "--num-prompts", 3, "--json"]
    status, out, _ = run(*args)
    assert status == 0
    found = json.loads(out)
    names = [one["name"] for one in found["settings"]]
    assert names[:2] == ["people", "greedy"] and len(set(names)) == len(names) == 17
    assert json.loads(Path("sampling/sampling.json").read_text()) == found
    assert Path("sampling/sampling.png").is_file()
    by_name = {one["name"]: one for one in found["settings"]}
    assert by_name["greedy"]["log_probability"] > by_name["T 1.6"]["log_probability"]
    assert all(one["texts"] == 3 and one["tokens"] <= 16 for one in found["settings"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["attention", "gemma2", ""], "text: got ''"),
        (["attention", "gemma2", "x", "--target", "y"], "target: got 'y', expected none"),
        (["attention", "gemma2", "x", "--layers", "2"], "layers: got 2, expected 0 to 1"),
        (["attention", "gemma2", "x", "--heads", "-1"], "heads: got -1, expected 0 to 3"),
        (["embeddings", "gemma2", "--neighbours", "0"], "neighbours: got 0"),
        (["embeddings", "gemma2", "", "--tokens", "9"], "queries: got ''"),
        (["embeddings", "gemma2", "--texts", "none.txt"], "texts: got none.txt"),
        (["embeddings", "gemma2", "ab cd", "--pooling", "first"], "pooling: got 'first'"),
        (["sampling", "gemma2"], "corpus, prompts: got '0 of the two'"),
        (["sampling", "t5", "--prompts", "p.txt"], "model.architecture: got 'encoder_decoder'"),
        (["sampling", "gemma2", "--prompts", "none.txt"], "prompts: got none.txt"),
        (["sampling", "gemma2", "--corpus", "none"], "none"),
    ],
)
def test_bad_input_is_one_line(run, args, message):
    status, _, errors = run(*args)
    assert status == 2 and len(errors.splitlines()) == 1 and message in errors, errors
