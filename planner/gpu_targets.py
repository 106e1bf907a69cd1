"""GPUs as XLA's compiler wants them described, to compile for one that is not here.

Multiprocessors, their registers and shared memory, caches and clocks are the vendor's figures (the
data sheets, and the CUDA programming guide's table of compute capabilities); memory is what the
driver reports as a device's, a little less than what the card is sold with.
"""

from dataclasses import dataclass

from planner.hardware import CHIPS

_KIB, _MIB, _GIB = 1024, 1024**2, 1024**3


@dataclass(frozen=True, kw_only=True)
class GpuTarget:
    """One GPU.

    Attributes:
      compute_capability: (major, minor).
      multiprocessors: enabled on the card as sold.
      shared_bytes_of_multiprocessor, shared_bytes_of_block: in all, and what one block may ask for.
      memory_bytes: what the driver shows.
    """

    name: str
    description: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    clock_ghz: float
    cuda_cores_of_multiprocessor: int
    shared_bytes_of_multiprocessor: int
    shared_bytes_of_block: int
    l2_bytes: int
    memory_bytes: int

    def text(self) -> str:
        """The `target_config` of `jax.experimental.topologies.get_topology_desc`."""
        major, minor = self.compute_capability
        return f"""gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: {self.shared_bytes_of_block}
  shared_memory_per_core: {self.shared_bytes_of_multiprocessor}
  core_count: {self.multiprocessors} fpus_per_core: {self.cuda_cores_of_multiprocessor}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {int(CHIPS[self.name].memory_bytes_per_second)}
  l2_cache_size: {self.l2_bytes} clock_rate_ghz: {self.clock_ghz}
  device_memory_size: {self.memory_bytes}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
device_description_str: "{self.description}"
"""


_HOPPER = {
    "compute_capability": (9, 0),
    "multiprocessors": 132,
    "clock_ghz": 1.98,
    "cuda_cores_of_multiprocessor": 128,
    "shared_bytes_of_multiprocessor": 228 * _KIB,
    "shared_bytes_of_block": 227 * _KIB,
    "l2_bytes": 50 * _MIB,
}
_AMPERE = {
    "compute_capability": (8, 0),
    "multiprocessors": 108,
    "clock_ghz": 1.41,
    "cuda_cores_of_multiprocessor": 64,
    "shared_bytes_of_multiprocessor": 164 * _KIB,
    "shared_bytes_of_block": 163 * _KIB,
    "l2_bytes": 40 * _MIB,
}

GPU_TARGETS = {
    target.name: target
    for target in (
        GpuTarget(
            name="a100-40gb",
            description="NVIDIA A100-SXM4-40GB",
            memory_bytes=int(39.4 * _GIB),
            **_AMPERE,
        ),
        GpuTarget(
            name="a100",
            description="NVIDIA A100-SXM4-80GB",
            memory_bytes=int(79.1 * _GIB),
            **_AMPERE,
        ),
        GpuTarget(
            name="h100",
            description="NVIDIA H100 80GB HBM3",
            memory_bytes=int(79.1 * _GIB),
            **_HOPPER,
        ),
        GpuTarget(
            name="h200", description="NVIDIA H200", memory_bytes=int(139.8 * _GIB), **_HOPPER
        ),
        GpuTarget(
            name="b200",
            description="NVIDIA B200",
            compute_capability=(10, 0),
            multiprocessors=148,
            clock_ghz=1.965,
            cuda_cores_of_multiprocessor=128,
            shared_bytes_of_multiprocessor=228 * _KIB,
            shared_bytes_of_block=227 * _KIB,
            l2_bytes=126 * _MIB,
            memory_bytes=int(178 * _GIB),
        ),
    )
}
