"""`isoflop inspect` shows what training is fed, byte for byte, and what a corpus holds."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isoflop as front_door
import train.loop
from configs.data_config import (
    BestFitConfig,
    ConcatenateConfig,
    DataConfig,
    LengthBucketsConfig,
    WeightedMixtureConfig,
)
from configs.presets import decoder_only
from configs.schema import RunConfig, TrainingConfig
from configs.serialize import save
from data.batches import Batch, Cursor
from data.corpus import open_corpus
from data.dataset import open_corpora, training_rows
from data.prepare import Preparation, prepare_corpus
from data.sources import open_source
from data.tokenizer import Tokenizer
from train.checkpoint import Checkpoints
from train.feed import Fed, feed
from train.mesh import make_mesh
from train.refusals import save_culprit
from train.run_directory import RunDirectory
from train.state import TrainState
from train.step import batch_sharding
from workflows.train import fingerprint_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def inspect(capsys, tmp_path, monkeypatch):
    """Runs `isoflop inspect ARGS` in this process; exit status, stdout, lines of stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, str, list[str]]:
        capsys.readouterr()
        status = front_door.run(["inspect", *map(str, args)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return run


@pytest.fixture
def inspect_json(inspect):
    """The object that `isoflop inspect ARGS --json` prints."""

    def run(*args: object) -> dict:
        status, out, errors = inspect(*args, "--json")
        assert (status, errors) == (0, [])
        return json.loads(out)

    return run


@pytest.fixture(scope="module")
def other_corpus(tiny_corpus, tmp_path_factory) -> Path:
    """A second corpus with the tokenizer of the first."""
    folder = tmp_path_factory.mktemp("other_text")
    for number in range(8):
        lines = [f"class C{number}_{i}:\n    value = {i}" for i in range(3 * number + 2)]
        (folder / f"{number}.py").write_text("\n".join(lines))
    out = tmp_path_factory.mktemp("other") / "classes"
    tokenizer = Tokenizer.load(tiny_corpus / "tokenizer.model")
    prepare_corpus(open_source(str(folder)), out, Preparation(vocab_size=400, tokenizer=tokenizer))
    return out


@dataclass(frozen=True)
class Case:
    """What a run reads, and how many steps it has."""

    data: DataConfig
    training: TrainingConfig


CASES = {
    "concatenate": Case(
        DataConfig(seq_len=32, seed=3, packing=ConcatenateConfig()),
        TrainingConfig(num_steps=20, batch_size=8),  # into the second epoch
    ),
    "best_fit": Case(
        DataConfig(seq_len=32, packing=BestFitConfig()),
        TrainingConfig(num_steps=9, batch_size=8, batch_warmup=(2, 4), batch_warmup_steps=(1, 3)),
    ),
    "length_buckets": Case(
        DataConfig(seq_len=256, packing=LengthBucketsConfig(group_rows=4)),
        TrainingConfig(num_steps=5, batch_size=4),
    ),
    "mixture": Case(
        DataConfig(
            seq_len=24,
            packing=BestFitConfig(),
            mixture=WeightedMixtureConfig(
                corpora=("a", "b"), weights=(3, 1, 1, 1), stage_steps=(4,)
            ),
        ),
        TrainingConfig(num_steps=12, batch_size=8),
    ),
}


@pytest.fixture
def make_run(tmp_path, tiny_corpus, other_corpus):
    """Writes a run directory as training begins one; nothing is compiled."""

    def make(case: Case, name: str = "run") -> RunConfig:
        data = case.data
        if isinstance(data.mixture, WeightedMixtureConfig):
            corpora = (str(tiny_corpus), str(other_corpus))
            data = replace(data, mixture=replace(data.mixture, corpora=corpora))
        else:
            data = replace(data, corpus=str(tiny_corpus))
        preset = decoder_only.tiny()
        schedule = replace(preset.optimizer.schedule, warmup_steps=1)
        config = replace(
            preset,
            model=replace(preset.model, vocab_size=400),
            optimizer=replace(preset.optimizer, schedule=schedule),
            data=data,
            training=case.training,
        )
        run = RunDirectory(tmp_path / name)
        with run:
            save(config, run.config_file)
            run.tokenizer.write_bytes((tiny_corpus / "tokenizer.model").read_bytes())
            run.write("fingerprint.json", fingerprint_of(config, open_corpora(config.data)))
            run.create(name)
        return config

    return make


def fed_batches(config: RunConfig, cursor: Cursor = Cursor()) -> list[Fed]:  # noqa: B008
    """Every batch that training would be fed."""
    source = training_rows(config, open_corpora(config.data))
    sharding = batch_sharding(config, make_mesh(config.mesh, jax.devices()[:1]))
    return list(feed(source, cursor, config.training, first_step=0, sharding=sharding))


def assert_shows(record: dict, host: Batch) -> None:
    """Asserts that the record holds exactly the host batch."""
    assert record["batch_shape"] == list(host.inputs.shape)
    assert len(record["rows"]) == len(host.inputs)
    names = {"inputs": "tokens", **{n: n for n in ("targets", "loss_weights", "positions")}}
    for place, row in enumerate(record["rows"]):
        for field, name in names.items():
            expected = getattr(host, field)[place]
            shown = [value for segment in row["segments"] for value in segment[name]]
            np.testing.assert_array_equal(np.array(shown, expected.dtype), expected)
        ids = [s["segment"] for s in row["segments"] for _ in s["tokens"]]
        np.testing.assert_array_equal(ids, host.segment_ids[place])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_batch_shown_is_the_batch_fed(inspect_json, make_run, case):
    config = make_run(case)
    batches = fed_batches(config)
    for step in (1, 2, len(batches)):
        record, fed = inspect_json("run", f"--step={step}", "--rows=0"), batches[step - 1]
        assert_shows(record, fed.host)
        assert [row["row"] for row in record["rows"]] == fed.rows.tolist()
        assert (record["first_row"], record["last_row"]) == (fed.rows[0], fed.rows[-1])
        names = [Path(folder).name for folder in config.data.corpora]
        for row, entry in zip(record["rows"], fed.entries, strict=False):
            assert (row["corpus"], row["epoch"]) == (names[entry.corpus], entry.epoch)
            assert row["counts"] == {
                "places": entry.places,
                "tokens_read": entry.read,
                "tokens_repeated": entry.repeated,
                "tokens_padded": entry.padded,
                "tokens_truncated": entry.truncated,
                "cuts": entry.cuts,
                "tokens_trained_on": entry.trained_on,
            }
        assert "".join(s["text"] for row in record["rows"] for s in row["segments"]).isascii()


def test_cases_reach_a_second_epoch_and_both_corpora(inspect_json, make_run):
    make_run(CASES["concatenate"])
    assert inspect_json("run", "--step=20")["rows"][-1]["epoch"] == 1
    make_run(CASES["mixture"], "mixed")
    rows = inspect_json("mixed", "--step=1", "--rows=0")["rows"]
    assert {row["corpus"] for row in rows} == {"tiny", "classes"}


def test_rows_that_training_passes_over_are_passed_over(inspect, inspect_json, make_run):
    config = make_run(CASES["best_fit"])
    state = TrainState(jnp.asarray(5, jnp.int32), {"w": jnp.ones(3)}, ())
    checkpoints = Checkpoints(Path("run/checkpoints"))
    cursor = Cursor(30, ((3, 9), (12, 13)))
    checkpoints.save(state, {"cursor": cursor.to_json(), "train_seconds": 1.0})
    checkpoints.close()
    batches = fed_batches(config, replace(cursor, next_row=0))
    for step in (2, 9):
        record = inspect_json("run", f"--step={step}", "--rows=0")
        assert [row["row"] for row in record["rows"]] == batches[step - 1].rows.tolist()
        assert_shows(record, batches[step - 1].host)
    assert "rows 2 to 11, 6 skipped ·" in inspect("run", "--step=2")[1]


def test_a_checkpoint_that_cannot_be_read_is_passed_by(inspect_json, make_run):
    make_run(CASES["concatenate"])
    for step, text in ((2, '{"cursor": {"next_row": 16, "skipped": [[0, 4]]}}'), (10, "{")):
        folder = Path(f"run/checkpoints/{step}/progress")
        folder.mkdir(parents=True)
        (folder / "metadata").write_text(text)
    assert inspect_json("run")["first_row"] == 4


@pytest.mark.slow
def test_what_a_real_run_was_fed_is_shown(inspect_json, tiny, tiny_corpus, monkeypatch):
    fed: list[Fed] = []

    def recorded(*args, **kwargs):
        for one in feed(*args, **kwargs):
            fed.append(one)
            yield one

    monkeypatch.setattr(train.loop, "feed", recorded)
    size = ["--mesh.data=8", "--training.batch-size=16", "--training.num-steps=4"]
    warmup = ["--training.batch-warmup=8", "--training.batch-warmup-steps=2"]
    args = ["--run=run", "--data.packing.kind=best_fit", *tiny, *size, *warmup]
    assert front_door.run(["train", "decoder_only/tiny", f"--corpus={tiny_corpus}", *args]) == 0
    assert len(fed) == 4
    for step, one in enumerate(fed, start=1):
        assert_shows(inspect_json("run", f"--step={step}", "--rows=0"), one.host)


def test_text_shows_rows_their_counts_and_their_documents(inspect, make_run):
    make_run(CASES["concatenate"])
    status, out, errors = inspect("run", "--step=3", "--rows=2")
    lines = out.splitlines()
    assert (status, errors) == (0, [])
    assert lines[0] == (
        "step 3 of 20 · rows 16 to 23 · batch 8 × 32 · causal_lm, concatenate, seed 3"
    )
    assert "⟦no loss⟧" in lines[1]
    heads = [line for line in lines if line.startswith("row ")]
    assert [head.partition(" ·")[0] for head in heads] == ["row 16", "row 17"]
    assert "tiny, epoch 0 · 33 places: 32 read, 1 repeated, 0 padded" in heads[0]
    assert any(line.startswith("    │ ") and "return" in line for line in lines)
    assert lines[-1] == "2 of 8 rows; --rows 0 shows all"
    assert "\x1b" not in out
    assert sum(line.startswith("row ") for line in inspect("run", "--rows=0")[1].splitlines()) == 8


def test_tokens_and_colours_come_on_request(inspect, make_run):
    make_run(CASES["concatenate"])
    out = inspect("run", "--rows=1", "--tokens", "--color=always", "--width=60")[1]
    assert "\x1b[32m" in out
    assert sum(bool(re.match(r" +\d+ +\d+ +\d+ ", line)) for line in out.splitlines()) == 32


def test_a_run_is_inspected_without_loading_jax(make_run, tmp_path):
    make_run(CASES["mixture"])
    script = (
        "import sys, isoflop\n"
        "status = isoflop.run(['inspect', 'run', '--step', '2'])\n"
        "sys.exit(status or str({'jax', 'flax', 'grain', 'tensorflow'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr.strip() == "set()"


def test_corpora_may_have_moved(inspect, inspect_json, make_run, tiny_corpus, other_corpus):
    make_run(CASES["concatenate"])
    before = inspect_json("run")["rows"]
    shutil.copytree(tiny_corpus, "tiny")
    assert inspect_json("run", "--corpus=tiny")["rows"] == before
    status, _, lines = inspect("run", f"--corpus={other_corpus}")
    assert (status, len(lines)) == (2, 1) and "data.corpus" in lines[0]


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["run", "--step=0"], "step: got 0, expected 1 to 20"),
        (["run", "--step=21"], "step: got 21, expected 1 to 20"),
        (["run", "--step=two"], "step"),
        (["run", "--rows=-1"], "rows"),
        (["run", "--width=3"], "width"),
        (["run", "--documents=2"], "documents"),
        (["run", "--verify=full"], "verify"),
        (["run", "--data.seed=1"], "--data.seed"),
        (["corpus", "--step=1"], "step"),
        (["corpus", "--tokens"], "tokens"),
        (["corpus", "--documents=-1"], "documents"),
        (["corpus", "--split=held_out"], "split"),
        (["corpus", "--split=test"], "split"),
        (["."], "target"),
        (["nowhere"], "nowhere"),
        ([], "expected TARGET"),
    ],
)
def test_bad_input_is_one_line(inspect, make_run, tiny_corpus, args, names):
    make_run(CASES["concatenate"])
    shutil.copytree(tiny_corpus, "corpus")
    status, out, lines = inspect(*args)
    assert (status, out, len(lines)) == (2, "", 1), lines
    assert names.lower() in lines[0].lower(), lines


