"""The planner's bytes against what the TPU compiler reports: compiles, records, compares.

    JAX_PLATFORMS=cpu ALLOW_MULTIPLE_LIBTPU_LOAD=1 \\
        .venv-tpu/bin/python -m benchmarks.memory_model --compile --cases 8b-v5p-64
    .venv/bin/python -m benchmarks.memory_model

The first compiles the train step of the cases named (all of them by default) for chips that are
not here, and writes what the compiler says of each into tests/planner/compiled_memory.json, with
the config, the versions and the day; the second prints the planner's bytes beside those recorded.
What counts is the peak of one device, arguments included (`peak_memory_in_bytes`); temporaries are
recorded beside it, and are more than is allocated.

The constants in planner/memory.py were fitted on the cases that say so; the others were compiled
to see how they hold.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.tpu_cases import CASES, TpuCase
from configs.errors import InputError, require
from configs.presets.gemma import gemma2_2b
from configs.presets.llama import llama3_2_1b, llama3_8b
from configs.presets.mixtral import mixtral_8x7b
from configs.presets.qwen import qwen3_8b
from configs.presets.t5 import t5_large
from configs.schema import MeshConfig, RunConfig
from configs.serialize import did_you_mean, from_json, to_json
from planner.memory import training_bytes

RECORD = Path(__file__).resolve().parents[1] / "tests" / "planner" / "compiled_memory.json"


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler said of one program.

    Attributes:
      is_fitted: whether the planner's constants were fitted on it, among others.
      topology, num_slices: the chips, as in benchmarks/tpu_cases.py.
      config: of the run, as configs.serialize writes it.
      argument_bytes, temporary_bytes, peak_bytes: of one device.
      day: of the compilation, ISO 8601.
    """

    name: str
    is_fitted: bool
    topology: str
    num_slices: int
    config: Mapping[str, Any]
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    versions: Mapping[str, str]
    day: str

    def run(self) -> RunConfig:
        return from_json(RunConfig, self.config)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Prints the planner's bytes beside the compiler's; with --compile, compiles first."""

    cases: tuple[str, ...] = ()
    """Names of cases; all by default."""
    compile: bool = False
    """Compile the cases for their chips and record what the compiler says; needs libtpu."""


def tensor_1b() -> RunConfig:
    """Llama 3.2 1B, heads and widths cut over four chips."""
    return _on(llama3_2_1b(), MeshConfig(fsdp=4, tensor=4), batch_size=16)


def qwen_8b() -> RunConfig:
    """Qwen3 8B on 32 chips, a row each."""
    return _on(qwen3_8b(), MeshConfig(fsdp=32), batch_size=32)


def gemma_2b() -> RunConfig:
    """Gemma 2 2B with its windows and soft caps on 16 chips, a row each."""
    return _on(gemma2_2b(), MeshConfig(fsdp=16), batch_size=16)


def t5_large_16() -> RunConfig:
    """T5 v1.1 large on 16 chips, 16 rows each."""
    return _on(t5_large(), MeshConfig(fsdp=16), batch_size=256)


def mixtral_fsdp() -> RunConfig:
    """Mixtral 8×7B without an expert axis, on 64 chips, a row each."""
    return _on(mixtral_8x7b(), MeshConfig(fsdp=64), batch_size=64)


def llama_dots() -> RunConfig:
    """Llama 3 8B that keeps its products with kernels, a row on each of 32 chips."""
    return _rematerialising("dots", ("remat",))


def llama_attention() -> RunConfig:
    """Llama 3 8B that computes only attention again, a row on each of 32 chips."""
    return _rematerialising("attention", ("remat",))


def llama_half() -> RunConfig:
    """Llama 3 8B of which every second layer keeps everything, a row on each of 32 chips."""
    return _rematerialising("full", ("remat", "keep"))


_OTHERS = (
    (TpuCase(name="1b-tensor-v5e-16", config=tensor_1b, topology="v5e:4x4"), True),
    (TpuCase(name="qwen-8b-v6e-32", config=qwen_8b, topology="v6e:4x8"), False),
    (TpuCase(name="gemma-2b-v5e-16", config=gemma_2b, topology="v5e:4x4"), False),
    (TpuCase(name="t5-large-v5e-16", config=t5_large_16, topology="v5e:4x4"), False),
    (TpuCase(name="8x7b-fsdp-v5p-128", config=mixtral_fsdp, topology="v5p:4x4x4"), False),
    (TpuCase(name="8b-dots-v5p-64", config=llama_dots, topology="v5p:2x4x4"), False),
    (TpuCase(name="8b-attention-v5p-64", config=llama_attention, topology="v5p:2x4x4"), False),
    (TpuCase(name="8b-half-v5p-64", config=llama_half, topology="v5p:2x4x4"), False),
)
_FITTED = (
    "8b-v5p-64",
    "8b-v6e-64",
    "70b-v5p-256",
    "8x7b-v5p-128",
    "t5-xxl-v5p-64",
    "bert-large-v5e-16",
)
MEMORY_CASES = {case.name: (case, case.name in _FITTED) for case in CASES} | {
    case.name: (case, is_fitted) for case, is_fitted in _OTHERS
}


def main(args: Sequence[str]) -> int:
    """Runs the command: 0 done, 2 on bad input (raised as InputError)."""
    options = tyro.cli(Options, args=args, prog="memory_model", description=Options.__doc__)
    for name in options.cases:
        expected = ", ".join(MEMORY_CASES) + did_you_mean(name, MEMORY_CASES)
        require(name in MEMORY_CASES, "cases", name, expected)
    names = options.cases or tuple(MEMORY_CASES)
    if options.compile:
        for name in names:
            compiled = compile_case(*MEMORY_CASES[name])
            record = {**read_record(), name: compiled}
            write_record([record[known] for known in MEMORY_CASES if known in record])
    record = read_record()
    print_table([record[name] for name in names if name in record], Console())
    return 0


def compile_case(case: TpuCase, is_fitted: bool) -> Compiled:
    """Compiles the case's train step; minutes on two cores, for thousands of chips too."""
    from benchmarks.ours_compile import PACKAGES, tpu_devices
    from planner.topology import parse_topology
    from train.mesh import make_mesh
    from train.programs import abstract_batch
    from train.state import abstract_state
    from train.step import make_train_step

    config = case.config()
    devices = tpu_devices(parse_topology(case.topology, case.num_slices))
    mesh = make_mesh(config.mesh, devices)
    lowered = make_train_step(config, mesh).lower(
        abstract_state(config, mesh), abstract_batch(config, mesh)
    )
    memory = lowered.compile().memory_analysis()
    assert memory is not None
    return Compiled(
        name=case.name,
        is_fitted=is_fitted,
        topology=case.topology,
        num_slices=case.num_slices,
        config=to_json(config),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        versions={name: version(name) for name in PACKAGES},
        day=datetime.now(UTC).date().isoformat(),
    )


