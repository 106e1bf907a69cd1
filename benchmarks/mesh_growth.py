"""What every chip sends in a step as a mesh grows along one axis: compiled for TPUs, never run.

    .venv-tpu/bin/python -m benchmarks.mesh_growth                      # v5e, 4 to 256 chips
    .venv/bin/python -m benchmarks.mesh_growth --chip cpu --sizes 4 16  # pretended CPU devices

Two layers of a decoder (268M parameters, head and table included), and of a mixture (881M, 256
experts a layer) where the axis is `expert`. The batch grows with the mesh, 512 tokens a chip
whatever the axis, so that every chip always has the same products with kernels: rows of 512
tokens, one a chip, and along `sequence` one row for all chips. Heads and MLP widths allow 16 along
`tensor`; larger grids take `fsdp` for the rest. Full rematerialisation, AdamW, bf16 products.

Bytes are payloads of one chip and step: what it sends into an all-reduce, reduce-scatter,
all-to-all or permute, or gets out of an all-gather, loops counted as often as they run
(train/hlo_collectives.py). The record is written after every program.
"""

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.data_config import DataConfig
from configs.errors import require
from configs.mlp_config import MoEConfig, SwiGLUConfig
from configs.model_config import AttentionConfig, ModelConfig
from configs.optimizer_config import AdamWConfig
from configs.schema import MeshConfig, RunConfig, TrainingConfig
from configs.serialize import write_json
from planner.topology import parse_topology

AXES = ("data", "fsdp", "tensor", "sequence", "expert")
SIZES = (4, 16, 64, 256)
TOKENS_PER_CHIP = 512
MOST_TENSOR = 16

DECODER = ModelConfig(
    vocab_size=32_768,
    emb_dim=2048,
    num_layers=2,
    attention=AttentionConfig(num_heads=16, num_kv_heads=16, head_dim=128),
    mlp=SwiGLUConfig(mlp_dim=8192),
    tie_embeddings=False,
    compute_dtype="bfloat16",
    remat="full",
)
MIXTURE = replace(
    DECODER,
    emb_dim=1024,
    attention=AttentionConfig(num_heads=8, num_kv_heads=8, head_dim=128),
    mlp=MoEConfig(mlp_dim=512, num_experts=256, experts_per_token=2),
)


def mesh_of(axis: str, num_chips: int) -> MeshConfig:
    """All chips along the axis; of `tensor` 16 at most, the rest along `fsdp`."""
    along = min(num_chips, MOST_TENSOR) if axis == "tensor" else num_chips
    sizes: dict[str, Any] = {axis: along} | (
        {"fsdp": num_chips // along} if along < num_chips else {}
    )
    return MeshConfig(**sizes)


def config_of(axis: str, num_chips: int) -> RunConfig:
    """The step of a mesh: 512 tokens a chip.

    Raises:
      InputError: the axis is not one of these.
    """
    require(axis in AXES, "axes", axis, f"one of {', '.join(AXES)}")
    is_sequence = axis == "sequence"
    return RunConfig(
        name=f"{axis}-{num_chips}",
        model=MIXTURE if axis == "expert" else DECODER,
        data=DataConfig(seq_len=TOKENS_PER_CHIP * (num_chips if is_sequence else 1)),
        optimizer=AdamWConfig(),
        mesh=mesh_of(axis, num_chips),
        training=TrainingConfig(batch_size=1 if is_sequence else num_chips),
    )


def compile_record(axis: str, num_chips: int, chip: str) -> dict[str, Any]:
    """What the compiled step of a mesh sends and holds; `error` where it fits no memory."""
    # JAX must not start before XLA_FLAGS say how many devices to pretend.
    from train.ahead_of_time import CompilerOutOfMemory, compile_train_step
    from train.compile_devices import make_topology
    from train.compiled import analyse
    from train.mesh import make_mesh

    config = config_of(axis, num_chips)
    topology = parse_topology(f"{chip}:{num_chips}")
    mesh = make_mesh(config.mesh, make_topology(topology))
    record: dict[str, Any] = {
        "axis": axis,
        "chips": num_chips,
        "topology": topology.name,
        "mesh": {name: size for name, size in config.mesh.axis_sizes.items() if size > 1},
    }
    try:
        step = compile_train_step(config, mesh)
    except CompilerOutOfMemory as error:
        return record | {"error": str(error)}
    program = analyse(step.compiled, mesh, step.state, step.batch)
    return record | {
        "hbm_bytes": program.memory.total,
        "flops": program.flops,
        "traffic": [
            {
                "kind": part.kind,
                "axes": "+".join(part.axes),
                "calls": part.calls,
                "payload_bytes": part.payload_bytes,
            }
            for part in program.traffic
        ],
    }


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a row a mesh; payload MB of one chip and step by kind and axes of the mesh."""
    lines = [
        "| mesh | chips | HBM, GB | GFLOP a chip | MB a chip and step |",
        "|---|---|---|---|---|",
    ]
    for record in records:
        mesh = " × ".join(f"{name}={size}" for name, size in record["mesh"].items())
        if "error" in record:
            lines.append(f"| {mesh} | {record['chips']} | | | {record['error']} |")
            continue
        megabytes: dict[str, float] = defaultdict(float)
        for part in record["traffic"]:
            megabytes[f"{part['kind']} {part['axes']}"] += part["payload_bytes"] / 1e6
        # Scalars (losses, norms) and index exchanges are not worth a name each.
        named = [f"{name} {size:,.1f}" for name, size in megabytes.items() if size >= 0.1]
        lines.append(
            f"| {mesh} | {record['chips']} | {record['hbm_bytes'] / 1e9:.2f} "
            f"| {record['flops'] / 1e9:,.0f} | {'; '.join(named)} |"
        )
    return "\n".join(lines)


def kept_records(path: Path, chip: str) -> list[dict[str, Any]]:
    """What an earlier run left; nothing where there is no file.

    Raises:
      InputError: it was for another chip.
    """
    if not path.exists():
        return []
    kept = json.loads(path.read_text(encoding="utf-8"))
    require(kept["chip"] == chip, "out", f"{path} for {kept['chip']}", f"meshes of {chip}")
    return kept["meshes"]


def main() -> None:
    """Compiles every mesh, prints the table, keeps the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--chip", default="v5e", help="or another TPU, or cpu")
    parser.add_argument("--out", type=Path, default=Path("mesh_growth.json"))
    parser.add_argument("--reuse", action="store_true", help="keep the meshes in --out as they are")
    options = parser.parse_args()
    # The devices compiled for are described to the compiler; the process itself needs none.
    os.environ["JAX_PLATFORMS"] = "cpu"
    if options.chip == "cpu":
        count = f"--xla_force_host_platform_device_count={max(options.sizes)}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {count}".strip()
    records = kept_records(options.out, options.chip) if options.reuse else []
    known = {(record["axis"], record["chips"]) for record in records}
    for axis in options.axes:
        for size in options.sizes:
            if (axis, size) in known:
                continue
            records.append(compile_record(axis, size, options.chip))
            records.sort(key=lambda record: (AXES.index(record["axis"]), record["chips"]))
            write_json(options.out, {"chip": options.chip, "meshes": records})
            print(f"{axis} {size}", flush=True)
    print(table(records))


if __name__ == "__main__":
    main()
