"""The formula of step time, on machines that are known."""

import numpy as np
import pytest

from benchmarks.step_time import CALIBRATION, CHECKS, Load, Machine, calibrate, draw, judge, table


def records_of(machine: Machine, noise: float = 0.0) -> list[dict]:
    generator = np.random.default_rng(0)
    records = []
    for config in (*CALIBRATION, *CHECKS):
        load = Load.of(config)
        seconds = machine.seconds(load) * float(np.exp(noise * generator.normal()))
        records.append(
            {
                "shape": config.name,
                "params": 1,
                "flops": load.flops,
                "bytes": load.bytes,
                "scores": load.scores,
                "seconds": seconds,
            }
        )
    return records


def test_three_points_give_the_machine_back():
    machine = Machine(flop_seconds=1 / 150e9, byte_seconds=1 / 20e9, score_seconds=5e-9)
    result = judge(records_of(machine), len(CALIBRATION))
    assert result["machine"]["gflops_per_second"] == pytest.approx(150)
    assert result["machine"]["gb_per_second"] == pytest.approx(20)
    assert result["machine"]["scores_per_second"] == pytest.approx(1 / 5e-9)
    assert result["largest_error"] < 1e-6


def test_no_constant_is_negative():
    loads = [Load.of(config) for config in CALIBRATION]
    seconds = [load.flops / 100e9 - 1e-3 for load in loads]
    machine = calibrate(loads, seconds)
    assert min(machine.flop_seconds, machine.byte_seconds, machine.score_seconds) >= 0


def test_errors_count_on_shapes_that_were_not_calibrated_on():
    machine = Machine(flop_seconds=1 / 150e9, byte_seconds=1 / 20e9, score_seconds=5e-9)
    records = records_of(machine)
    records[-1]["seconds"] *= 2
    result = judge(records, len(CALIBRATION))
    assert result["largest_error"] == pytest.approx(0.5, abs=1e-6)
    assert not {c.name for c in CALIBRATION} & {c.name for c in CHECKS}


def test_every_shape_has_a_row_and_a_bar():
    machine = Machine(flop_seconds=1 / 150e9, byte_seconds=1 / 20e9, score_seconds=4e-9)
    result = judge(records_of(machine, noise=0.1), len(CALIBRATION))
    names = [config.name for config in (*CALIBRATION, *CHECKS)]
    assert all(name in table(result) for name in names)
    labels = [label.get_text() for label in draw(result).axes[1].get_yticklabels()]
    assert labels == names


def test_fewer_than_three_points_are_refused():
    with pytest.raises(ValueError, match=r"^loads: got 2 and 2 seconds, expected three"):
        calibrate([Load(flops=1.0, bytes=1.0, scores=1.0)] * 2, [1.0, 1.0])
