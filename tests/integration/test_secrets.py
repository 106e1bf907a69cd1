"""Secrets of the environment and the home folder are not taken into anything that a run writes."""

from pathlib import Path

import pytest

MARKER = "xyzzy-a-secret-4711"
VARIABLES = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "GITHUB_TOKEN", "PASSWORD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "FSSPEC_HTTPS_USERNAME", "FSSPEC_HTTPS_PASSWORD"),
)
FILES = (".netrc", ".aws/credentials", ".cache/huggingface/token", ".git-credentials")


@pytest.mark.slow
def test_no_secret_is_in_a_run_or_its_logs(
    tmp_path: Path, tiny_corpus, tiny, run_isoflop, monkeypatch
):
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    for name in FILES:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(MARKER)
    monkeypatch.setenv("HOME", str(home))
    for name in VARIABLES:
        monkeypatch.setenv(name, f"{MARKER}-{name}")
    steps = ["--training.num-steps=4", "--training.checkpoint-every=2", "--training.log-every=1"]
    said = ""
    for args in (
        ["train", "decoder_only/tiny", f"--corpus={tiny_corpus}", "--run=run", *tiny, *steps],
        ["report", "run"],
        ["inspect", "run"],
    ):
        result = run_isoflop(*args, cwd=work)
        assert result.returncode == 0, result.stderr
        said += result.stdout + result.stderr
    written = [path for path in work.rglob("*") if path.is_file()]
    names = {path.name for path in written}
    assert {"config.json", "fingerprint.json", "metrics.jsonl", "report.html"} <= names
    assert any("checkpoints" in path.parts for path in written)
    assert MARKER not in said
    assert [path for path in written if MARKER.encode() in path.read_bytes()] == []
