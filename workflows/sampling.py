"""isoflop sampling: the same prompts continued in many ways, and what that does to the text."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro
from rich.console import Console
from rich.progress import Progress

from configs.errors import require
from configs.folders import require_writable_folder
from configs.overrides import parse_command, reject_overrides
from data.corpus import open_corpus
from inference.generate import TextGenerator
from inference.generation import Beams
from inference.prompts import PromptFormat
from inference.sampling import Sampling
from inference.sampling_study import TextMeasures, measure, score_continuations, windows
from inference.sentence_embeddings import read_text
from report.pictures.canvas import save_png
from report.pictures.sampling_study import SettingPoint, study_figure
from workflows.load import Loaded, load
from workflows.runtime import RuntimeOptions, prepare_runtime
from workflows.text_lines import read_lines

PROG = "isoflop sampling"
PEOPLE = "people"


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(RuntimeOptions):
    """Repetition, likelihood and drift of what a model writes under many settings of its sampler,
    beside the same of held-out text that people wrote. For decoder-only models.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, or a Hugging Face folder that isoflop exported."""
    corpus: Path | None = None
    """A corpus made with the run's tokenizer: passages of its held-out documents are continued."""
    prompts: Path | None = None
    """Or a UTF-8 file with a prompt a line; there is then no text of people to compare with."""
    num_prompts: int = 64
    """So many prompts, drawn by the seed from the corpus; of a file the first."""
    prompt_tokens: int = 0
    """Length of a corpus prompt; 0: a quarter of the row length of training."""
    max_tokens: int = 0
    """At most so many new tokens; 0: half of the row length of training."""
    seed: int = 0
    """Draws prompts and continuations."""
    out: Path = Path("sampling")
    """Folder for the picture and the measures (JSON)."""
    json: bool = False
    """Print the measures as one JSON object."""


class Setting(NamedTuple):
    """A way to continue; `temperature` where it is one of the row of temperatures."""

    name: str
    sampling: Sampling
    beams: Beams | None = None
    temperature: float | None = None


def settings(seed: int, vocab_size: int) -> list[Setting]:
    """Temperatures alone, from greedy up; then one filter each at temperature 1, beams, and greedy
    with a penalty on repetition."""
    found = [
        Setting(
            f"T {t:g}" if t else "greedy",
            Sampling(temperature=t, seed=seed),
            temperature=t,
        )
        for t in (0.0, 0.3, 0.5, 0.7, 1.0, 1.3, 1.6)
    ]
    found += [
        Setting(f"top-k {k}", Sampling(temperature=1.0, top_k=k, seed=seed))
        for k in (10, 40)
        if k < vocab_size
    ]
    found += [
        Setting(f"top-p {p:g}", Sampling(temperature=1.0, top_p=p, seed=seed))
        for p in (0.8, 0.9, 0.95)
    ]
    found += [
        Setting(f"min-p {p:g}", Sampling(temperature=1.0, min_p=p, seed=seed)) for p in (0.05, 0.1)
    ]
    greedy = Sampling(temperature=0.0, seed=seed)
    penalised = Sampling(temperature=0.0, repetition_penalty=1.2, seed=seed)
    return [
        *found,
        Setting("beams 4", greedy, beams=Beams(number=4)),
        Setting("penalty 1.2", penalised),
    ]


