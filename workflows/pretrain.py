"""isoflop pretrain: plan, prepare, train, evaluate, sample, export and report in one go."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from configs.errors import require
from configs.folders import require_writable_folder
from configs.overrides import apply_overrides, load_preset_or_file, parse_command
from configs.schema import RunConfig
from configs.serialize import read_json, write_json
from data.baselines import ngram_baselines
from data.corpus import Corpus
from data.dataset import Corpora, open_corpora
from data.held_out import compression_baselines
from data.objectives import OBJECTIVES
from data.preparation import Preparation
from data.prepare import OtherCorpusError
from data.sources import open_source
from data.sources.text_source import TextSource
from export.express import default_family
from export.families import get_family
from planner.plan import make_plan
from report.page import write_report
from report.read import read_run
from report.terminal import print_comparison
from train.mesh import make_mesh
from train.profile import profile_numbers
from train.progress import outlive_reader
from train.run_directory import RunDirectory
from workflows.budget_options import BudgetOptions
from workflows.calibrate import calibrated_plan, describe_hardware
from workflows.export import describe as describe_export
from workflows.export import export_loaded, export_record
from workflows.load import load
from workflows.plan import print_plan
from workflows.preflight import check_run
from workflows.prepare import corpus_name, prepare
from workflows.prepare import describe as describe_corpus
from workflows.runtime import prepare_runtime
from workflows.samples import take_samples
from workflows.train import create_run, finish_training, verify
from workflows.training_options import TrainingOptions

PROG = "isoflop pretrain"
DEFAULT_TIME = "6m"
# The options that decide what a run is, beside its budget: a run that goes on keeps them.
_DECIDING = (
    *("source", "text_field", "preset", "family"),
    *("law", "price", "vocab_size", "seq_len", "max_params"),
)


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(TrainingOptions, BudgetOptions):
    """Pretrains a model from nothing but a budget and text; without arguments, six minutes on
    the source of Python's standard library.

    The same command on a run that was interrupted goes on with it. Any field of the config can be
    overridden: --training.seed 1.
    """

    source: str = "stdlib"
    """Where the text is, as for `isoflop prepare`: `stdlib`, files, tfds:NAME, hf:NAME."""
    run: Path = Path("runs/pretrain")
    """Run directory to write."""
    corpora: Path = Path("corpora")
    """Folder under which the prepared corpus is kept."""
    text_field: str = "text"
    """Field, column or feature that holds the text, where documents are records."""
    skip_problems: bool = False
    """Count documents that cannot be read and go on, rather than stop at the first."""
    workers: int = 0
    """Processes that read and tokenize; 0: one a core."""
    verify: Literal["quick", "full"] = "quick"
    """full: read every byte of the corpus before the first step."""
    preset: str = "decoder_only"
    """What is no size (architecture, objective, norms, seeds) is taken from this preset or .json
    file: decoder_only, encoder_only, encoder_decoder, …"""
    family: str = ""
    """Hugging Face family to export as; the first that can express the model if not given."""
    profile: str = ""
    """Steps to trace into RUN/profile: 10:13, or 3 for three steps from the fifth on."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop pretrain`."""
    options, overrides = parse_command(
        PretrainOptions, args, prog=PROG, description=PretrainOptions.__doc__ or ""
    )
    console = Console(stderr=True, highlight=False)
    if options.profile:
        profile_numbers(options.profile)
    prepare_runtime(options, console)
    with RunDirectory(options.run) as run:
        if not run.exists():
            corpora = _begin(options, overrides, run, console)
        else:
            _require_same_command(options, overrides, run)
            config = run.config()
            corpora = check_run(
                config,
                run.path,
                partial(open_corpora, config.data),
                resume=True,
                compilation_cache=options.compilation_cache,
            )
            console.print(f"{run.path} exists ({run.status}): going on with it")
        if options.verify == "full":
            verify(corpora, console)
        if run.status != "complete":
            console.rule("training", align="left")
            status = finish_training(
                run, run.config(), corpora, console, profile=options.profile, watch=options.watch
            )
            if status:
                return status
        [corpus] = corpora.values()
        _use(options, run, corpus, console)
    results = outlive_reader(Console(highlight=False))
    print_comparison(read_run(run.path), results)
    _print_samples(run, results)
    results.print(
        f"export: {run.read('summary.json')['export']['path']}", markup=False, soft_wrap=True
    )
    results.print(f"report: {run.path / 'report.html'}", markup=False, soft_wrap=True)
    return 0