def read_record(path: Path = RECORD) -> dict[str, Compiled]:
    """Programs that were compiled, by name; none where there is no record yet."""
    if not path.exists():
        return {}
    record = json.loads(path.read_text())
    require(record["schema_version"] == 2, "schema_version", record["schema_version"], "2")
    return {case["name"]: Compiled(**case) for case in record["cases"]}


def write_record(cases: Sequence[Compiled], path: Path = RECORD) -> None:
    """Writes the record, a line for each program."""
    lines = ",\n".join(json.dumps(asdict(case)) for case in cases)
    text = f'{{"schema_version": 2, "cases": [\n{lines}\n]}}\n'
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)


def print_table(cases: Sequence[Compiled], console: Console) -> None:
    """One line for each program."""
    table = Table(
        "case", "fitted", "arguments GB", "temporaries GB", "peak GB", "planner GB", "off",
        title="per device; GB = 1e9 bytes",
    )  # fmt: skip
    for case in cases:
        planned = training_bytes(case.run(), platform="tpu").total
        table.add_row(
            case.name,
            "yes" if case.is_fitted else "no",
            f"{case.argument_bytes / 1e9:.3f}",
            f"{case.temporary_bytes / 1e9:.3f}",
            f"{case.peak_bytes / 1e9:.3f}",
            f"{planned / 1e9:.3f}",
            f"{planned / case.peak_bytes - 1:+.1%}",
        )
    console.print(table)


def _on(config: RunConfig, mesh: MeshConfig, *, batch_size: int) -> RunConfig:
    training = replace(config.training, batch_size=batch_size, num_microbatches=1)
    return replace(config, mesh=mesh, training=training)


def _rematerialising(remat: Any, pattern: tuple[Any, ...]) -> RunConfig:
    config = _on(llama3_8b(), MeshConfig(fsdp=32), batch_size=32)
    return replace(config, model=replace(config.model, remat=remat, remat_pattern=pattern))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        print(f"memory_model: {error}", file=sys.stderr)
        sys.exit(2)
