"""Bad input: a line a problem that names the field, exit 2, nothing compiled, nothing lost.

tests/bad_input holds the catalogue; here nothing may be compiled first.
"""

import json
import shutil
from pathlib import Path

import pytest

import isoflop as front_door


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Runs a command in this process; gives its exit status and its lines on stderr, without the
    one that says how programs are going to be compiled.

    Compiling is forbidden: an error that comes after a compile is an error here.
    """
    import jax

    def compiled(*_: object, **__: object) -> None:
        raise AssertionError("compiled before the input was checked")

    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled)
    monkeypatch.chdir(tmp_path)

    def run_command(*args: object) -> tuple[int, list[str]]:
        status = front_door.run([str(arg) for arg in args])
        lines = capsys.readouterr().err.splitlines()
        return status, [line for line in lines if not line.startswith("cpu · ")]

    return run_command


def train_args(corpus: Path, *overrides: str) -> list[object]:
    return ["train", "decoder_only/tiny", f"--corpus={corpus}", "--run=run", *overrides]


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["--training.num-step=5"], "--training.num-steps"),
        (["--training.num-steps=many"], "training.num-steps"),
        (["--model.attention.num-heads=3", "--model.attention.num-kv-heads=2"], "num_kv_heads"),
        (["--mesh.data=3", "--training.batch-size=12"], "mesh"),
        (["--mesh.data=8", "--training.batch-size=12"], "training.batch_size"),
        (["--training.num-microbatches=5"], "training.num_microbatches"),
        (["--optimizer.learning-rate=0"], "optimizer.learning_rate"),
        (["--data.seq-len=9000", "--mesh.data=8", "--training.batch-size=8"], "data.seq_len"),
        (["--model.vocab-size=392", "--mesh.data=8", "--training.batch-size=8"], "vocab_size"),
    ],
)
def test_bad_override_is_one_line_naming_the_field(run, tiny, tiny_corpus, overrides, names):
    status, lines = run(*train_args(tiny_corpus, *tiny, *overrides))
    assert status == 2
    assert len(lines) == 1 and names in lines[0], lines
    assert not Path("run/checkpoints").exists()


def test_pretraining_on_a_mixture_is_refused_before_anything_is_prepared(run):
    mixture = ["--data.mixture.kind=weighted", "--data.mixture.corpora", "a", "b"]
    weights = ["--data.mixture.weights", "1", "2"]
    status, lines = run("pretrain", "--time=10s", "--run=run", *mixture, *weights)
    assert (status, len(lines)) == (2, 1) and "data.mixture.kind" in lines[0], lines
    assert not Path("corpora").exists()


def test_missing_corpus_names_the_field(run):
    status, lines = run(*train_args(Path("nowhere"), "--mesh.data=8"))
    assert (status, len(lines)) == (2, 1)
    assert "data.corpus" in lines[0] and "nowhere" in lines[0]


def test_every_problem_is_told_at_once(run):
    status, lines = run(*train_args(Path("nowhere"), "--mesh.data=3", "--training.batch-size=12"))
    assert (status, len(lines)) == (2, 2)
    assert "data.corpus" in lines[0] and "mesh" in lines[1]


def test_empty_source_names_the_field(run):
    Path("empty").mkdir()
    status, lines = run("prepare", "empty", "--out=out")
    assert (status, len(lines)) == (2, 1)
    assert "source" in lines[0]


def test_unreadable_path_names_the_field(run):
    status, lines = run("prepare", "no/such/file.txt", "--out=out")
    assert (status, len(lines)) == (2, 1)
    assert "source" in lines[0] and "no/such/file.txt" in lines[0]


def test_damaged_tokenizer_names_the_file(run, tiny_corpus):
    shutil.copytree(tiny_corpus, "damaged")
    tokenizer = Path("damaged/tokenizer.model")
    tokenizer.write_bytes(tokenizer.read_bytes()[:100])
    status, lines = run(*train_args(Path("damaged"), "--mesh.data=8"))
    assert (status, len(lines)) == (2, 1)
    assert "tokenizer" in lines[0]


def test_damaged_config_keeps_the_run(run, tiny, tiny_corpus):
    Path("run").mkdir()
    Path("run/run.json").write_text('{"schema_version": 1, "name": "a", "status": "training"}')
    Path("run/config.json").write_text("{")
    before = sorted(path.name for path in Path("run").iterdir())
    status, lines = run("train", "run")
    assert (status, len(lines)) == (2, 1)
    assert "config.json" in lines[0]
    assert sorted(path.name for path in Path("run").iterdir()) == before


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["plan"], "budget"),
        (["plan", "--time", "5"], "time"),
        (["plan", "--params", "7B", "--tokens", "1T"], "budget"),
        (["plan", "--budget-flops", "-1"], "budget-flops"),
        (["plan", "--budget-flops", "nan"], "budget-flops"),
        (["pretrain", "--tme", "5m"], "--time"),
        (["generate", "nowhere", "hello"], "nowhere"),
        (["score", "nowhere", "hello"], "nowhere"),
        (["export", "nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["pretain"], "pretrain"),
    ],
)
def test_bad_command_line_is_one_line(run, args, names):
    status, lines = run(*args)
    assert status == 2
    assert len(lines) == 1 and names in lines[0], lines


def test_new_run_never_overwrites_an_old_one(run, tiny, tiny_corpus):
    Path("run").mkdir()
    Path("run/run.json").write_text(json.dumps({"schema_version": 1, "name": "a"}))
    status, lines = run(*train_args(tiny_corpus, *tiny))
    assert (status, len(lines)) == (2, 1)
    assert "run" in lines[0]
