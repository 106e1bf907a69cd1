"""Every test sees 8 CPU devices, and an error where NumPy would silently promote ranks.

Set in the environment before JAX is imported, so that subprocesses started by tests inherit it.
"""

import os
import sys

NUM_DEVICES = 8

assert "jax" not in sys.modules, "jax was imported before the tests could configure it"

os.environ["JAX_PLATFORMS"] = os.environ.get("ISOFLOP_TEST_PLATFORM", "cpu")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ.setdefault("ISOFLOP_CACHE", "none")  # a test compiles what it tests
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={NUM_DEVICES}"
).strip()
