"""What a step holds and multiplies on certain hardware: its compiler decides how."""

from configs.errors import InputError
from configs.schema import RunConfig
from planner.attention_kernel import Platform
from planner.flops import ExecutedFlops, executed_flops_per_step
from planner.hardware import CHIPS, Chip, Hardware, chip_of_device
from planner.memory import TrainingBytes, training_bytes
from planner.topology import Topology, parse_topology


def chip_of(hardware: Hardware) -> Chip | None:
    """The chip that planned or present hardware is of; None where we have no figures."""
    name = hardware.device.partition(" ")[0]
    return CHIPS.get(name) or chip_of_device(hardware.device)


def platform_of(hardware: Hardware) -> Platform:
    """Whose compiler makes its programs; accelerators that we do not know are taken for GPUs."""
    chip = chip_of(hardware)
    if chip is not None and chip.is_tpu:
        return "tpu"
    return "gpu" if hardware.is_accelerator else "cpu"


def known_topology(hardware: Hardware) -> Topology | None:
    """The standard grid of the hardware's chips; None for CPUs, chips we have no figures of, and
    numbers of chips that no grid is sold in."""
    chip = chip_of(hardware)
    if chip is None:
        return None
    try:
        return parse_topology(f"{chip.name}:{hardware.num_devices // chip.devices}")
    except InputError:
        return None


def needed_bytes(config: RunConfig, hardware: Hardware) -> TrainingBytes:
    """What a step holds on one of the hardware's devices."""
    return training_bytes(config, platform=platform_of(hardware))


def compiler_of(topology: Topology) -> Platform:
    """Whose compiler makes programs for the topology's chips."""
    if topology.chip is None:
        return "cpu"
    return "tpu" if topology.chip.is_tpu else "gpu"


def executed_flops(config: RunConfig, topology: Topology) -> ExecutedFlops:
    """What all devices together multiply in a step."""
    return executed_flops_per_step(config, platform=compiler_of(topology))
