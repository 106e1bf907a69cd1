"""isoflop harness: EleutherAI's lm-evaluation-harness on a model of ours."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from configs.errors import require
from inference import harness
from workflows.load import load
from workflows.runtime import RuntimeOptions, prepare_runtime

PROG = "isoflop harness"
_USAGE = f"""usage: {PROG} RUN [LM_EVAL OPTIONS]

Scores a run directory or a Hugging Face folder with lm-evaluation-harness: `lm_eval run --model
isoflop` with the options given, such as --tasks TASK… --include_path FOLDER --num_fewshot 2
--output_path FOLDER --log_samples.

Beside --model_args: max_length=N, max_gen_toks=N, add_bos_token=False, seed=N.
`lm_eval run --help` lists all options. Needs the extra: pip install 'isoflop[harness]'."""


def register() -> None:
    """Makes `lm_eval.simple_evaluate(model="isoflop", model_args="run=FOLDER", …)` known."""
    harness.register(load)


def main(args: Sequence[str]) -> int:
    """Runs `isoflop harness`."""
    if not args or args[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    run, *rest = args
    is_folder = (Path(run) / "run.json").is_file() or (Path(run) / "config.json").is_file()
    require(is_folder, "run", run, "a run directory or a Hugging Face folder, before lm_eval's")
    prepare_runtime(RuntimeOptions(), Console(quiet=True))
    harness.run_command_line(load, Path(run), rest)
    return 0
