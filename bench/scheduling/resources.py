"""GPUs and cores of a run and of each trial, from the command line; checked against this machine before any work."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.config.sweep import Sweep
from bench.system.machine import cores, cores_in_words


@dataclass(frozen=True)
class Resources:
    """Resources of a run; ``gpus`` is the number of this machine's GPUs, for a cluster's nodes report theirs."""

    threads: int  # cores per trial
    gpus: int = 0
    gpus_per_trial: int = 0  # 0 on a CPU
    address: str | None = None  # of a Ray cluster; ``None`` for this machine

    def slots_here(self) -> int:
        """Number of trials that this machine runs at the same time."""
        return self.slots(cores(), self.gpus)

    def slots(self, cores: float, gpus: float) -> int:
        """Number of trials that a machine with these cores and GPUs runs at the same time."""
        by_cores = int(cores // self.threads)
        if not self.gpus_per_trial:
            return by_cores
        return min(by_cores, int(gpus // self.gpus_per_trial))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--executor", choices=("ray", "serial"), default="ray", help="serial needs no Ray")
    parser.add_argument(
        "--address", metavar="auto|HOST:PORT", help="an existing Ray cluster to run on (default: this machine)"
    )
    parser.add_argument(
        "--fetch",
        action="append",
        default=[],
        metavar="PATH=URI",
        help="fetch missing data or weights first, as in data/ECSSD=s3://bucket/ECSSD; repeatable",
    )
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs of this machine to use (default: all)")
    parser.add_argument(
        "--gpus-per-trial",
        type=float,
        metavar="N",
        help="1 (default): a whole GPU; 2 or more: data parallel on these GPUs",
    )
    parser.add_argument("--cpus-per-trial", type=int, metavar="N", help="cores for each trial (default: 1 on a CPU)")


def resources_of(options: argparse.Namespace, sweep: Sweep) -> Resources:
    """Reads the options. Raises ``ConfigError`` for numbers that this machine lacks and for options that conflict."""
    if options.address is not None:
        return _on_cluster(options, sweep)
    usable, visible = cores(), torch.cuda.device_count()
    on_gpu = sweep.base.device == "cuda"
    if options.gpus is not None:
        if not on_gpu and options.gpus != 0:
            raise ConfigError(f"--gpus {options.gpus}: this profile runs on the CPU. Add device=cuda to use GPUs")
        if on_gpu and not 1 <= options.gpus <= visible:
            allowed = f"Allowed: 1 to {visible}" if visible else "Leave it out, and see what is missing"
            raise ConfigError(f"--gpus {options.gpus}: torch sees {visible} GPUs here. {allowed}")
    gpus = (options.gpus or visible) if on_gpu else 0
    each = _gpus_per_trial(options, sweep)
    if gpus and each > gpus:  # without any GPU, the trials are reported as lacking one
        raise ConfigError(f"--gpus-per-trial {each}: there are {gpus} GPUs to use. Allowed: up to {gpus}")
    at_once = max(1, gpus // each) if gpus else 1
    default = max(1, usable // at_once) if gpus else 1
    threads = default if options.cpus_per_trial is None else options.cpus_per_trial
    if not 1 <= threads <= usable:
        raise ConfigError(f"--cpus-per-trial {threads}: {cores_in_words()}. Allowed: 1 to {usable}")
    return Resources(threads, gpus, each)


def _on_cluster(options: argparse.Namespace, sweep: Sweep) -> Resources:
    """Reads the options for a cluster, whose nodes are checked later."""
    address = options.address
    if options.executor == "serial":
        raise ConfigError(f"--address {address}: --executor serial runs on this machine only. Leave one of them out")
    if options.gpus is not None:
        raise ConfigError(f"--gpus {options.gpus}: a cluster's nodes report their GPUs. Leave it out with --address")
    if not address or (address != "auto" and not _is_host_port(address)):
        raise ConfigError(f"--address '{address}' is no address. Allowed: auto, or HOST:PORT as in 10.0.0.1:6379")
    threads = 1 if options.cpus_per_trial is None else options.cpus_per_trial
    if threads < 1:
        raise ConfigError(f"--cpus-per-trial {threads}: at least 1 is needed")
    return Resources(threads, 0, _gpus_per_trial(options, sweep), address)


def _is_host_port(address: str) -> bool:
    host, colon, port = address.rpartition(":")
    return bool(host) and bool(colon) and "/" not in host and port.isdigit() and 0 < int(port) < 65536


def _gpus_per_trial(options: argparse.Namespace, sweep: Sweep) -> int:
    """Number of GPUs for each trial; 0 on a CPU."""
    wanted, on_gpu = options.gpus_per_trial, sweep.base.device == "cuda"
    if wanted is None:
        return 1 if on_gpu else 0
    option = f"--gpus-per-trial {wanted:g}"
    if not on_gpu:
        raise ConfigError(f"{option}: this profile runs on the CPU. Leave it out, or add device=cuda to use GPUs")
    if 0 < wanted < 1:
        reason = "trials do not share a GPU, because neither memory nor speed can be measured on a shared one"
        raise ConfigError(f"{option}: {reason}. Allowed: whole numbers from 1")
    if not wanted.is_integer() or wanted < 1:
        raise ConfigError(f"{option}: is no number of GPUs. Allowed: whole numbers from 1")
    return int(wanted)


def check_parallel(resources: Resources, trials: Sequence[Trial]) -> None:
    """Raises ``ConfigError`` for trials that several GPUs cannot share: a batch with fewer images than GPUs, and a
    recorded step (``train.compile: step``)."""
    if resources.gpus_per_trial <= 1:
        return
    each = f"--gpus-per-trial {resources.gpus_per_trial}"
    for trial in trials:
        at, size = ", ".join(trial.point), trial.config.train.batch_size
        if size < resources.gpus_per_trial:
            raise ConfigError(f"{each}: every GPU needs an image of each batch, but train.batch_size is {size} at {at}")
        if trial.config.train.compile == "step":
            remedy = "Set train.compile=blocks, or --gpus-per-trial 1"
            raise ConfigError(f"{each}: train.compile is step at {at}, and a recorded step is for one GPU. {remedy}")
