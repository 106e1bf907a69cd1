"""Compiles one of our train steps for TPUs that are not here, and keeps what the compiler says.

    JAX_PLATFORMS=cpu .venv-tpu/bin/python benchmarks/ours_compile.py OUT/NAME CASE

CASE is a name in benchmarks/tpu_cases.py. Writes what benchmarks/maxtext_compile.py writes.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jax.experimental import topologies

from benchmarks.compile_record import compile_and_keep
from benchmarks.tpu_cases import CASES, TpuCase
from planner.topology import Topology, parse_topology
from train.mesh import make_mesh
from train.programs import abstract_batch
from train.state import abstract_state
from train.step import make_train_step

PACKAGES = ("jax", "jaxlib", "flax", "libtpu")


def compile_case(case: TpuCase, out: Path) -> None:
    """Compiles the train step of the case; writes `out`.hlo.gz and `out`.json."""
    config, topology = case.config(), parse_topology(case.topology, case.num_slices)
    mesh = make_mesh(config.mesh, tpu_devices(topology))
    state, batch = abstract_state(config, mesh), abstract_batch(config, mesh)
    step = make_train_step(config, mesh)
    compile_and_keep(lambda: step.lower(state, batch), out, packages=PACKAGES)


def tpu_devices(topology: Topology) -> list[Any]:
    """The devices as MaxText describes them to libtpu: v4 and v5p chips as one device of two
    cores, tori closed to rings where the slice has whole cubes of 4x4x4 chips.

    libtpu's own default leaves every torus open.
    """
    chip = topology.chip
    assert chip is not None and chip.is_tpu, topology
    grid = "x".join(map(str, topology.grid))
    return list(
        topologies.get_topology_desc(
            f"{chip.name}:{grid}",
            platform="tpu",
            chip_config_name="megacore" if chip.name in ("v4", "v5p") else "default",
            chips_per_host_bounds=(2, 2, 1),
            num_slices=topology.num_slices,
            wrap=tuple(d < len(topology.grid) and topology.wraps(d) for d in range(3)),
        ).devices
    )


if __name__ == "__main__":
    known = {case.name: case for case in CASES}
    if len(sys.argv) != 3 or sys.argv[2] not in known:
        sys.exit(f"got {sys.argv[1:]}, expected OUT/NAME and one of {', '.join(known)}")
    compile_case(known[sys.argv[2]], Path(sys.argv[1]))
