"""Compiles one train step of MaxText for TPUs that are not here, and keeps what the compiler says.

Runs in MaxText's own environment (Python 3.12; benchmarks/maxtext.txt says how to make it), so it
imports nothing of ours but the clock (benchmarks/compile_record.py):

    JAX_PLATFORMS=cpu PYTHON benchmarks/maxtext_compile.py OUT/NAME KEY=VALUE ...

KEY=VALUE are MaxText's own settings; MaxText's own `train_compile` makes the step, its shardings
and the abstract state of them. Its last act alone, lowering and compiling, is replaced by the same
calls under our clock, because it gives neither times nor the program.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
from compile_record import compile_and_keep
from maxtext.trainers.pre_train import train_compile  # pyright: ignore[reportMissingImports]
from maxtext.utils import max_utils  # pyright: ignore[reportMissingImports]

PACKAGES = ("maxtext", "jax", "jaxlib", "flax", "libtpu")

# Left alone, MaxText sets flags of its own that dump every pass's text, which takes time.
_NO_DUMP = "--xla_dump_large_constants=false"


def compile_case(out: Path, settings: list[str]) -> None:
    """Compiles the train step of MaxText's settings; writes `out`.hlo.gz and `out`.json."""
    if not os.environ.get("XLA_FLAGS"):
        os.environ["XLA_FLAGS"] = _NO_DUMP

    def jit_and_compile(
        step: Any,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        mesh: Any,
        in_shardings: Any,
        out_shardings: Any,
        static_argnums: Any,
        donate_argnums: Any,
        config: Any,
        logical_axis_rules: Any,
    ) -> Any:
        def lower() -> Any:
            with jax.set_mesh(mesh), logical_axis_rules:
                return jax.jit(
                    step,
                    in_shardings=in_shardings,
                    out_shardings=out_shardings,
                    static_argnums=static_argnums,
                    donate_argnums=donate_argnums,
                ).lower(*arguments, **keywords)

        options = max_utils.parse_libtpu_flags_to_dict(config.compile_xla_flags)
        return compile_and_keep(lower, out, packages=PACKAGES, compiler_options=options)

    train_compile.jit_and_compile = jit_and_compile
    base = Path(train_compile.pyconfig.__file__).with_name("base.yml")
    with tempfile.TemporaryDirectory() as scratch:
        scratch_setting = f"base_output_directory={scratch}"
        train_compile.main(["train_compile", str(base), scratch_setting, *settings])


if __name__ == "__main__":
    if len(sys.argv) < 3 or any("=" not in setting for setting in sys.argv[2:]):
        sys.exit(f"got {sys.argv[1:]}, expected OUT/NAME KEY=VALUE ...")
    compile_case(Path(sys.argv[1]), sys.argv[2:])
