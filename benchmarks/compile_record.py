"""One program lowered and compiled under the clock, and the record of it that both sides keep.

Standard library only: benchmarks/maxtext_compile.py loads it in MaxText's own environment.
"""

import gzip
import json
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")


def compile_and_keep(
    lower: Callable[[], Any],
    out: Path,
    *,
    packages: tuple[str, ...],
    compiler_options: dict[str, Any] | None = None,
) -> Any:
    """Compiles what `lower` gives, and writes what the compiler says of it.

    Writes `out`.hlo.gz, the optimized HLO text of one device, and `out`.json: `argument_bytes`,
    `temporary_bytes`, `output_bytes`, `alias_bytes`, `code_bytes` of one device; `lower_seconds`;
    `compile_seconds` and `compile_cpu_seconds` (of all threads: other processes on the same cores
    hardly change it); `load_average` of the last minute before compiling; versions; flags in the
    environment.

    Args:
      lower: traces and lowers: `lambda: jax.jit(step, ...).lower(...)`.
      packages: whose versions to record.

    Returns:
      What `lower().compile()` gives.
    """
    load_average = os.getloadavg()[0]
    start = time.perf_counter()
    lowered = lower()
    lowered_at, cpu_start = time.perf_counter(), time.process_time()
    compiled = lowered.compile(compiler_options=compiler_options)
    done, cpu_done = time.perf_counter(), time.process_time()
    memory = compiled.memory_analysis()
    record = {
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "peak_bytes": memory.peak_memory_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "lower_seconds": round(lowered_at - start, 2),
        "compile_seconds": round(done - lowered_at, 2),
        "compile_cpu_seconds": round(cpu_done - cpu_start, 2),
        "load_average": round(load_average, 2),
        "versions": {name: version(name) for name in packages},
        "flags": {name: os.environ.get(name, "") for name in _FLAGS},
    }
    with gzip.open(f"{out}.hlo.gz", "wt") as file:
        file.write(compiled.as_text())
    Path(f"{out}.json").write_text(json.dumps(record, indent=1) + "\n")
    return compiled
