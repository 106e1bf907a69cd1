"""isoflop generate: a prompt to its continuation, its answer, or what its masks stand for."""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table
from rich.text import Text

from configs.errors import require
from configs.folders import require_writable_folder
from configs.model_config import ClassHeadConfig
from configs.overrides import parse_command, reject_overrides
from configs.schema import MeshConfig
from inference.fill_mask import fill_mask
from inference.generate import TextGenerator
from inference.generation import Beams, Generation
from inference.inspect_sampling import Step, settings_text
from inference.sampling import DEFAULT_SAMPLING, Sampling
from inference.token_labels import token_label
from report.pictures.canvas import save_png
from report.pictures.probabilities import Bar, Panel, probabilities_figure
from train.mesh import make_mesh
from workflows.answer_classes import answer_classes
from workflows.load import Loaded, load
from workflows.runtime import RuntimeOptions, prepare_runtime

PROG = "isoflop generate"
_PICTURE_CANDIDATES = 10


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(RuntimeOptions):
    """Continues prompts; one prompt streams to the terminal as it is written.

    An encoder-decoder answers its prompts; sentinels may be spelled: "def f(<extra_id_0>):".
    An encoder fills in what is masked: "import <mask>". A run adapted to classes names them.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """A run directory, or a Hugging Face folder of a known family."""
    prompts: Annotated[tuple[str, ...], tyro.conf.Positional]
    """One or more prompts; several are continued in one batch."""
    max_tokens: int = 128
    """At most so many new tokens; the end-of-sequence token ends sooner."""
    temperature: float | None = None
    """Divides the logits (0.8 unless given); 0 is greedy."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    top_p: float = 0.95
    """Keep only the most likely tokens that together reach this probability; 1 keeps all."""
    min_p: float = 0.0
    """Keep only tokens at least so likely as this share of the likeliest; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens of the prompt and the text less likely to come again."""
    beams: int = 0
    """Search for the likeliest text with so many beams; 0 chooses token by token."""
    length_penalty: float = 1.0
    """Beams are ranked by log-likelihood / length ** this; higher favours longer texts."""
    num_samples: int = 1
    """Texts a prompt; with beams the best so many."""
    stop: tuple[str, ...] = ()
    """Strings that end a text; it is cut before the first to come."""
    seed: int = 0
    """The same seed gives the same text."""
    log_probabilities: bool = False
    """Print each token with its log-probability under the model."""
    show_probabilities: int = 0
    """Print so many candidates of every step, before and after temperature and cuts."""
    picture: Path | None = None
    """Draw the candidates of every step of the first text here (PNG)."""
    data: int = 1
    """Devices that share the prompts."""
    tensor: int = 1
    """Devices that share each layer: heads and widths."""
    json: bool = False
    """Print one JSON object a text."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop generate`."""
    options, overrides = parse_command(
        GenerateOptions, args, prog=PROG, description=GenerateOptions.__doc__ or ""
    )
    reject_overrides(overrides, prog=PROG)
    sampling, beams = _sampling(options), _beams(options)
    require(
        options.show_probabilities >= 0,
        "show_probabilities",
        options.show_probabilities,
        "0 or more",
    )
    for prompt in options.prompts:
        require(bool(prompt), "prompt", prompt, "some text")
    if options.picture is not None:
        require_writable_folder("picture", options.picture.parent)
    prepare_runtime(options, Console(quiet=True))
    loaded = load(options.run)
    if isinstance(loaded.config.head, ClassHeadConfig):
        return answer_classes(loaded, options.prompts, as_json=options.json)
    if loaded.config.architecture == "encoder_only":
        return _fill_in(options, loaded)
    generator = TextGenerator(
        loaded.config,
        loaded.params,
        loaded.tokenizer,
        prompt_is_prefix=loaded.prompt_is_prefix,
        prompt_format=loaded.prompt_format,
        context=loaded.seq_len,
        mesh=_mesh(options),
    )
    num_candidates = options.show_probabilities
    if options.picture is not None and not num_candidates:
        num_candidates = min(_PICTURE_CANDIDATES, loaded.config.vocab_size)
    streams = len(options.prompts) == options.num_samples == 1 and not options.json and not beams
    stream = _Stream(options.prompts[0] if _continues(loaded) else "") if streams else None
    with nullcontext() if streams else Console(stderr=True).status("generating"):
        generations = generator.generate(
            options.prompts,
            max_tokens=options.max_tokens,
            sampling=sampling,
            num_samples=options.num_samples,
            beams=beams,
            stop=options.stop,
            num_candidates=num_candidates,
            on_text=stream,
        )
    if stream is not None:
        stream.end()
    _report(options, loaded, generations, sampling, beams, is_streamed=stream is not None)
    if options.picture is not None:
        _draw(options.picture, generations[0], sampling)
    return 0