def main(args: Sequence[str]) -> int:
    """Runs `isoflop sampling`."""
    options, overrides = parse_command(
        SamplingOptions, args, prog=PROG, description=SamplingOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    require(options.num_prompts > 0, "num_prompts", options.num_prompts, "1 or more")
    require(options.prompt_tokens >= 0, "prompt_tokens", options.prompt_tokens, "0 or more")
    require(options.max_tokens >= 0, "max_tokens", options.max_tokens, "0 or more")
    given = (options.corpus is not None) + (options.prompts is not None)
    require(given == 1, "corpus, prompts", f"{given} of the two", "one of --corpus and --prompts")
    require_writable_folder("out", options.out)
    prepare_runtime(options, Console(quiet=True))
    loaded = load(options.run)
    require(
        loaded.config.architecture == "decoder_only",
        "model.architecture",
        loaded.config.architecture,
        "decoder_only: what people wrote goes on from a prompt only there",
    )
    prompts, written = _prompts(loaded, options)
    new_tokens = options.max_tokens or loaded.seq_len // 2
    people = score_continuations(
        loaded.config, loaded.params, prompts, written, prompt_is_prefix=loaded.prompt_is_prefix
    )
    measures = [measure(PEOPLE, people)] if people else []
    grid = settings(options.seed, loaded.config.vocab_size)
    generator = TextGenerator(
        loaded.config,
        loaded.params,
        loaded.tokenizer,
        prompt_is_prefix=loaded.prompt_is_prefix,
        prompt_format=loaded.prompt_format,
    )
    for setting in _with_progress(grid):
        continued = generator.generate_tokens(
            prompts, max_tokens=new_tokens, sampling=setting.sampling, beams=setting.beams
        )
        measures.append(measure(setting.name, continued))
    record = {
        "schema_version": 1,
        "run": str(options.run),
        "prompts": len(prompts),
        "max_tokens": new_tokens,
        "seed": options.seed,
        "settings": [asdict(one) for one in measures],
    }
    _write(options, grid, measures, record)
    print(json.dumps(record) if options.json else _table(measures))
    return 0


def _with_progress(grid: Sequence[Setting]) -> Iterator[Setting]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("", total=len(grid))
        for setting in grid:
            bars.update(bar, description=setting.name)
            yield setting
            bars.advance(bar)


def _prompts(loaded: Loaded, options: SamplingOptions) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts as the model reads them, and what people wrote after each (nothing where they come
    from a file)."""
    around = loaded.prompt_format or PromptFormat.of(loaded.config, loaded.tokenizer)
    if options.prompts is not None:
        lines = read_lines(options.prompts, field="prompts")[: options.num_prompts]
        return [read_text(loaded.config, loaded.tokenizer, line, around) for line in lines], []
    assert options.corpus is not None
    corpus = open_corpus(options.corpus)
    require(
        corpus.tokenizer.sha == loaded.tokenizer.sha,
        "corpus",
        str(options.corpus),
        "one made with the run's tokenizer",
    )
    passages = windows(
        [document.tokens for document in corpus.documents("held_out")],
        prompt=options.prompt_tokens or loaded.seq_len // 4,
        continuation=options.max_tokens or loaded.seq_len // 2,
        count=options.num_prompts,
        seed=options.seed,
    )
    prompts = [[*around.before, *prompt, *around.after] for prompt, _ in passages]
    return prompts, [continued for _, continued in passages]


def _write(
    options: SamplingOptions,
    grid: Sequence[Setting],
    measures: Sequence[TextMeasures],
    record: dict,
) -> None:
    temperatures = {setting.name: setting.temperature for setting in grid}
    points = {
        one.name: SettingPoint(
            name=one.name,
            temperature=temperatures.get(one.name),
            repeated_4=one.repeated_4,
            repeated_4_error=one.repeated_4_error or 0,
            log_probability=one.log_probability,
            log_probability_error=one.log_probability_error or 0,
            log_probability_by_quarter=one.log_probability_by_quarter,
        )
        for one in measures
        if one.repeated_4 is not None and one.log_probability is not None
    }
    people = points.pop(PEOPLE, None)
    title = f"{options.run.name}: {record['prompts']} prompts, {record['max_tokens']} new tokens"
    save_png(study_figure(title, list(points.values()), people), options.out / "sampling.png")
    (options.out / "sampling.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def _table(measures: Sequence[TextMeasures]) -> str:
    columns = {
        "tokens": ("tokens", ".0f"),
        "finished": ("ended", ".2f"),
        "repeated_4": ("rep-4", ".3f"),
        "in_loops": ("loops", ".3f"),
        "distinct_1": ("dist-1", ".3f"),
        "distinct_2": ("dist-2", ".3f"),
        "log_probability": ("log p", ".2f"),
    }
    lines = [" " * 20 + "".join(f"{name:>8}" for name, _ in columns.values()) + "  by quarter"]
    for one in measures:
        cells = []
        for field, (_, shape) in columns.items():
            value = getattr(one, field)
            cells.append(f"{'–' if value is None else format(value, shape):>8}")
        drift = one.log_probability_by_quarter or ()
        lines.append(f"{one.name:20}{''.join(cells)}  {' '.join(f'{q:.2f}' for q in drift)}")
    return "\n".join(lines)
