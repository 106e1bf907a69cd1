"""What a compiler writes to stderr, and how it says that memory is short."""

import os

import pytest

from train.ahead_of_time import CompilerMessages, CompilerOutOfMemory, captured_stderr


def test_what_is_written_below_python_is_captured_and_nothing_after(capfd):
    with captured_stderr() as captured:
        os.write(2, b"from C++\n")
    os.write(2, b"later\n")
    assert captured == ["from C++\n"]
    assert capfd.readouterr().err == "later\n"


def test_an_error_inside_passes_and_stderr_is_back(capfd):
    with pytest.raises(RuntimeError, match="inside"), captured_stderr() as captured:
        os.write(2, b"before it\n")
        raise RuntimeError("inside")
    os.write(2, b"later\n")
    assert (captured, capfd.readouterr().err) == (["before it\n"], "later\n")


def test_arrays_gathered_whole_are_named():
    text = (
        "W0000 spmd_partitioner.cc:669] [SPMD] Involuntary full rematerialization. The compiler "
        "was not able to go from sharding {devices=[1,8]<=[8]} to {devices=[8,1]<=[8]} without "
        "doing a full rematerialization of the tensor for HLO operation: %reshape.7 = f32[8,8]\n"
        "I0000 something else\n"
    )
    assert CompilerMessages(text=text).rematerializations == ("%reshape.7",)
    assert CompilerMessages(text="all quiet\n").rematerializations == ()


def test_what_is_missing_is_read_from_the_compilers_message():
    error = CompilerOutOfMemory(
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 41.50G of 31.25G hbm. Exceeded hbm capacity by 10.25G."
    )
    assert error.needed_bytes == round(41.5 * 2**30)
    assert str(error) == "the compiler ran out of hbm: needs 44.56 of 33.55 GB"
    other = CompilerOutOfMemory(
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (67.92G) exceeds available HBM (31.25G)."
    )
    assert (other.space, other.needed_bytes) == ("hbm", round(67.92 * 2**30))
    chip = CompilerOutOfMemory("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem while")
    assert (chip.space, chip.needed_bytes) == ("vmem", 0)
