"""The front door: a table of commands, each a lazy call into one workflow."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from configs.errors import InputError
from configs.serialize import did_you_mean

COMMANDS = {
    "pretrain": "plan, prepare, train, evaluate, sample, export and report in one go",
    "plan": "a budget to a shape, a batch size, a learning rate and a number of steps",
    "compile": "a train step for hardware that is not here: memory, FLOPs, collectives, step time",
    "prepare": "text to a tokenizer and a corpus on disk",
    "inspect": "what a batch of a run holds, as text; or a corpus, and whether it is intact",
    "tokenizer": "compare tokenizers on a domain's text",
    "train": "train a preset, a config file or a run directory (which resumes)",
    "launch": "a command as several processes, watched, and restarted when one of them fails",
    "checkpoint": "list, verify or prune the checkpoints of a run",
    "sweep": "train a grid of budgets and sizes, one row of runs.csv each",
    "fit": "the losses of a sweep to a scaling law of your own, with pictures",
    "generate": "continue or answer a prompt, or fill in what it masks, with a trained model",
    "adapt": "train a pretrained run on a task, or on more text",
    "score": "log-likelihood, perplexity and bits per byte of text",
    "evaluate": "few-shot scores on tasks, and what a context is worth",
    "harness": "lm-evaluation-harness on a trained model",
    "attention": "attention weights of a text as pictures, and what each head does",
    "embeddings": "what is near what in a model: tokens, texts, and a map of the token table",
    "sampling": "what settings of the sampler do to text, beside what people wrote",
    "export": "write a Hugging Face folder and verify it",
    "import": "a Hugging Face folder to a run that trains on",
    "report": "a run directory to one HTML page",
    "doctor": "what this machine offers and whether the installation works",
}

# Those that spend their time in XLA: on a CPU, memory on huge pages makes them quicker.
ON_DEVICES = {
    "pretrain", "train", "sweep", "adapt", "generate", "score", "evaluate", "harness", "sampling",
    "doctor",
}  # fmt: skip

# Those that go on with what they had done when they are given once more.
GO_ON = {"pretrain", "prepare", "train", "sweep", "adapt"}

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_PREEMPTED = 143


def main() -> None:
    """The `isoflop` command."""
    _die_of_sigterm_as_first_process()
    if sys.argv[1:] and sys.argv[1] in ON_DEVICES:
        from train.platform import restart_with_huge_pages

        restart_with_huge_pages()
    try:
        status = run(sys.argv[1:])
    except KeyboardInterrupt:  # while steps are taken, train/preemption.py sees to it
        _say("interrupted")
        status = EXIT_PREEMPTED if sys.argv[1:2] and sys.argv[1] in GO_ON else EXIT_INTERRUPTED
        if distributed := sys.modules.get("train.distributed"):
            distributed.leave_others(status)
    if distributed := sys.modules.get("train.distributed"):  # it may have joined other processes
        distributed.leave(status)
    sys.exit(status)


def run(args: Sequence[str]) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed, 2 bad input, 143 preempted.

    Bad input is a line on stderr for each problem; a failure keeps its traceback. Where the reader
    of results has gone (`isoflop … | head`), a command is done; one that goes on, or watches, has
    failed: there a broken pipe may be a connection to storage.
    """
    try:
        if not args or args[0] in ("-h", "--help"):
            print(_usage())
            return 0
        command, rest = args[0], args[1:]
        if command not in COMMANDS:
            near = did_you_mean(command, COMMANDS)
            names = ", ".join(COMMANDS)
            raise InputError(f"command: got {command!r}, expected one of {names}{near}")
        module = "import_" if command == "import" else command  # a word Python keeps for itself
        return importlib.import_module(f"workflows.{module}").main(rest)
    except InputError as error:
        for problem in error.problems:
            _say(f"error: {problem}")
        return EXIT_BAD_INPUT
    except BrokenPipeError:
        if {*args[:1]} & {*GO_ON, "launch"}:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _die_of_sigterm_as_first_process() -> None:
    """The kernel keeps signals that nothing handles from a container's first process."""
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(EXIT_PREEMPTED))


def _say(line: str) -> None:
    with suppress(OSError):  # whoever read our stderr has gone: the status still counts
        print(f"isoflop: {line}", file=sys.stderr)


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
