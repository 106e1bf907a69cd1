"""The front door: a table of commands, each a lazy call into one workflow."""

import importlib
import sys
from collections.abc import Sequence

from configs.errors import InputError
from configs.serialize import did_you_mean

COMMANDS = {
    "pretrain": "plan, prepare, train, evaluate, sample, export and report in one go",
    "plan": "a budget to a shape, a batch size, a learning rate and a number of steps",
    "prepare": "text to a tokenizer and a corpus on disk",
    "train": "train a preset, a config file or a run directory (which resumes)",
    "generate": "continue a prompt with a trained model",
    "score": "log-likelihood, perplexity and bits per byte of text",
    "export": "write a Hugging Face folder and verify it",
    "report": "a run directory to one HTML page",
    "doctor": "what this machine offers and whether the installation works",
}

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_PREEMPTED = 143


def main() -> None:
    """The `isoflop` command."""
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 bad input, 143 preempted.

    Bad input is one line on stderr; a failure keeps its traceback.
    """
    if not args or args[0] in ("-h", "--help"):
        print(_usage())
        return 0
    command, rest = args[0], args[1:]
    try:
        if command not in COMMANDS:
            near = did_you_mean(command, COMMANDS)
            raise InputError(
                f"command: got {command!r}, expected one of {', '.join(COMMANDS)}{near}"
            )
        return importlib.import_module(f"workflows.{command}").main(rest)
    except InputError as error:
        print(f"isoflop: error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except BrokenPipeError:  # the reader of our output has gone: `isoflop … | head`
        sys.stderr.close()
        return 0


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: isoflop COMMAND [OPTIONS]",
            "",
            "Plans, pretrains, uses and exports language models.",
            "",
            *lines,
            "",
            "isoflop COMMAND --help shows a command's options with their defaults.",
        ]
    )


if __name__ == "__main__":
    main()