def test_a_damaged_run_is_one_line(inspect, make_run):
    make_run(CASES["concatenate"])
    Path("run/fingerprint.json").write_text("{}")
    status, _, lines = inspect("run")
    assert (status, len(lines)) == (2, 1) and "fingerprint.json" in lines[0]
    Path("run/config.json").write_text("{")
    status, _, lines = inspect("run")
    assert (status, len(lines)) == (2, 1) and "config.json" in lines[0]


def test_a_corpus_shows_its_card(inspect, inspect_json, tiny_corpus):
    card = json.loads((tiny_corpus / "corpus.json").read_text())
    del card["card_xxh3"]  # of the file, not of the corpus
    assert inspect_json(tiny_corpus) == card
    status, out, _ = inspect(tiny_corpus)
    assert status == 0 and out == (tiny_corpus / "corpus.md").read_text()


def test_full_verification_says_what_it_read(inspect, tiny_corpus):
    card = json.loads((tiny_corpus / "corpus.json").read_text())
    del card["card_xxh3"]
    files, splits = card["files"].values(), card["splits"].values()
    status, out, _ = inspect(tiny_corpus, "--verify=full")
    assert status == 0
    assert out.splitlines()[0] == (
        f"intact: {len(files)} files, {sum(f['bytes'] for f in files):,} bytes, "
        f"{sum(split['chunks'] for split in splits)} chunks"
    )
    status, out, errors = inspect(tiny_corpus, "--verify=full", "--json")
    assert json.loads(out) == card and errors[-1].startswith("intact: ")


