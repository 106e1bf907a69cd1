"""Commands that run models settle how programs are compiled before they open anything."""

import importlib
import os

import pytest

from configs.errors import InputError

# What each needs beside the options at hand; none of these folders and files exists.
REQUIRED = {
    "adapt": ["run", "--task", "docstrings", "--out", "out"],
    "evaluate": ["run", "--tasks", "copy"],
    "generate": ["run", "prompt"],
    "pretrain": [],
    "sampling": ["run", "--prompts", "prompts.txt"],
    "score": ["run", "text"],
    "sweep": ["--corpus", "corpus", "--budgets", "1e9"],
    "train": ["decoder_only/tiny"],
}


def refusal(command: str, *options: str) -> str:
    """Why a command with what it needs, and these options, is refused."""
    main = importlib.import_module(f"workflows.{command}").main
    with pytest.raises(InputError) as caught:
        main([*REQUIRED[command], *options])
    return str(caught.value)


@pytest.mark.parametrize("command", REQUIRED)
def test_a_bad_flag_is_refused_before_anything_is_opened(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(command, "--xla-flags", "fast").startswith("xla_flags: got 'fast'")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["generate", "sweep"])
def test_a_cache_that_cannot_be_made_is_refused(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    message = refusal(command, "--compilation-cache", str(tmp_path / "file" / "cache"))
    assert message.startswith("compilation_cache: got ")


def test_adapt_refuses_another_form_of_profile_before_it_opens_the_run():
    assert refusal("adapt", "--profile", "soon").startswith("profile: got 'soon'")
