"""SIGTERM and SIGINT in every phase of a run: it leaves with 143 in time, and loses nothing."""

import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.reliability.processes import Life, wait_until
from benchmarks.reliability.promises import Promise
from benchmarks.reliability.run_files import Watch, last_checkpoint, records, state_digest
from benchmarks.reliability.scene import (
    GRACE_SECONDS,
    LONGEST_SECONDS,
    NUM_STEPS,
    Scene,
    end_promise,
    exit_promise,
    intact_promise,
)
from benchmarks.reliability.small_run import (
    ISOFLOP,
    Job,
    environment,
    make_job,
    small_config,
    write_text,
)

_PREEMPTED = 143
_SIGNALS_APART_SECONDS = 1.0  # closer ones count as one (train/preemption.py)

IsThere = Callable[[Watch, Life], bool]


def _in_imports(watch: Watch, life: Life) -> bool:
    return time.time() - life.started > 1.0


def _in_compile(watch: Watch, life: Life) -> bool:
    return "compilation cache:" in life.output()


def _in_steps(watch: Watch, life: Life) -> bool:
    return watch.steps() >= NUM_STEPS // 4 and watch.phase() == "steps"


def _in_evaluation(watch: Watch, life: Life) -> bool:
    return watch.phase() == "evaluation"


def _in_save(watch: Watch, life: Life) -> bool:
    return watch.saves() > 0 and watch.phase() == "save"


PHASES: dict[str, IsThere] = {
    "imports": _in_imports,
    "compile": _in_compile,
    "steps": _in_steps,
    "evaluation": _in_evaluation,
    "save": _in_save,
}


def signalled(scene: Scene, phase: str, number: signal.Signals) -> list[Promise]:
    """One signal in a phase of `isoflop train`; afterwards the same command."""
    name = f"{number.name.lower()}_{phase}"
    # Without its programs there is a compile to be hit.
    job = scene.job(name, cache=scene.folder / f"{name}.cache" if phase == "compile" else None)
    watch, what = Watch(job.run), f"{number.name} in {phase}"
    with Life(job) as life:
        wait_until(lambda: PHASES[phase](watch, life), life, LONGEST_SECONDS)
        if phase == "compile":
            time.sleep(0.5)  # from the line before it into it
        hit, step = watch.phase(), watch.steps()
        life.signal(number)
        ended = exit_promise(what, life, (_PREEMPTED,), seconds=GRACE_SECONDS)
    ended = ended._replace(seen=f"{ended.seen} (hit: {hit}, step {step})")
    saved = intact_promise(what, job.run, at_least=step)
    return [ended, saved, end_promise(what, scene.whole, job)]


def second_signal(scene: Scene) -> list[Promise]:
    """A second signal while the first one waits for a step of several seconds: out at once."""
    what = "a second SIGTERM"
    config = small_config(scene.corpus, num_steps=3, batch_size=2048, warmup_steps=1)
    job = make_job(scene.folder, "second_signal", config)
    watch = Watch(job.run)
    with Life(job) as life:
        wait_until(lambda: "  compiled " in life.output(), life, LONGEST_SECONDS)
        time.sleep(2.0)  # into the first step
        life.signal(signal.SIGTERM)
        time.sleep(_SIGNALS_APART_SECONDS)
        was_there = not life.is_over()
        life.signal(signal.SIGTERM)
        ended = exit_promise(what, life, (_PREEMPTED,), seconds=3)
        kept = ended.kept and was_there and not watch.saves()
    seen = ended.seen if was_there else f"it had left before the second signal: {ended.seen}"
    with Life(job) as life:
        again = exit_promise(f"{what}: the same command again", life, (0,), seconds=LONGEST_SECONDS)
    steps = [record["step"] for record in records(job.run / "metrics.jsonl")]
    return [
        ended._replace(seen=seen, kept=kept),
        again._replace(seen=f"{again.seen}, steps {steps}", kept=again.kept and steps == [1, 2, 3]),
    ]


def pretrain_signalled(scene: Scene, phase: str) -> list[Promise]:
    """SIGTERM in a phase of `isoflop pretrain` that is no training; afterwards the same command.

    Args:
      phase: a text that pretrain prints when the phase begins.
    """
    reference = _pretrained(scene)
    what = f"SIGTERM in pretrain, {phase}"
    job = pretrain_job(scene, phase.replace(" ", "_"))
    with Life(job) as life:
        wait_until(lambda: _PRETRAIN[phase](job, life), life, LONGEST_SECONDS)
        newest = last_checkpoint(job.run)
        life.signal(signal.SIGTERM)
        ended = exit_promise(what, life, (_PREEMPTED,), seconds=GRACE_SECONDS)
    saved = intact_promise(what, job.run, at_least=newest)
    with Life(job) as life:
        again = exit_promise(f"{what}: the same command again", life, (0,), seconds=LONGEST_SECONDS)
    same = again.kept and state_digest(job.run) == state_digest(reference)
    done = all((job.run / name).is_file() for name in ("samples.jsonl", "report.html"))
    again = again._replace(
        expected=f"{again.expected}, parameters as in the undisturbed run, samples and report",
        seen=f"{again.seen}, parameters {'equal' if same else 'different'}, "
        f"{'all' if done else 'not all'} files there",
        kept=same and done,
    )
    return [ended, saved, again]


def pretrain_job(scene: Scene, name: str) -> Job:
    """`isoflop pretrain` on the small text, by a budget that no clock decides."""
    folder = scene.folder / "pretrain" / name
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    options = {
        "source": write_text(scene.folder / "text"),
        "run": run,
        "corpora": folder / "corpora",
        "tokens": "200K",
        "vocab-size": 512,
        "seq-len": 64,
        "training.checkpoint-every": 20,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return Job(
        run=run,
        command=(*ISOFLOP, "pretrain", *arguments),
        environment=environment(scene.folder / "pretrain.cache", mark=str(run)),
        log=folder / "log",
    )


def _printed(words: str, job: Job, life: Life) -> bool:
    return words in life.output()


def _is_complete(job: Job, life: Life) -> bool:
    file = job.run / "run.json"
    return file.is_file() and '"complete"' in file.read_text(encoding="utf-8")


_PRETRAIN: dict[str, Callable[[Job, Life], bool]] = {
    "preparation": partial(_printed, "preparing"),
    "planning": partial(_printed, "planning"),
    "sampling": _is_complete,
    "export": lambda job, life: (job.run / "samples.jsonl").is_file(),
}
PRETRAIN_PHASES = tuple(_PRETRAIN)


def _pretrained(scene: Scene) -> Path:
    job = pretrain_job(scene, "whole")
    if not (job.run / "report.html").is_file():
        with Life(job) as life:
            status = life.wait(LONGEST_SECONDS)
            if status != 0:
                raise RuntimeError(f"pretrain exited {status}: {life.last_lines()}")
    return job.run