def _begin(
    options: PretrainOptions, overrides: Sequence[str], run: RunDirectory, console: Console
) -> Corpora:
    """Plans and prepares; afterwards the run directory says what the run is."""
    budget = options.budget(default_time=DEFAULT_TIME)
    template = apply_overrides(load_preset_or_file(options.preset), overrides)
    template = replace(template, name=run.path.name)
    if options.family:
        get_family(options.family)
    mixture = template.data.mixture.kind
    require(
        mixture == "single", "data.mixture.kind", mixture, "single (mix corpora with isoflop train)"
    )
    source = open_source(options.source, text_field=options.text_field)
    require_writable_folder("corpora", options.corpora)
    law, constraints = options.chosen_law(), options.constraints()
    hardware = options.priced(describe_hardware())
    # A first plan, by assumed speed: says how large a vocabulary fits, and finds what does not fit.
    guess = make_plan(
        budget,
        template=template,
        hardware=hardware,
        law=law,
        constraints=constraints,
    )
    make_mesh(apply_overrides(guess.config, overrides).mesh)
    vocab_size = guess.config.model.vocab_size
    symbols = template.objective.symbols(guess.config.data.seq_len)

    console.rule("preparing", align="left")
    start = time.perf_counter()
    name = f"{corpus_name(options.source)}-{vocab_size}"
    if symbols:
        name += f"-{template.objective.kind}"
    preparation = Preparation(
        vocab_size=vocab_size,
        symbols=symbols,
        seed=template.data.seed,
        skip_problems=options.skip_problems,
        workers=options.workers,
    )
    corpus = _prepare_beside_others(options, source, name, preparation, console)
    console.print(describe_corpus(corpus, time.perf_counter() - start))

    console.rule("planning", align="left")
    template = replace(template, data=replace(template.data, corpus=str(corpus.path)))
    constraints = replace(constraints, vocab_size=vocab_size)
    if symbols and not constraints.seq_len:
        constraints = replace(
            constraints,
            seq_len=guess.config.data.seq_len,
            seq_len_rule="rule of thumb by size, when the tokenizer got symbols for such rows",
        )
    plan = calibrated_plan(
        budget,
        template=template,
        law=law,
        constraints=constraints,
        hardware=hardware,
        held_out_tokens=corpus.stream("held_out").num_tokens,
        console=console,
    )
    plan = plan.with_config(apply_overrides(plan.config, overrides))
    corpus_tokens = corpus.stream("train").num_tokens
    print_plan(plan, console, corpus_tokens)
    run.write("plan.json", plan.to_json(corpus_tokens) | {"command": _deciding(options)})
    run.write("summary.json", {"prepare_seconds": time.perf_counter() - start})
    corpora = {corpus.path.name: corpus}
    check_run(
        plan.config,
        run.path,
        lambda: corpora,
        resume=False,
        compilation_cache=options.compilation_cache,
    )
    create_run(run, plan.config, corpora)
    return corpora


def _prepare_beside_others(
    options: PretrainOptions,
    source: TextSource,
    name: str,
    preparation: Preparation,
    console: Console,
) -> Corpus:
    """The corpus in the first folder of the name that is free or holds it: NAME, NAME-2, …"""
    for number in itertools.count(1):
        folder = options.corpora / (name if number == 1 else f"{name}-{number}")
        try:
            return prepare(source, folder, preparation, console)
        except OtherCorpusError:
            continue
    raise AssertionError("unreachable")


def _require_same_command(
    options: PretrainOptions, overrides: Sequence[str], run: RunDirectory
) -> None:
    """Raises InputError if the command asks for another run than the one that is there."""
    plan = run.read("plan.json")
    planned, command = plan["budget"], plan.get("command")
    if options.names_a_budget:
        budget = options.budget()
        require(
            (budget.kind, budget.value) == (planned["kind"], planned["value"]),
            f"budget ({budget.kind})",
            budget.value,
            f"the run's {planned['kind']} {planned['value']} {planned['unit']}, or another --run",
        )
    if command is not None:  # not recorded before version 0.2
        for name, value in _deciding(options).items():
            begun = command.get(name, getattr(PretrainOptions, name))
            require(value == begun, name, value, f"the run's {begun}, or another --run")
    config = run.config()
    require(
        apply_overrides(config, overrides) == config,
        "overrides",
        " ".join(overrides),
        "what the run was started with, or another --run",
    )


def _deciding(options: PretrainOptions) -> dict[str, str | float]:
    """Those options that decide what a run is and were given."""
    values = {name: getattr(options, name) for name in _DECIDING}
    return {name: v for name, v in values.items() if v != getattr(PretrainOptions, name)}


def _use(options: PretrainOptions, run: RunDirectory, corpus: Corpus, console: Console) -> None:
    """What comes after training: baselines, samples, export, report. Skips what is there."""
    summary = run.read("summary.json")
    config = run.config()
    if summary.get("baselines") is None:
        with console.status("measuring baselines on the held-out text"):
            summary["baselines"] = _baselines(config, corpus)
        run.write("summary.json", summary)
    loaded = load(run.path)
    if not run.has("samples.jsonl"):
        with console.status("trying the model on held-out text"):
            for record in take_samples(loaded, corpus):
                run.append("samples.jsonl", {"step": config.training.num_steps} | record)
    if summary.get("export") is None:
        family = options.family or default_family(loaded.config, loaded.seq_len)
        with console.status(f"exporting to {family} and verifying"):
            result = export_loaded(loaded, corpus, run.path / "export" / family, family)
        console.print("  " + describe_export(result))
        summary["export"] = export_record(result)
        run.write("summary.json", summary)
    write_report(run.path)


def _baselines(config: RunConfig, corpus: Corpus) -> dict[str, float]:
    """What little is worth on the same held-out text: counts of tokens, and xz where the model
    gives every byte a probability."""
    baselines = ngram_baselines(config, corpus)
    if OBJECTIVES[type(config.objective)].scores_text:
        baselines = baselines | _compressed(corpus)
    return baselines


def _compressed(corpus: Corpus) -> dict[str, float]:
    """xz on the held-out text; kept beside the corpus, since it takes its time."""
    kept = corpus.path / "baselines.json"
    if kept.is_file():
        record = read_json(kept)
        if record.pop("corpus_sha", None) == corpus.sha:
            return record
    baselines = compression_baselines(corpus.text("train"), corpus.text("held_out"))._asdict()
    write_json(kept, {"corpus_sha": corpus.sha} | baselines)
    return baselines


def _print_samples(run: RunDirectory, console: Console) -> None:
    for sample in read_run(run.path).samples:
        console.rule("held-out text, and what the model makes of it", align="left")
        is_continuation = "sampling" in sample and sample["sampling"]["temperature"] > 0
        console.print(Text(sample["prompt"], style="dim"), end="" if is_continuation else "\n")
        console.print(Text(sample["text"], style="bold"))
