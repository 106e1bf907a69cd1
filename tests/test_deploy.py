"""What deploy/slurm.sh does by exit codes, with programs of ours in the place of SLURM's; and that
deploy/jobset.yaml is YAML whose numbers belong together."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
BASH = shutil.which("bash") or "/bin/bash"


class Ended(NamedTuple):
    status: int
    starts: list[str]
    requeued: list[str]


@pytest.fixture
def slurm(tmp_path):
    """Runs the script where srun ends with one status after another, the last one for ever."""

    def program(name: str, body: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!{BASH}\n{body}\n")
        path.chmod(0o755)

    def run(*statuses: int) -> Ended:
        (tmp_path / "statuses").write_text("".join(f"{status}\n" for status in statuses))
        program(
            "srun",
            f'cd {tmp_path}; echo "$@" >> starts; read -r status < statuses\n'
            "[ $(wc -l < statuses) -eq 1 ] || sed -i 1d statuses\nexit $status",
        )
        program("scontrol", f'echo "$@" >> {tmp_path}/requeued')
        program("sleep", "exit 0")
        done = subprocess.run(
            [BASH, str(DEPLOY / "slurm.sh"), "CONFIG", "--run", "a run"],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, lines(tmp_path / "starts"), lines(tmp_path / "requeued"))

    return run


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("status", [0, 1, 2])
def test_what_is_done_or_needs_a_person_is_not_started_again(slurm, status):
    ended = slurm(status)
    assert (ended.status, len(ended.starts), ended.requeued) == (status, 1, [])
    assert ended.starts[0].endswith("isoflop train CONFIG --run a run --resume --distributed")


def test_a_run_that_was_told_to_stop_is_queued_again(slurm):
    ended = slurm(143)
    assert (len(ended.starts), ended.requeued) == (1, ["requeue 7"])


@pytest.mark.parametrize("status", [42, 134, 137])
def test_hangs_and_lost_peers_are_started_again(slurm, status):
    ended = slurm(status, status, 0)
    assert (ended.status, len(ended.starts), ended.requeued) == (0, 3, [])


def test_failures_without_end_are_given_up(slurm):
    ended = slurm(42)
    assert (ended.status, len(ended.starts), ended.requeued) == (1, 11, [])


def test_the_jobsets_processes_are_those_of_one_indexed_job():
    objects = list(yaml.safe_load_all((DEPLOY / "jobset.yaml").read_text()))
    assert [one["kind"] for one in objects] == ["ServiceAccount", "Role", "RoleBinding", "JobSet"]
    [job] = objects[-1]["spec"]["replicatedJobs"]
    spec, pods = job["template"]["spec"], job["template"]["spec"]["template"]["spec"]
    [container] = pods["containers"]
    assert (job["replicas"], spec["completionMode"]) == (1, "Indexed")
    assert spec["parallelism"] == spec["completions"]
    gpus = spec["parallelism"] * container["resources"]["limits"]["nvidia.com/gpu"]
    meshes = [word.split("=")[1] for word in container["command"] if word.startswith("--mesh.")]
    assert int(meshes[0]) * int(meshes[1]) == gpus
    assert {"--resume", "--distributed"} <= set(container["command"])
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2]