@pytest.mark.parametrize("verify", ["quick", "full"])
def test_damage_names_the_file(inspect, tiny_corpus, verify):
    shutil.copytree(tiny_corpus, "damaged")
    [path] = Path("damaged").rglob("*-train.array_record*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    status, out, lines = inspect("damaged", f"--verify={verify}")
    assert (status, out, len(lines)) == (2, "", 1)
    assert path.name in lines[0]


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_documents_are_the_first_of_their_split(inspect, inspect_json, tiny_corpus, split):
    corpus = open_corpus(tiny_corpus)
    expected = list(corpus.documents(split))[:2]
    shown = inspect_json(tiny_corpus, "--documents=2", f"--split={split}")["documents"]
    assert [one["text"] for one in shown] == [
        corpus.tokenizer.decode(one.tokens) for one in expected
    ]
    assert [one["num_tokens"] for one in shown] == [len(one.tokens) + 2 for one in expected]
    status, out, _ = inspect(tiny_corpus, "--documents=2", f"--split={split}")
    heads = [line for line in out.splitlines() if line.startswith("--- ")]
    total = corpus.splits[split].documents
    assert status == 0 and heads == [
        f"--- {split} document {number} of {total} · {len(one.tokens) + 2} tokens · "
        f"{one.num_bytes:,} bytes"
        for number, one in enumerate(expected, start=1)
    ]
    text = "".join(line.removeprefix("    │ ") for line in out.splitlines() if "│" in line)
    whole = "".join(f"<s>{corpus.tokenizer.decode(one.tokens)}</s>" for one in expected)
    assert text == whole.replace("\n", "⏎")


def test_a_culprit_is_shown_as_training_had_it(make_run, tmp_path, inspect):
    config = make_run(next(iter(CASES.values())))
    fed = fed_batches(config)[1]
    altered = fed.host._replace(inputs=fed.host.inputs.copy())
    altered.inputs[1, 2] ^= 1
    save_culprit(tmp_path / "run" / "culprits", 2, fed.host_rows, altered, "loss is nan")
    status, out, errors = inspect("run", "--culprit", 2, "--rows", 0, "--json")
    assert_shows(json.loads(out), altered)
    altered_row = f"row {fed.rows[1]:,} is not what the corpus holds: it was altered on its way"
    assert (status, errors) == (0, ["loss is nan", altered_row])
    status, _, errors = inspect("run", "--culprit", 3)
    expected = "isoflop: error: culprit: got step 3, expected one of those kept: 2"
    assert (status, errors) == (2, [expected])
