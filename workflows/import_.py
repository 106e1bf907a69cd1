"""isoflop import: a Hugging Face folder to a run that trains on, generates and exports again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from configs.data_config import DataConfig
from configs.errors import require
from configs.objective_config import (
    CausalLMConfig,
    MaskedLMConfig,
    ObjectiveConfig,
    SpanCorruptionConfig,
)
from configs.overrides import apply_overrides, parse_command
from configs.schema import RunConfig
from data.dataset import open_corpora
from export.import_ import import_folder
from model.build import count_params
from train.run_directory import RunDirectory
from workflows.initial_checkpoint import write_initial_checkpoint
from workflows.train import create_run

PROG = "isoflop import"

_OBJECTIVES: dict[str, ObjectiveConfig] = {
    "decoder_only": CausalLMConfig(),
    "encoder_only": MaskedLMConfig(),
    "encoder_decoder": SpanCorruptionConfig(),
}


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Makes a run of a Hugging Face folder: its weights are the checkpoint before the first step.

    `isoflop train RUN` then trains it on the corpus. Any field of the config can be overridden:
    --training.num-steps 500 --objective.kind denoising. Weights are read from safetensors only.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """A folder with config.json and model.safetensors."""
    out: Path
    """Run directory to write."""
    corpus: Path
    """Folder `isoflop prepare` wrote: what the run trains on. Its tokenizer may have fewer pieces
    than the model, and must be the model's own for the weights to mean anything to it."""
    seq_len: int = 0
    """Tokens in a row; 0: what the folder's config says, 1,024 at most."""


def main(args: Sequence[str]) -> int:
    """Runs `isoflop import`."""
    options, overrides = parse_command(
        ImportOptions, args, prog=PROG, description=ImportOptions.__doc__ or ""
    )
    imported = import_folder(options.folder)
    seq_len = options.seq_len or min(imported.seq_len, 1024)
    config = RunConfig(
        name=options.out.name,
        model=imported.config,
        objective=_OBJECTIVES[imported.config.architecture],
        data=DataConfig(corpus=str(options.corpus), seq_len=seq_len),
    )
    config = apply_overrides(config, overrides)
    run = RunDirectory(options.out)
    require(not run.exists(), "out", str(options.out), "a new folder")
    corpora = open_corpora(config.data)
    with run:
        create_run(run, config, corpora)
        write_initial_checkpoint(run, config, corpora, imported.params)
        run.event("imported", str(options.folder))
    num_params = count_params(imported.params)
    Console(highlight=False).print(
        f"{options.out}: {num_params:,} parameters, {config.model.architecture}; "
        f"isoflop train {options.out} trains it on {options.corpus}"
    )
    return 0