def _sampling(options: GenerateOptions) -> Sampling:
    if options.beams:
        given = options.temperature
        require(given in (None, 0.0), "temperature", given, "none with beams, which draw nothing")
    temperature = (
        DEFAULT_SAMPLING.temperature if options.temperature is None else options.temperature
    )
    return Sampling(
        temperature=0.0 if options.beams else temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
    )


def _beams(options: GenerateOptions) -> Beams | None:
    require(options.beams >= 0, "beams", options.beams, "0 (none) or more")
    return (
        Beams(number=options.beams, length_penalty=options.length_penalty)
        if options.beams
        else None
    )


def _mesh(options: GenerateOptions) -> Mesh | None:
    if options.data == options.tensor == 1:
        return None
    asked, shown = options.data * options.tensor, jax.device_count()
    require(
        min(options.data, options.tensor) >= 1 and asked == shown,
        "data, tensor",
        f"{options.data} × {options.tensor} devices",
        f"a product of {shown}, the devices this machine shows",
    )
    return make_mesh(MeshConfig(data=options.data, tensor=options.tensor))


def _continues(loaded: Loaded) -> bool:
    return loaded.config.architecture == "decoder_only"


class _Stream:
    """Prints a text as it is written, after the prompt that it continues."""

    def __init__(self, prompt: str):
        self._prompt = prompt

    def __call__(self, _: int, text: str) -> None:
        # The prompt comes with the first characters: bad settings are refused before.
        sys.stdout.write(self._prompt + text)
        sys.stdout.flush()
        self._prompt = ""

    def end(self) -> None:
        print(self._prompt)


def _report(
    options: GenerateOptions,
    loaded: Loaded,
    generations: Sequence[Generation],
    sampling: Sampling,
    beams: Beams | None,
    *,
    is_streamed: bool,
) -> None:
    """Prints what is not on the terminal yet."""
    for number, generation in enumerate(generations):
        if options.json:
            record = asdict(generation) | {"sampling": asdict(sampling)}
            if beams is not None:
                record["beams"] = asdict(beams)
            print(json.dumps({"schema_version": 1, **record}))
            continue
        if not is_streamed:
            prompt, sample = divmod(number, options.num_samples)
            which = f"{prompt + 1}" + (f", {sample + 1}" if options.num_samples > 1 else "")
            print(
                f"--- {which}\n{generation.prompt if _continues(loaded) else ''}{generation.text}"
            )
        if options.log_probabilities:
            pieces = zip(generation.tokens, generation.log_probabilities, strict=True)
            for token, log_probability in pieces:
                print(f"{log_probability:9.4f}  {token_label(loaded.tokenizer, token)}")
            print(f"{generation.score:9.4f}  score")
        if options.show_probabilities:
            _print_steps(generation.steps, sampling)


def _print_steps(steps: Sequence[Step], sampling: Sampling) -> None:
    """One table a step; narrow, so that a hundred of them can be read through."""
    console = Console(highlight=False)
    console.print(f"sampling: {settings_text(sampling)}")
    for number, step in enumerate(steps, start=1):
        table = Table("token", "model", "scaled", "after cuts", "", title=f"step {number}")
        table.title_justify, table.box = "left", None
        for candidate in step.candidates:
            table.add_row(
                Text(candidate.text),
                f"{candidate.model:.4f}",
                f"{candidate.scaled:.4f}",
                f"{candidate.kept:.4f}" if candidate.kept else "cut",
                "chosen" if candidate.is_chosen else "",
            )
        table.add_row(Text("all others"), f"{step.others:.4f}", "", "", "")
        console.print(table)


def _draw(path: Path, generation: Generation, sampling: Sampling) -> None:
    panels = [
        Panel(
            bars=tuple(
                Bar(
                    label=c.text,
                    model=c.model,
                    scaled=c.scaled,
                    kept=c.kept,
                    is_chosen=c.is_chosen,
                )
                for c in step.candidates
            )
        )
        for step in generation.steps
    ]
    figure = probabilities_figure(panels, title=settings_text(sampling))
    print(save_png(figure, path), file=sys.stderr)


def _fill_in(options: GenerateOptions, loaded: Loaded) -> int:
    filled = fill_mask(
        loaded.config,
        loaded.params,
        loaded.tokenizer,
        options.prompts,
        top=options.show_probabilities or 5,
        prompt_format=loaded.prompt_format,
        context=loaded.seq_len,
    )
    for one in filled:
        if options.json:
            print(json.dumps({"schema_version": 1, **asdict(one)}))
            continue
        print(one.text)
        for number, candidates in enumerate(one.candidates, start=1):
            shown = ", ".join(f"{c.text!r} {c.probability:.3f}" for c in candidates)
            print(f"  mask {number}: {shown}")
    return 0
