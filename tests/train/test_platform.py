"""What is settled before JAX starts: the platform, its flags, huge pages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import InputError
from train import platform
from train.platform import FLAGS, expected_platform, flags_in_force, restart_with_huge_pages
from train.platform import set_flags as put_flags

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("named", "found"),
    [("cpu", "cpu"), ("tpu,cpu", "tpu"), ("cuda", "gpu"), ("rocm,cpu", "gpu"), (" GPU ", "gpu")],
)
def test_the_platform_named_first_is_the_one_expected(named, found):
    assert expected_platform({"JAX_PLATFORMS": named}) == found


@pytest.mark.parametrize(
    ("files", "installed", "found"),
    [
        ((), ("libtpu", "jax_cuda12_plugin"), "cpu"),
        (("accel0",), ("libtpu",), "tpu"),
        (("vfio/0", "vfio/vfio"), ("libtpu",), "tpu"),
        (("vfio/vfio",), ("libtpu",), "cpu"),
        (("accel0",), (), "cpu"),
        (("nvidia0", "nvidiactl"), ("jax_cuda13_plugin",), "gpu"),
        (("nvidiactl",), ("jax_cuda13_plugin",), "cpu"),
        (("nvidia0",), (), "cpu"),
        (("accel0", "nvidia0"), ("libtpu", "jax_cuda12_plugin"), "tpu"),
    ],
)
def test_an_accelerator_counts_where_it_is_present_and_its_plugin_installed(
    files, installed, found, tmp_path, monkeypatch
):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.setattr(platform, "_is_installed", lambda module: module in installed)
    assert expected_platform({}, tmp_path) == found


def test_a_users_flag_takes_the_place_of_ours_and_the_rest_stay():
    mine = "--xla_gpu_enable_latency_hiding_scheduler=false"
    environment = {"XLA_FLAGS": f"{mine} --xla_dump_to=/tmp/x"}
    flags = put_flags("", "gpu", environment)
    assert environment["XLA_FLAGS"].split() == flags == flags_in_force(environment)
    assert mine in flags and "--xla_dump_to=/tmp/x" in flags
    assert set(flags) - {mine, "--xla_dump_to=/tmp/x"} == set(list(FLAGS["gpu"])[1:])


def test_an_option_takes_the_place_of_the_users_and_our_flag():
    name = "--xla_tpu_overlap_compute_collective_tc"
    environment = {"LIBTPU_INIT_ARGS": f"{name}=true", "XLA_FLAGS": "--xla_dump_to=/tmp/x"}
    flags = put_flags(f"{name}=false xla_tpu_new=3", "tpu", environment)
    assert [flag for flag in flags if flag.startswith(name)] == [f"{name}=false"]
    assert flags[-1] == "--xla_tpu_new=3"
    assert len(flags) == len(FLAGS["tpu"]) + 1
    assert environment["XLA_FLAGS"] == "--xla_dump_to=/tmp/x"


def test_none_leaves_out_ours_and_keeps_the_users():
    environment = {"XLA_FLAGS": "--xla_a=1"}
    assert put_flags("none --xla_b=2", "gpu", environment) == ["--xla_a=1", "--xla_b=2"]
    untouched: dict[str, str] = {}
    assert put_flags("none", "tpu", untouched) == [] and untouched == {}
    assert put_flags("", "cpu", untouched) == [] and untouched == {}


@pytest.mark.parametrize("choice", ["latency", "--xla_a", "-xla_a=1", "--xla_a=1 none"])
def test_what_is_no_flag_is_refused(choice):
    with pytest.raises(InputError, match=r"xla_flags: got .*, expected NAME=VALUE"):
        put_flags(choice, "cpu", {})


def test_xla_takes_our_gpu_flags_and_refuses_others():
    # One parser reads the flags of all platforms, so the CPU's jaxlib knows those for GPUs.
    def starts(flags: str) -> bool:
        script = "import jax; jax.devices()"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        return (
            subprocess.run(
                [sys.executable, "-c", script], env=environment, capture_output=True, check=False
            ).returncode
            == 0
        )

    assert starts(" ".join(FLAGS["gpu"]))
    assert not starts("--xla_gpu_enable_wishful_thinking=true")


def test_flags_of_the_option_reach_xla_after_the_commands_modules_are_imported():
    script = (
        "import io, jax\n"
        "from rich.console import Console\n"
        "from workflows.pretrain import PretrainOptions, prepare_runtime\n"
        "import workflows.train, workflows.calibrate\n"
        "flags = '--xla_force_host_platform_device_count=3'\n"
        "options = PretrainOptions(xla_flags=flags, compilation_cache='none')\n"
        "said = io.StringIO()\n"
        "prepare_runtime(options, Console(file=said))\n"
        "assert flags in said.getvalue(), said.getvalue()\n"
        "print(jax.device_count())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS")
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (result.stdout, result.returncode) == ("3\n", 0), result.stderr


@pytest.fixture
def restarted(monkeypatch):
    """The calls of execve on a machine where huge pages have to be asked for."""
    calls: list[dict[str, str]] = []
    monkeypatch.setattr(platform, "_kernel_huge_pages", lambda: "madvise")
    monkeypatch.setattr(platform, "_glibc_version", lambda: (2, 36))
    monkeypatch.setattr(os, "execve", lambda program, args, env: calls.append(env))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("ISOFLOP_NO_REEXEC", raising=False)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return calls


def test_a_process_on_a_cpu_is_restarted_with_huge_pages(restarted):
    restart_with_huge_pages()
    [environment] = restarted
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert {name: environment[name] for name in ("PATH", "JAX_PLATFORMS")} == {
        name: os.environ[name] for name in ("PATH", "JAX_PLATFORMS")
    }


def test_other_tunables_of_the_user_are_kept(restarted, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    restart_with_huge_pages()
    expected = "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    assert restarted[0]["GLIBC_TUNABLES"] == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0"),
        ("ISOFLOP_NO_REEXEC", "1"),
        ("JAX_PLATFORMS", "tpu"),
    ],
)
def test_a_users_setting_or_an_accelerator_is_left_alone(restarted, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    restart_with_huge_pages()
    assert restarted == []


@pytest.mark.parametrize(
    ("function", "value"),
    [
        ("_kernel_huge_pages", "always"),
        ("_kernel_huge_pages", "never"),
        ("_kernel_huge_pages", ""),
        ("_glibc_version", (2, 31)),
        ("_glibc_version", ()),
    ],
)
def test_nothing_is_restarted_where_it_would_not_help(restarted, monkeypatch, function, value):
    monkeypatch.setattr(platform, function, lambda: value)
    restart_with_huge_pages()
    assert restarted == []


def test_a_refused_restart_goes_on(restarted, monkeypatch):
    asked = []

    def refuse(*arguments):
        asked.append(arguments)
        raise PermissionError("sandbox")

    monkeypatch.setattr(os, "execve", refuse)
    restart_with_huge_pages()  # returns
    assert len(asked) == 1 and restarted == []


def test_a_restart_happens_once_and_keeps_the_process(tmp_path):
    # The front door's first lines with a kernel that has to be asked, whatever this one is.
    script = tmp_path / "door.py"
    script.write_text(
        "import json, os, sys\n"
        "from train import platform\n"
        "platform._kernel_huge_pages = lambda: 'madvise'\n"
        "platform._glibc_version = lambda: (2, 36)\n"
        "print(os.getpid(), flush=True)\n"
        "platform.restart_with_huge_pages()\n"
        "print(json.dumps([os.getcwd(), sys.argv, os.environ['GLIBC_TUNABLES']]))\n"
        "sys.exit(7)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    for name in ("GLIBC_TUNABLES", "ISOFLOP_NO_REEXEC"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, str(script), "train", "a b", "--x=1"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    first, second, last = process.communicate(timeout=60)[0].splitlines()
    assert int(first) == int(second) == process.pid
    arguments = [str(script), "train", "a b", "--x=1"]
    assert json.loads(last) == [str(tmp_path), arguments, "glibc.malloc.hugetlb=1"]
    assert process.returncode == 7
