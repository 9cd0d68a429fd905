"""The files in docs/cluster, as far as one machine without Slurm and Kubernetes can try them."""

import argparse
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from conftest import REPOSITORY

from bench.config.sweep import load_sweep
from bench.scheduling.resources import add_options
from bench.scheduling.run_options import parser

FOLDER = REPOSITORY / "docs" / "cluster"


@pytest.fixture(scope="module")
def job() -> dict:
    return yaml.safe_load((FOLDER / "rayjob.yaml").read_text())


def arguments_of(command: str) -> list[str]:
    """What follows ``python -m bench.run`` in a shell line."""
    return shlex.split(command.partition("python -m bench.run ")[2])


def test_the_sbatch_file_is_sound_shell_that_fails_early():
    path = FOLDER / "slurm.sbatch"
    subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text()
    assert "set -euo pipefail" in text
    directives = re.findall(r"^#SBATCH --([a-z-]+)=\S+$", text, re.M)
    assert {"nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "time", "signal"} <= set(directives)
    body = text.index("set -euo pipefail")
    assert all(match.start() < body for match in re.finditer("^#SBATCH", text, re.M)), "Slurm stops reading there"


def test_the_sbatch_file_starts_ray_and_the_driver_by_their_own_options():
    text = (FOLDER / "slurm.sbatch").read_text().replace("\\\n", " ")
    head, worker = (re.search(rf"ray start ({start}.*) &", text)[1] for start in ("--head", "--address"))
    # each is an option of the ray that is installed
    known = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--help"], capture_output=True, text=True, check=True
    ).stdout
    given = re.findall(r"--[a-z-]+", f"{head} {worker} --num-cpus --num-gpus")
    assert all(option in known for option in given) and "--block" in given
    driver = text.partition("python -m bench.run")[2]
    parser = argparse.ArgumentParser()
    add_options(parser)
    options = parser.parse_args(["--address", "10.0.0.1:6379", "--cpus-per-trial", "4"])
    assert options.address and '"$@" --address "$IP:$PORT" --cpus-per-trial' in driver


def test_the_ray_job_has_the_fields_that_kuberay_asks_for(job):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob") and job["metadata"]["name"]
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes strings only"
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        (container,) = pod["containers"]
        assert container["image"] == groups[0]["template"]["spec"]["containers"][0]["image"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert all(isinstance(value["value"], str) for value in container.get("env", []))
        assert all(isinstance(amount, str) for amount in container["resources"]["limits"].values())
        assert container["resources"]["limits"] == container["resources"]["requests"], (
            "Ray counts limits, Kubernetes both"
        )
    for group in cluster["workerGroupSpecs"]:
        assert group["groupName"] and group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_ray_job_runs_a_command_of_this_repository(job):
    options = parser().parse_intermixed_args(arguments_of(job["spec"]["entrypoint"]))
    sweep = load_sweep(REPOSITORY / options.sweep, options.profile, options.overrides)
    assert sweep.base.device == "cuda" and options.address == "auto" and options.executor == "ray"
    head, (worker,) = (job["spec"]["rayClusterSpec"][key] for key in ("headGroupSpec", "workerGroupSpecs"))
    container = worker["template"]["spec"]["containers"][0]
    assert int(container["resources"]["limits"]["cpu"]) >= options.cpus_per_trial
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert head["rayStartParams"]["num-cpus"] == "0"
    mounts = head["template"]["spec"]["containers"][0]["volumeMounts"]
    assert str(options.results) in {mount["mountPath"] for mount in mounts}
